"""Iterations of training with the published transformer in the published trainer's structure.

A program for `relic_throughput`, in the environment of that module: torch, transformers 4.35.0,
numpy, PyYAML and safetensors. Worlds, embedding, heads and PPO are ours; what `_relic_concatenated`
does with our blocks, the published module does here with its own. Settings: ``checkout``, ``task``,
``threads``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from _relic_official import official_model
from _step_server import serve
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _relic_concatenated import ConcatenatedLearner, ConcatenatedTrials

from embodied_rl.nn.attention import KeysValues
from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.run import read_run
from embodied_rl.policies.relic.tokens import Tokens

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class PublishedTransformer(nn.Module):
    """The module behind the interface of ours that training needs."""

    def __init__(self, checkout: Path, config: RelicConfig, steps: int) -> None:
        super().__init__()
        # its table of angles is as long as that of positions, and each step may be an episode
        rows = steps + config.sinks + 2
        settings = {**asdict(config.transformer), "positions": rows}
        self.net = official_model(checkout, settings)

    def forward(self, x: Tensor, episode: Tensor, *, first: int = 0) -> Tensor:
        mask = _mask(episode.diff(dim=1, prepend=episode[:, :1] - 1) > 0)
        found = self.net(inputs_embeds=x, attention_mask=mask, use_cache=False)
        return found.last_hidden_state[:, first:]


def _mask(first: Tensor) -> Tensor:
    """Its way to say where episodes begin: 0 there, else 1."""
    return (~first).float()


class _NoPositions(nn.Module):
    """The published module adds positions in the episode itself."""

    def forward(self, position: Tensor) -> Tensor:
        return torch.zeros(())


def published_model(checkout: Path, config: RelicConfig, steps: int) -> RelicModel:
    """Our embedding and heads around the published transformer, for trials of ``steps`` steps."""
    model: Any = RelicModel(config)
    model.transformer = PublishedTransformer(checkout, config, steps)
    model.positions = _NoPositions()
    return model


class PublishedTrials(ConcatenatedTrials):
    """What is kept of the past goes through the module, which puts sinks, past and present in one.

    The keys and values that it returns are taken as they are: the copy into the published rollout
    storage is left out.
    """

    def stepped(
        self, tokens: Tokens, first: Tensor, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        return self._found(self._model.embed(tokens)[:, None], first, past)

    def encoded(self, one: Tokens) -> tuple[Tensor, list[KeysValues]]:
        return self._found(self._model.embed(one), one.time == 0, None)

    def _found(
        self, x: Tensor, first: Tensor, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        net: Any = self._model.transformer.net
        found = net(
            inputs_embeds=x, attention_mask=_mask(first), past_key_values=past, use_cache=True
        )
        return found.last_hidden_state, [KeysValues(*pair) for pair in found.past_key_values]


def _make(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Callable[[], object]]]:
    torch.set_num_threads(settings["threads"])
    run = read_run(CONFIGS / f"relic_{settings['task']}.yaml")
    run = replace(run, training=replace(run.training, shuffle=False))
    torch.manual_seed(0)
    model = published_model(Path(settings["checkout"]), run.model, run.training.trial_steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=run.ppo.learning_rate, eps=1e-5, fused=True)
    learner, seeds = ConcatenatedLearner(run, model, PublishedTrials), count()

    def iteration() -> None:
        learner.learn(optimizer, torch.Generator().manual_seed(next(seeds)))

    return {}, {"iteration": iteration}


if __name__ == "__main__":
    serve(_make)
