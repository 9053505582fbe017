"""A TGPO checkpoint on the simulated robot, beside its twin from the same starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import episode_seed
from embodied_rl.policies.evaluation import Evaluation
from embodied_rl.policies.tgpo.adapters import make_adapter
from embodied_rl.policies.tgpo.runtime import RunSettings, TgpoPolicy
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.sim.stl_tasks.task import StlTask
from embodied_rl.sim.tasks.drive import DriveTask
from embodied_rl.sim.tasks.reach import ReachTask
from embodied_rl.training.statistics import wilson_interval

# dynamics -> the simulated world whose robot they stand for
WORLDS = {task.dynamics: task.world for task in (DriveTask, ReachTask)}


def world_of(policy: TgpoPolicy) -> str:
    """Raises UserError where no simulated robot is driven as the policy's dynamics."""
    dynamics = policy.config.dynamics
    if dynamics not in WORLDS:
        raise UserError(
            f"policy {policy.name}: no simulated robot is driven as '{dynamics}'; there are robots "
            f"for {sorted(WORLDS)}"
        )
    return WORLDS[dynamics]


def starts(evaluation: Evaluation, policy: TgpoPolicy) -> Tensor:
    """True states ``(episodes, n)`` in which the robot begins the episodes of an evaluation."""
    dynamics = policy.dynamics
    sim = make_simulator(world_of(policy), evaluation.task, noise=0.0)
    adapter = make_adapter(dynamics.name, dynamics.dt_s, sim.embodiment)
    found = []
    for episode in range(evaluation.episodes):
        sim.reset(episode_seed(evaluation.seed, episode))
        found.append(adapter.state({key: sample.value for key, sample in sim.read().items()}))
    sim.close()
    return torch.tensor(np.array(found), dtype=torch.float32)


@dataclass(frozen=True)
class PairedRuns:
    """Episodes of one task on the robot, and what the twin did from the same starts."""

    task: StlTask
    robot: Sequence[EpisodeResult]
    twin: np.ndarray  # (episodes,) robustness, m

    @property
    def successes(self) -> int:
        return sum(result.outcome.success for result in self.robot)

    @property
    def twin_successes(self) -> int:
        return int((self.twin > 0).sum())


def paired_runs(
    policy: TgpoPolicy,
    task: StlTask,
    evaluation: Evaluation,
    settings: RunSettings,
    robot: Sequence[EpisodeResult],
) -> PairedRuns:
    """The twin's episodes to those that the robot had."""
    draws = torch.Generator().manual_seed(evaluation.seed)
    twin = policy.run(task, starts(evaluation, policy), settings, draws)
    return PairedRuns(task, robot, twin.robustness.numpy())


def figures(found: Sequence[PairedRuns]) -> dict[str, Any]:
    """Success over all tasks and for each, of the robot and of the twin, as JSON data."""
    return {
        **_rates(found),
        "tasks": {one.task.name: {**_rates([one]), "formula": one.task.text} for one in found},
    }


def _rates(found: Sequence[PairedRuns]) -> dict[str, Any]:
    count = sum(len(one.robot) for one in found)
    rates: dict[str, Any] = {"episodes": count}
    for who, successes in (
        ("robot", sum(one.successes for one in found)),
        ("twin", sum(one.twin_successes for one in found)),
    ):
        low, high = wilson_interval(successes, count)
        rates[who] = {
            "successes": successes,
            "success": successes / count,
            "low": low,
            "high": high,
        }
    return rates
