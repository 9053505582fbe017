"""A plan for the unicycle on the simulated robot: over ROS topics, in one process, and in the twin.

The same starts three times: the MuJoCo robot of world ``arena`` behind topics, in lockstep; the
same in one process, with more starts; and the dynamics that the policy was trained on. Success is
robustness of the task's formula above 0, on true positions. Beside it, how far robot and twin are
apart: after each step of the policy, where it plans anew from what is measured (``follow``), and
under random actions, after one step and blindly over a whole trace (``step``, ``drift``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _report import report
from _twin_error import twin_errors

from embodied_rl.bringup.evaluate import evaluate_over_ros, same_commands
from embodied_rl.bringup.names import find_spec
from embodied_rl.core.policy import ActionChunk, episode_seed
from embodied_rl.core.window import Observation
from embodied_rl.policies.evaluation import Evaluation
from embodied_rl.policies.registry import find_checkpoint, load_policy
from embodied_rl.policies.tgpo.adapters import make_adapter
from embodied_rl.policies.tgpo.evaluation import own_tasks
from embodied_rl.policies.tgpo.runtime import RunSettings, TgpoPolicy, load_tgpo
from embodied_rl.policies.tgpo.sim_gap import PairedRuns, figures, paired_runs, world_of
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import EpisodeResult, rollout
from embodied_rl.sim.stl_tasks.task import StlTask

WORST = 0.10  # by which success may lie below the twin's


@dataclass(frozen=True)
class Arguments:
    """Success on the simulated robot beside the twin's, on the stored tasks of a checkpoint."""

    model: str = "tgpo_unicycle"
    episodes: int = 2
    """A task, over ROS topics."""
    in_process: int = 16
    """A task, in one process; the first ones are those over ROS topics."""
    traces: int = 16
    """Of random actions."""
    seed: int = 0
    json: Path | None = None


def in_process(evaluation: Evaluation) -> tuple[list[EpisodeResult], list[float]]:
    """The episodes, and the distance from the twin after each step of the policy, in m."""
    assert evaluation.world is not None
    sim = make_simulator(evaluation.world, evaluation.task)
    policy: Any = load_policy(evaluation.model, sim.embodiment, evaluation.task)
    apart: list[float] = []

    def note(_: Observation, chunk: ActionChunk | None) -> None:
        if chunk is not None:
            apart.append(policy.figures()["follow_error_m"])

    results = []
    for episode in range(evaluation.episodes):
        seed = episode_seed(evaluation.seed, episode)
        results.append(rollout(sim, policy, episode, seed, on_tick=note))
    sim.close()
    return results, [value for value in apart if np.isfinite(value)]


def blind(policy: TgpoPolicy, task: StlTask, arguments: Arguments) -> dict[str, float]:
    """Base and twin under random actions."""
    dynamics, sim = policy.dynamics, make_simulator(world_of(policy), task.name)
    embodiment = sim.embodiment
    sim.close()
    adapter = make_adapter(dynamics.name, dynamics.dt_s, embodiment)
    found = twin_errors(adapter.targets, task.name, arguments.traces, arguments.seed)
    return {
        "step_mean_m": float(found.step_m.mean()),
        "step_p95_m": float(np.percentile(found.step_m, 95)),
        "drift_end_m": float(found.drift_m[:, -1].mean()),
    }


def rates(name: str, found: list[PairedRuns]) -> dict[str, float]:
    """Success of the robot with its interval, and how far it lies below the twin's."""
    both = figures(found)
    robot, twin = both["robot"], both["twin"]["success"]
    flat = {f"{name}.{key}": robot[key] for key in ("success", "low", "high")}
    flat |= {f"{name}.episodes": both["episodes"], f"{name}.twin": twin}
    return {**flat, f"{name}.below_twin": twin - robot["success"]}


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench tgpo_ros")
    torch.set_num_threads(1)
    folder = find_checkpoint(arguments.model)
    policy, settings = load_tgpo(folder), RunSettings()
    ros, alone, same, apart = [], [], [], []
    for task in own_tasks(folder):
        spec, world = find_spec(task.name), world_of(policy)
        few = Evaluation(str(folder), spec, arguments.episodes, arguments.seed, world=world)
        many = Evaluation(str(folder), spec, arguments.in_process, arguments.seed, world=world)
        results, away = in_process(many)
        apart += away
        alone.append(paired_runs(policy, task, many, settings, results))
        over = evaluate_over_ros(few)
        ros.append(paired_runs(policy, task, few, settings, over))
        same.append(same_commands(over, results[: arguments.episodes]))
        print(f"{task.name}: {ros[-1].successes} of {len(over)} over topics", flush=True)
    found: dict[str, float] = {**rates("ros", ros), **rates("in_process", alone)}
    found["same_commands"] = sum(one["same_commands"] for one in same) / found["ros.episodes"]
    found["follow_mean_m"] = float(np.mean(apart))
    found["follow_p95_m"] = float(np.percentile(apart, 95))
    found |= blind(policy, own_tasks(folder)[0], arguments)
    targets = {
        "ros.below_twin": ("<=", WORST),
        "in_process.below_twin": ("<=", WORST),
        "same_commands": (">=", 1.0),
    }
    series = {"ros": figures(ros)["tasks"], "in_process": figures(alone)["tasks"]}
    return report("tgpo_ros", found, targets, arguments.json, series)


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
