"""ReLIC on the robot: success by episode in the MuJoCo apartment, beside the grid of its training.

Trials of eight episodes in homes that no training has seen; the weights do not change, so what an
episode gains over the first of its trial was learned in context. The grid twin plays the same
homes, starts and targets, and ``gap`` is robot minus twin of the same episode. Over ROS topics, in
lockstep, the first trials are run once more (``ros``), and their commands compared with those of
one process.

Intervals are of 95 % over trials; ``late`` is the mean of the episodes from the sixth on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _report import Target, report

from embodied_rl.bringup.evaluate import evaluate_over_ros, same_commands
from embodied_rl.cli import UsageError
from embodied_rl.policies.evaluation import evaluate_in_process
from embodied_rl.policies.registry import find_checkpoint
from embodied_rl.policies.relic import apartment
from embodied_rl.policies.relic.apartment_report import evaluation_of
from embodied_rl.policies.relic.evaluation import Given, load_relic_model
from embodied_rl.policies.relic.method import RelicOptions
from embodied_rl.sim.registry import world_embodiment
from embodied_rl.sim.rollout import EpisodeResult

NAMES = {"success": "success", "efficiency": "spl"}


@dataclass(frozen=True)
class Arguments:
    """Success and SPL of the robot by episode of a trial, beside the grid twin's."""

    model: str = "relic_apartment"
    trials: int = 20
    ros_trials: int = 2
    """Of these, so many over ROS topics as well; 0 for none."""
    seed: int = 0
    workers: int = 2
    """Processes that run trials."""
    json: Path | None = None


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench relic_apartment")
    if arguments.trials < 2 or not 0 <= arguments.ros_trials <= arguments.trials:
        raise UsageError(
            "--trials: expected at least 2, and --ros-trials at most as many, saw "
            f"{arguments.trials} and {arguments.ros_trials}"
        )
    torch.set_num_threads(1)
    folder = find_checkpoint(arguments.model)
    loaded, given = (
        load_relic_model(folder),
        apartment.given_episodes(arguments.trials, arguments.seed),
    )
    began_s = time.perf_counter()
    evaluation = evaluation_of(str(folder), given, arguments.seed, RelicOptions(device="cpu"))
    results = evaluate_in_process(evaluation, workers=arguments.workers)
    wall_s = time.perf_counter() - began_s
    found = apartment.beside(loaded, given, results, arguments.seed).figures
    figures = flat(found)
    figures["real_time_factor"] = simulated_s(results) / wall_s
    figures["workers"] = arguments.workers
    targets: dict[str, Target] = {"gain.success.late.low": (">=", 0.0)}
    if arguments.ros_trials:
        figures |= over_ros(folder, given, results, arguments)
        targets["ros.same_commands"] = (">=", 1.0)
    return report("relic_apartment", figures, targets, arguments.json, found)


def flat(found: Mapping[str, Any]) -> dict[str, float]:
    """The comparison of robot and twin as single figures."""
    twin, figures = found["twin"], {"trials": found["trials"]}
    for key, name in NAMES.items():
        for who, rates in (("", found), ("twin.", twin)):
            means = [mean for mean, _, _ in rates["by_episode"][key]]
            figures |= {f"{who}{name}_{k + 1}": mean for k, mean in enumerate(means)}
            figures[f"{who}{name}"] = float(np.mean(means))
        for span in ("last", "late"):
            _put(figures, f"gain.{name}.{span}", found["gain"][key][span])
            figures[f"twin.gain.{name}.{span}"] = twin["gain"][key][span][0]
        _put(figures, f"gap.{name}", found["gap"][key]["all"])
    for key in ("familiar", "new"):
        if found[key] is not None:
            figures[f"{key}.success"] = found[key]["success"]
    return figures


def _put(figures: dict[str, float], name: str, values: list[float]) -> None:
    figures[name], figures[f"{name}.low"], figures[f"{name}.high"] = values


def simulated_s(results: list[EpisodeResult]) -> float:
    """Time that passed in the simulator."""
    period_ns = world_embodiment(apartment.FindObject.world).period_ns
    return sum(result.ticks for result in results) * period_ns / 1e9


def over_ros(
    folder: Path, given: Given, alone: list[EpisodeResult], arguments: Arguments
) -> dict[str, float]:
    """The first trials over topics, beside the same ones in one process."""
    few = Given(*(part[: arguments.ros_trials] for part in given))
    results = evaluate_over_ros(evaluation_of(folder, few, arguments.seed, "cpu"))
    same = same_commands(results, alone[: len(results)])
    return {
        "ros.episodes": len(results),
        "ros.success": float(np.mean([apartment.succeeded(result) for result in results])),
        "ros.same_outcome": same["same_outcome"] / len(results),
        "ros.same_commands": same["same_commands"] / len(results),
        "ros.real_time_factor": float(
            np.mean([result.figures["real_time_factor"] for result in results])
        ),
    }


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
