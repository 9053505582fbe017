"""The published ReLIC trainer's structure around our network, for `relic_throughput`.

The same trials, the same updates, number for number, but done as the published code does them: each
step concatenates sinks, past and new keys and values of every layer and finds its place in the
trial by summing over all steps so far; the cache is refreshed one trial after another; gradients of
a minibatch are accumulated over single trials.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.episodes import Rotation
from embodied_rl.nn.episodic_transformer import Block
from embodied_rl.nn.sink_attention import attend
from embodied_rl.policies.relic.episodes import EpisodeTable
from embodied_rl.policies.relic.model import Outputs, RelicModel
from embodied_rl.policies.relic.rollout import Trials, collect, joined
from embodied_rl.policies.relic.run import RelicRun
from embodied_rl.policies.relic.tokens import Tokens, first_tokens
from embodied_rl.sim.navigation.base import TRAIN, TrialWorld, View
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.training.ppo import PpoSettings, Rollout, advantages, loss_terms


class ConcatenatedTrials(Trials):
    """Trials whose cache is a list of keys and values, one pair a layer, made anew every step."""

    def __init__(
        self, model: RelicModel, world: TrialWorld, count: int, steps: int, episodes: int
    ) -> None:
        self.world, self._model = world, model
        self._steps, self._episodes = steps, episodes

    def begin_with(self, worlds: Tensor, view: View) -> None:
        self.worlds, self.table = worlds, EpisodeTable(len(worlds), self._episodes)
        self._past: list[KeysValues] | None = None
        self._first: list[Tensor] = []
        self._see(first_tokens(view))

    @torch.no_grad()
    def _see(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._first.append(tokens.time == 0)
        hidden, self._past = self.stepped(tokens, torch.stack(self._first, dim=1), self._past)
        self._next = Outputs(*(part[:, 0] for part in self._model._heads(hidden)))

    @torch.no_grad()
    def refresh(self, past: Tokens) -> Tensor:
        pairs = zip(past, self._tokens)
        tokens = Tokens(*(torch.cat([a, b[None]]).transpose(0, 1) for a, b in pairs))
        outputs, caches = [], []
        for trial in range(len(tokens.time)):
            one = Tokens(*(part[trial : trial + 1] for part in tokens))
            hidden, layers = self.encoded(one)
            caches.append(layers)
            outputs.append(self._model._heads(hidden))
        self._past = [KeysValues(*(torch.cat(p) for p in zip(*layer))) for layer in zip(*caches)]
        self._first = list((tokens.time == 0).unbind(dim=1))
        logits, value = (torch.cat(part) for part in zip(*outputs))
        self._next = Outputs(logits[:, -1], value[:, -1])
        return value[:, :-1].T.contiguous()

    def stepped(
        self, tokens: Tokens, first: Tensor, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """The hidden vector ``(N, 1, W)`` of the next step ``(N,)``, and keys and values with its.

        Args:
            first: ``(N, t)`` bool, which steps so far began an episode.
        """
        steps = torch.arange(first.shape[1]).expand_as(first)
        start = torch.where(first, steps, 0).cummax(dim=1).values
        time, episode = (steps - start)[:, -1], (first.long().cumsum(dim=1) - 1)[:, -1:]
        return self._passed(self._model.embed(tokens._replace(time=time))[:, None], episode, past)

    def encoded(self, one: Tokens) -> tuple[Tensor, list[KeysValues]]:
        """Hidden vectors ``(1, t, W)`` of one trial, and its keys and values."""
        return self._passed(self._model.embed(one), one.episode, None)

    def _passed(
        self, x: Tensor, episode: Tensor, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        transformer, present = self._model.transformer, []
        turn, sinks = transformer._turn(episode), transformer.sinks()
        for layer, block in enumerate(transformer.blocks):
            before = None if past is None else past[layer]
            x, seen = _extended(block, x, turn, before, None if sinks is None else sinks[layer])
            present.append(seen)
        return transformer.norm(x), present


def _extended(
    block: Block, x: Tensor, turn: Rotation, past: KeysValues | None, sinks: KeysValues | None
) -> tuple[Tensor, KeysValues]:
    """One block's output ``(B, m, W)`` for new tokens, and all keys and values in new memory."""
    query, *own = block.attention.project(block.norm_attention(x), turn)
    new = KeysValues(*own)
    seen = new if past is None else new.with_first(past)
    memory = seen if sinks is None else seen.with_first(sinks)
    x = x + block.attention.out(attend(query, memory).transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm_mlp(x)), seen


def accumulated_update(
    model: RelicModel,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    last_value: Tensor,
    settings: PpoSettings,
    generator: torch.Generator,
    *,
    loss_from: int,
) -> None:
    """What `training.ppo.update` does on whole trials, one trial at a time."""
    advantage, returns = (part[loss_from:] for part in advantages(rollout, last_value, settings))
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    old = rollout.log_probability[loss_from:]
    for _ in range(settings.epochs):
        order = torch.randperm(old.shape[1], generator=generator)
        for part in order.tensor_split(settings.minibatches):
            optimizer.zero_grad(set_to_none=True)
            for trial in part[:, None]:
                tokens = Tokens(*(field[:, trial] for field in rollout.observation))
                found = model.evaluate(tokens, rollout.action[:, trial])
                log_probability, entropy, value = (field[loss_from:] for field in found[:3])
                policy_loss, value_loss, _, _ = loss_terms(
                    log_probability, value, old[:, trial], advantage[:, trial],
                    returns[:, trial], settings.clip,
                )  # fmt: skip
                loss = policy_loss + settings.value_coefficient * value_loss
                loss = loss - settings.entropy_coefficient * entropy.mean()
                if found.auxiliary is not None:
                    auxiliary = found.auxiliary[loss_from:].mean()
                    loss = loss + settings.auxiliary_coefficient * auxiliary
                (loss / len(part)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimizer.step()


class ConcatenatedLearner:
    """Iterations of a run without shuffling, in the published structure."""

    def __init__(
        self, run: RelicRun, model: RelicModel, kind: type[ConcatenatedTrials] = ConcatenatedTrials
    ) -> None:
        self._run, self._model = run, model
        settings, self._world = run.training, make_trial_world(run.training.world)
        self._trials = kind(model, self._world, settings.trials, settings.trial_steps, 1)

    def learn(self, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        """One iteration; as `Learner.learn`, number for number."""
        settings, trials, worlds = self._run.training, self._trials, self._world.worlds(TRAIN)
        chosen = torch.randint(len(worlds), (settings.trials,), generator=generator)
        trials.begin(worlds[chosen], generator)
        chunk, rollout = settings.trial_steps // settings.updates, None
        for left in reversed(range(settings.updates)):
            played = collect(trials, chunk, generator)
            rollout = played if rollout is None else joined(rollout, played)
            accumulated_update(
                self._model, optimizer, rollout, trials.next_value, self._run.ppo, generator,
                loss_from=len(rollout.reward) - chunk if left else 0,
            )  # fmt: skip
            if left:
                rollout.value = trials.refresh(rollout.observation)
