"""Success of a TGPO policy: the share of traces on which the task's own formula holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import episode_seed
from embodied_rl.core.schema import load_yaml_mapping
from embodied_rl.nn.device import device_of, new_tensors_on
from embodied_rl.policies.tgpo.mdp import AugmentedMdp, RewardWeights
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
    """Runs every task from the same starts for the same seed, whatever the policy is, on the
    policy's device (a device of another kind draws other starts)."""
    policy.groundings(tasks)  # what does not fit is said before anything runs
    results, place = [], device_of(policy.model)
    with new_tensors_on(place):
        for number, task in enumerate(tasks):
            starts = torch.Generator(place).manual_seed(episode_seed(seed, 2 * number))
            draws = torch.Generator(place).manual_seed(episode_seed(seed, 2 * number + 1))
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


@torch.no_grad()
def value_map(policy: TgpoPolicy, task: StlTask, state: Tensor) -> tuple[Tensor, Tensor]:
    """What the critic thinks of every pair of times of a task with two, and what comes of it.

    Args:
        state: of the robot at the start ``(1, n)``.

    Returns:
        Values ``(T + 1, T + 1)`` by the first and the second time in steps, NaN where the times are
        infeasible; and in the same places whether the policy's mean actions, without new times for
        what is missed, then satisfy the formula.

    Raises:
        UserError: the task has another number of times, or several alternatives.
    """
    groundings = policy.groundings([task])
    variables = int(groundings.used.sum())
    if len(groundings) != 1 or variables != 2:
        raise UserError(
            f"task {task.name}: expected one alternative with two times, saw {len(groundings)} "
            f"with {variables} in '{task.text}'"
        )
    side = task.dynamics.steps + 1
    times = torch.zeros(side * side, policy.config.variables, dtype=torch.long)
    times[:, :2] = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    chosen = torch.zeros(len(times), dtype=torch.long)
    feasible = groundings.feasible(chosen, times)
    chosen, times = chosen[feasible], times[feasible]
    mdp = AugmentedMdp(task.dynamics, RewardWeights())
    observation = mdp.reset(state.expand(len(times), -1), groundings.schedule(chosen, times))
    values = torch.full((side * side,), float("nan"))
    values[feasible] = policy.model.value(observation)
    positions = [task.dynamics.position(mdp.state)]
    for _ in range(task.dynamics.steps):
        observation, _ = mdp.step(policy.model.actor(observation))
        positions.append(task.dynamics.position(mdp.state))
    met = torch.zeros(side * side, dtype=torch.bool)
    met[feasible] = task.robustness(torch.stack(positions, dim=1)) > 0
    return values.view(side, side), met.view(side, side)


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
