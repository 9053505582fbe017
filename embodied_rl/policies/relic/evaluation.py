"""Evaluation by trials: how success, return and SPL change from episode to episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.checkpoint import load_checkpoint
from embodied_rl.core.schema import Section
from embodied_rl.nn.weights import load_weights
from embodied_rl.policies.relic.config import POLICY, RelicConfig
from embodied_rl.policies.relic.episodes import Episodes
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.rollout import Played, Trials
from embodied_rl.policies.relic.run import check_world
from embodied_rl.policies.relic.tokens import Tokens
from embodied_rl.sim.navigation.base import HELD_OUT, TrialWorld
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.training.config import read_dataclass
from embodied_rl.training.statistics import mean_interval, wilson_interval

EPISODES = 8
BATCH = 128
LATE = 5  # episodes before one that counts as late
# measure -> field of Episodes
MEASURES = {"return": "returned", "success": "success", "efficiency": "efficiency"}


@dataclass(frozen=True)
class Loaded:
    """A checkpoint ready to act in its world."""

    name: str
    model: RelicModel
    world: TrialWorld


def load_relic_model(folder: Path) -> Loaded:
    """From a checkpoint folder.

    Raises:
        UserError: damaged, not a ReLIC checkpoint, or of a world that has changed since.
    """
    data, arrays = load_checkpoint(folder)
    root = Section(str(folder / "config.yaml"), "", data)
    root.choice("policy", (POLICY,))
    config = read_dataclass(RelicConfig, root.child("model"))
    world = make_trial_world(root.text("task"))
    check_world(config, world, root.origin)
    model = RelicModel(config)
    load_weights(model, arrays, folder / "weights.safetensors")
    return Loaded(root.text("name"), model.eval().requires_grad_(False), world)


class Given(NamedTuple):
    """Trials whose episodes are given: ``N`` trials of ``E`` episodes."""

    worlds: Tensor  # (N,)
    starts: Tensor  # (N, E, 3): x, y, heading
    wanted: Tensor  # (N, E): type of object


Watcher = Callable[[Trials, Played], None]


def evaluate(
    model: RelicModel,
    world: TrialWorld,
    trials: int,
    seed: int,
    *,
    episodes: int = EPISODES,
    split: str = HELD_OUT,
    shown: int = 0,
    watch: Watcher | None = None,
) -> Episodes:
    """``trials`` trials of ``episodes`` episodes, in all worlds of a split in turn.

    Actions are drawn, as in training. The same seed asks the same of every model.

    Args:
        shown: so many first episodes are demonstrations by the world's expert.
        watch: called after each step of each batch of trials.
    """
    worlds, found = world.worlds(split), []
    for number in torch.arange(trials).split(BATCH):
        generator = torch.Generator().manual_seed(seed + int(number[0]))
        running = Trials(model, world, len(number), episodes * world.horizon, episodes)
        running.begin(worlds[number % len(worlds)], generator)
        found.append(_finished(running, generator, shown, watch))
    return _joined(found)


def evaluate_given(
    model: RelicModel,
    world: EgocentricNavigation,
    given: Given,
    seed: int,
    *,
    watch: Watcher | None = None,
) -> Episodes:
    """As :func:`evaluate`, of episodes that are given."""
    found = []
    for number in torch.arange(len(given.worlds)).split(BATCH):
        generator = torch.Generator().manual_seed(seed + int(number[0]))
        worlds, starts, wanted = (part[number] for part in given)
        episodes = wanted.shape[1]
        running = Trials(model, world, len(number), episodes * world.horizon, episodes)
        running.begin_with(worlds, world.begin(worlds, starts, wanted))
        found.append(_finished(running, generator, 0, watch))
    return _joined(found)


def _finished(
    running: Trials, generator: torch.Generator, shown: int, watch: Watcher | None
) -> Episodes:
    """A batch of trials, played to its end."""

    def demonstrate(_: Tokens, drawn: Tensor) -> Tensor:
        return torch.where(running.table.number < shown, running.world.expert_action(), drawn)

    while not running.table.complete:
        played = running.step(generator, demonstrate if shown else None)
        if watch is not None:
            watch(running, played)
    return running.table.episodes()


def _joined(found: Sequence[Episodes]) -> Episodes:
    return Episodes(*(torch.cat(parts) for parts in zip(*found)))


def summary(episodes: Episodes, measures: Sequence[str] = tuple(MEASURES)) -> dict[str, Any]:
    """The figures as JSON data.

    ``by_episode`` has for each measure one ``[mean, low, high]`` an episode, with 95 % intervals
    over trials (Wilson's for success). ``gain`` compares the last, and the mean of all late ones
    (from the sixth on; the last if there are fewer), with the first episode of the same trial.
    ``familiar`` and ``new`` are successes from the second episode on, by whether the target was
    found in an earlier one.

    Args:
        measures: some of :data:`MEASURES`.
    """
    tables = {key: measured(episodes, key) for key in measures}
    trials, count = episodes.finished.shape
    by_episode = {
        key: [list(mean_interval(column)) for column in table.T] for key, table in tables.items()
    }
    if "success" in measures:
        successes = episodes.success.sum(dim=0).tolist()
        by_episode["success"] = [[n / trials, *wilson_interval(n, trials)] for n in successes]
    late = slice(min(LATE, count - 1), None)
    gain = {
        key: {
            "last": list(mean_interval(table[:, -1] - table[:, 0])),
            "late": list(mean_interval(table[:, late].mean(axis=1) - table[:, 0])),
        }
        for key, table in tables.items()
    }
    return {
        "trials": trials,
        "episodes": count,
        "by_episode": by_episode,
        "gain": gain,
        "familiar": _rate(episodes, familiar=True),
        "new": _rate(episodes, familiar=False),
    }


def measured(episodes: Episodes, measure: str) -> np.ndarray:
    """One of :data:`MEASURES` ``(N, E)``."""
    return getattr(episodes, MEASURES[measure]).double().numpy()


def _rate(episodes: Episodes, *, familiar: bool) -> dict[str, float] | None:
    """Success of the later episodes with or without a target that is known; None if none is."""
    chosen = (episodes.familiar == familiar)[:, 1:]
    total, successes = int(chosen.sum()), int((episodes.success[:, 1:] & chosen).sum())
    if not total:
        return None
    low, high = wilson_interval(successes, total)
    return {"episodes": total, "success": successes / total, "low": low, "high": high}
