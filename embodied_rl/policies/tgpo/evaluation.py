"""Success of a TGPO policy: the share of traces on which the task's own formula holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embodied_rl.core.policy import episode_seed
from embodied_rl.core.schema import load_yaml_mapping
from embodied_rl.policies.tgpo.runtime import Episodes, RunSettings, TgpoPolicy
from embodied_rl.sim.stl_tasks.task import StlTask, load_task
from embodied_rl.training.statistics import wilson_interval


@dataclass(frozen=True)
class TaskResult:
    """Episodes of one task from ``episodes`` random starts."""

    task: StlTask
    episodes: Episodes

    @property
    def successes(self) -> int:
        return int((self.episodes.robustness > 0).sum())


def own_tasks(folder: Path) -> list[StlTask]:
    """The stored tasks that a checkpoint's config names."""
    return [
        load_task(name) for name in load_yaml_mapping(folder / "config.yaml")["training"]["tasks"]
    ]


def evaluate(
    policy: TgpoPolicy,
    tasks: Sequence[StlTask],
    episodes: int,
    seed: int,
    settings: RunSettings,
    on_task: Callable[[TaskResult], None] | None = None,
) -> list[TaskResult]:
    """Runs every task from the same starts for the same seed, whatever the policy is."""
    policy.groundings(tasks)  # what does not fit is said before anything runs
    results = []
    for number, task in enumerate(tasks):
        starts = torch.Generator().manual_seed(episode_seed(seed, 2 * number))
        draws = torch.Generator().manual_seed(episode_seed(seed, 2 * number + 1))
        state = task.start(episodes, starts)
        results.append(TaskResult(task, policy.run(task, state, settings, draws)))
        if on_task is not None:
            on_task(results[-1])
    return results


def summary(results: Sequence[TaskResult]) -> dict[str, Any]:
    """The figures as JSON data: over all tasks, by class of formula, and for each task.

    The interval is Wilson's over all episodes; the tasks themselves are fixed, not sampled.
    """
    layers = sorted({result.task.layers for result in results})
    return {
        **_rates(results),
        "layers": {name: _rates([r for r in results if r.task.layers == name]) for name in layers},
        "tasks": {result.task.name: _task(result) for result in results},
    }


def _rates(results: Sequence[TaskResult]) -> dict[str, Any]:
    successes = sum(result.successes for result in results)
    count = sum(len(result.episodes.robustness) for result in results)
    low, high = wilson_interval(successes, count)
    return {
        "episodes": count,
        "successes": successes,
        "success": successes / count,
        "low": low,
        "high": high,
    }


def _task(result: TaskResult) -> dict[str, Any]:
    found = result.episodes
    held = found.robustness[found.robustness > 0]
    return {
        **_rates([result]),
        "layers": result.task.layers,
        "formula": result.task.text,
        "robustness_of_successes_m": float(held.mean()) if len(held) else None,
        "robustness_m": float(found.robustness.mean()),
        "violated": float(found.violated.float().mean()),
        "certified": float(found.certified.float().mean()),
        "replanned": float((found.replanned > 0).float().mean()),
    }
