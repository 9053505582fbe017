"""Success of PTP and its rivals: same data, same steps, same episodes, several training seeds.

Every arm is the same code with other values in its config:

- ``short``: two frames of history.
- ``no_ptp``: long history, past actions in the sequence but without loss (the official rival).
- ``future_only``: long history, only present and future actions in the sequence.
- ``ptp``: long history, loss on past and future actions.

Demonstrations are recorded through the ROS graph if ``--bags`` has none of a task. Every finished
(task, arm, seed) is kept in ``--work``, so the run can be interrupted and goes on where it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
import yaml
from _predictability import prediction_error, tool_paths
from _report import Target, report
from rich.console import Console

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.policies.evaluation import Evaluation, evaluate_in_process, summary
from embodied_rl.sim.registry import TASKS, world_embodiment
from embodied_rl.training.statistics import wilson_interval

ROOT = Path(__file__).resolve().parents[1]
ARMS: dict[str, dict[str, object]] = {
    "short": {"history": 2},
    "no_ptp": {"supervised_past": 0},
    "future_only": {"past_tokens": False},
    "ptp": {},
}
DEMONSTRATIONS, DEMONSTRATION_SEED = 250, 1000


@dataclass(frozen=True)
class Arguments:
    """Success rates of the arms of PTP, and how coherent their actions are."""

    tasks: tuple[str, ...] = ("replace_object",)
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 3
    """Training seeds, counted from 0."""
    episodes: int = 200
    bags: Path = Path("runs/ptp_arms/demos")
    """Folder with one folder of bags a task."""
    work: Path = Path("runs/ptp_arms")
    workers: int = 2
    """Trainings at a time, one thread each."""
    json: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One arm of one task with one training seed."""

    task: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}_{self.arm}_{self.seed}"


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench ptp_arms")
    for kind, given, valid in (("task", arguments.tasks, TASKS), ("arm", arguments.arms, ARMS)):
        for name in given:
            if name not in valid:
                raise UserError(f"unknown {kind} '{name}'; valid: {', '.join(sorted(valid))}")
    cells = [
        Cell(task, arm, seed)
        for task in arguments.tasks
        for seed in range(arguments.seeds)
        for arm in arguments.arms
    ]
    for task in arguments.tasks:
        _record(task, arguments.bags / task)
    with ThreadPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(lambda cell: _measure(cell, arguments), cells))
    figures, targets = _figures(dict(zip(cells, results, strict=True)), arguments)
    return report("ptp_arms", figures, targets, arguments.json)


def _run(*words: str) -> None:
    """A verb of ours in a process of its own, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise UserError(f"{' '.join(words[:6])} ended with {done.returncode}: {lines[-1:]}")


def _verb(*words: str) -> None:
    _run("-m", "embodied_rl.cli.main", *words)


def _record(task: str, folder: Path) -> None:
    if (folder / "episodes.json").exists():
        return
    Console().print(f"recording {DEMONSTRATIONS} episodes of {task} in {folder}")
    _verb(
        *("launch", "sim", "policy:=expert", f"task:={task}", f"episodes:={DEMONSTRATIONS}"),
        *(f"seed:={DEMONSTRATION_SEED}", "record:=true", "cameras:=none", f"out:={folder}"),
    )


def _measure(cell: Cell, arguments: Arguments) -> dict:
    """Train and evaluate one cell, unless that has been done."""
    result = arguments.work / "results" / f"{cell.name}_{arguments.episodes}.json"
    if not result.exists():
        model = arguments.work / "models" / cell.name
        if not (model / "config.yaml").exists():
            _train(cell, model, arguments)
        _run(__file__, str(model), cell.task, str(arguments.episodes), str(result))
        Console().print(f"{cell.name}: {json.loads(result.read_text())['success']:.3f}")
    return json.loads(result.read_text(encoding="utf-8"))


def _train(cell: Cell, model: Path, arguments: Arguments) -> None:
    base = yaml.safe_load((ROOT / "configs" / f"ptp_{cell.task}.yaml").read_text(encoding="utf-8"))
    base["name"] = cell.name
    base["model"] |= ARMS[cell.arm]
    config = arguments.work / "configs" / f"{cell.name}.yaml"
    with atomic_write(config) as temporary:
        temporary.write_text(yaml.safe_dump(base, sort_keys=False), encoding="utf-8")
    work = arguments.work / "training" / cell.name
    again = ["--resume"] if work.exists() else []
    _verb(
        *("train", "ptp", "--config", str(config), "--bags", str(arguments.bags / cell.task)),
        *("--out", str(model), "--work", str(work), "--seed", str(cell.seed), *again),
    )


def _evaluate(model: str, task: str, episodes: int, path: Path) -> None:
    """Success and predictability error of one checkpoint; runs in a process of its own."""
    evaluation = Evaluation(model, task, episodes, 0)
    results = evaluate_in_process(evaluation)
    found = summary(evaluation, results)
    expert = evaluate_in_process(Evaluation("expert", task, episodes, 0))
    embodiment = world_embodiment(TASKS[task]().world)
    theirs = tool_paths(embodiment, [result.commands for result in expert])
    ours = tool_paths(embodiment, [result.commands for result in results])
    low = np.min([path.min(0) for path in theirs], axis=0)
    high = np.max([path.max(0) for path in theirs], axis=0)
    found["predictability_ratio"] = prediction_error(theirs, low, high) / prediction_error(
        ours, low, high
    )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _figures(
    results: dict[Cell, dict], arguments: Arguments
) -> tuple[dict[str, float], dict[str, Target]]:
    """Pooled success with its interval, spread over seeds, and the paired gaps of the arms."""
    figures: dict[str, float] = {"episodes_a_seed": arguments.episodes, "seeds": arguments.seeds}
    targets: dict[str, Target] = {}
    for task in arguments.tasks:
        for arm in arguments.arms:
            rows = [
                found for cell, found in results.items() if (cell.task, cell.arm) == (task, arm)
            ]
            successes = sum(row["successes"] for row in rows)
            low, high = wilson_interval(successes, sum(row["episodes"] for row in rows))
            name = f"{task}.{arm}"
            figures[f"{name}.success"] = float(np.mean([row["success"] for row in rows]))
            figures[f"{name}.low"], figures[f"{name}.high"] = low, high
            figures[f"{name}.worst_seed"] = min(row["success"] for row in rows)
            ratios = [row["predictability_ratio"] for row in rows]
            figures[f"{name}.predictability_ratio"] = float(np.mean(ratios))
        if "ptp" in arguments.arms:
            targets[f"{task}.ptp.low"] = (">=", 0.80)
            for rival in set(arguments.arms) - {"ptp"}:
                gap = figures[f"{task}.ptp.success"] - figures[f"{task}.{rival}.success"]
                figures[f"{task}.ptp_minus_{rival}"] = gap
            if "short" in arguments.arms:
                targets[f"{task}.ptp_minus_short"] = (">=", 0.40)
    return figures, targets


if __name__ == "__main__":
    _evaluate(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
