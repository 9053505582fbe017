"""Success of PTP and its rivals in three memory tasks: same data, steps, episodes, training seeds.

Every arm is the same code with other values in its config, on state observations:

- ``short``: two frames of history.
- ``no_ptp``: long history, past actions in the sequence but without loss (the official rival).
- ``future_only``: long history, only present and future actions in the sequence.
- ``ptp``: long history, loss on past and future actions.
- ``ptp_n4``, ``ptp_n16``: the checkpoints of ``ptp``, each plan chosen from 4 or 16 candidates by
  how well they repeat the actions that were executed.

The scripted expert runs the same episodes for reference. The last averaged (EMA) weights are what
is evaluated; none is chosen by its success.

Everything is kept in ``--work``: ``cache/TASK`` (the bags, converted once for all arms),
``configs``, ``training``, ``models`` and ``results``, one entry a (task, arm, training seed). An
interrupted run goes on where it was, and a run that finds all results only adds them up. What was
made with another config is never mixed in: a model of other settings is refused, a result of
another checkpoint is measured again.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
import yaml
from _arm_evaluation import checkpoint_hash
from _arm_figures import ArmResults, draw, figures_of
from _plot import beside
from _report import report
from rich.console import Console

from embodied_rl.bringup.process import Child, describe_exit
from embodied_rl.cli import UsageError
from embodied_rl.core.checkpoint import CONFIG, atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section, load_yaml_mapping
from embodied_rl.policies.ptp.config import PtpConfig, read_run
from embodied_rl.policies.registry import EXPERT
from embodied_rl.sim.registry import TASKS
from embodied_rl.training.config import as_mapping, read_dataclass
from embodied_rl.training.supervised import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
TRAINED: dict[str, dict[str, object]] = {
    "short": {"history": 2},
    "no_ptp": {"supervised_past": 0},
    "future_only": {"past_tokens": False},
    "ptp": {},
}
VERIFIED = {"ptp_n4": 4, "ptp_n16": 16}  # candidates a plan
DEMONSTRATION_SEED, EVALUATION_SEED = 1000, 0
STOP_S = 60.0  # what a training gets to save its state


@dataclass(frozen=True)
class Arguments:
    """Success rates of the arms of PTP, their paired differences, and how coherent they act."""

    tasks: tuple[str, ...] = ("replace_object", "count_pushes", "return_home")
    arms: tuple[str, ...] = (*TRAINED, *VERIFIED)
    seeds: int = 3
    """Training seeds, counted from 0."""
    episodes: int = 200
    configs: Path = ROOT / "configs"
    """Folder with ptp_TASK.yaml: what all arms have in common."""
    bags: Path = Path("runs/ptp_arms/demos")
    """Folder with one folder of bags a task; a missing one is recorded through the ROS graph."""
    demonstrations: int = 250
    """Bags of a task."""
    work: Path = Path("runs/ptp_arms")
    workers: int = 2
    """Trainings or evaluations at a time, one thread each."""
    as_is: bool = False
    """Make nothing: report what an unfinished run has measured, every arm with the training seeds
    it has."""
    json: Path | None = None
    """Write the figures to this file, and the picture beside it."""


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
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl bench ptp_arms", description=Arguments.__doc__
    )
    _check(arguments)
    grid = Grid(arguments, Console())
    if not arguments.as_is:
        grid.run()
    results = grid.results()
    if arguments.json is not None:
        draw(results, beside(arguments.json))
    figures, targets = figures_of(results)
    return report("ptp_arms", figures, targets, arguments.json)


def _check(arguments: Arguments) -> None:
    for kind, given, valid in (
        ("task", arguments.tasks, TASKS),
        ("arm", arguments.arms, {**TRAINED, **VERIFIED}),
    ):
        for name in given:
            if name not in valid:
                raise UsageError(f"unknown {kind} '{name}'; valid: {', '.join(sorted(valid))}")
    least = {"seeds": 1, "episodes": 2, "demonstrations": 1, "workers": 1}
    for key, bound in least.items():
        if getattr(arguments, key) < bound:
            raise UsageError(f"--{key}: expected at least {bound}, saw {getattr(arguments, key)}")


class Grid:
    """All checkpoints and evaluations of a run, those that are there and those still to make."""

    def __init__(self, arguments: Arguments, console: Console) -> None:
        self.arguments, self.console = arguments, console
        self.stop = threading.Event()
        # A verified arm needs the checkpoints of `ptp`, whether or not that arm is shown itself.
        needed = {"ptp" if arm in VERIFIED else arm for arm in arguments.arms}
        self.trained = [
            Cell(task, arm, seed)
            for task in arguments.tasks
            for seed in range(arguments.seeds)
            for arm in TRAINED
            if arm in needed
        ]

    def run(self) -> None:
        """Makes what is missing; raises what the first failure raised, the rest being stopped."""
        missing = [cell for cell in self.trained if not self._is_trained(cell)]
        for task in dict.fromkeys(cell.task for cell in missing):
            self._prepare(task)
        self._all(self._measure_expert, self.arguments.tasks)
        self._all(self._measure, self.trained)

    def results(self) -> list[ArmResults]:
        """The results of every arm that has some, task by task, the expert first.

        Raises:
            UserError: there is none at all.
        """
        found = []
        for task in self.arguments.tasks:
            arms = [a for a in (*TRAINED, *VERIFIED) if a in self.arguments.arms]
            files = {EXPERT: [self._expert(task)] if self._expert(task).exists() else []}
            files |= {arm: self._measured(task, arm) for arm in arms}
            found += [
                ArmResults(task, arm, [self._read(path) for path in paths])
                for arm, paths in files.items()
                if paths
            ]
        if not found:
            raise UserError(f"{self.arguments.work / 'results'}: no result of these tasks and arms")
        return found

    def _measured(self, task: str, arm: str) -> list[Path]:
        """Results of an arm by training seed, up to the first that is missing."""
        paths = []
        for seed in range(self.arguments.seeds):
            path = self._result(Cell(task, arm, seed))
            model = self._model(Cell(task, "ptp" if arm in VERIFIED else arm, seed))
            if not (path.exists() and self._is_of(path, model)):
                break
            paths.append(path)
        return paths

    def _all(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Does all work, some at a time; Ctrl-C or a failure stops what runs and drops the rest."""
        with ThreadPoolExecutor(self.arguments.workers) as pool:
            try:
                for future in as_completed([pool.submit(work, item) for item in items]):
                    future.result()
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _expert(self, task: str) -> Path:
        return self.arguments.work / "results" / f"{task}_{EXPERT}_{self.arguments.episodes}.json"

    def _result(self, cell: Cell) -> Path:
        return self.arguments.work / "results" / f"{cell.name}_{self.arguments.episodes}.json"

    def _model(self, cell: Cell) -> Path:
        return self.arguments.work / "models" / cell.name

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        return json.loads(path.read_text(encoding="utf-8"))

    def _is_trained(self, cell: Cell) -> bool:
        """Whether the cell's checkpoint is there; one of other settings is refused."""
        path = self._model(cell) / CONFIG
        if not path.exists():
            return False
        _check_settings(path, self._config(cell), cell.seed)
        return True

    def _config(self, cell: Cell) -> dict[str, Any]:
        data = load_yaml_mapping(self.arguments.configs / f"ptp_{cell.task}.yaml")
        return {**data, "name": cell.name, "model": {**data["model"], **TRAINED[cell.arm]}}

    def _prepare(self, task: str) -> None:
        """The demonstrations of a task as one dataset cache that all its trainings read."""
        bags, wanted = self.arguments.bags / task, self.arguments.demonstrations
        listed = bags / "episodes.json"
        if not listed.exists():
            self.console.print(f"recording {wanted} episodes of {task} in {bags}")
            self._verb(
                *("launch", "sim", "policy:=expert", f"task:={task}", f"episodes:={wanted}"),
                *(f"seed:={DEMONSTRATION_SEED}", "record:=true", "cameras:=none", f"out:={bags}"),
            )
        seen = len(json.loads(listed.read_text(encoding="utf-8")))
        if seen != wanted:
            raise UserError(
                f"{listed}: expected {wanted} episodes, saw {seen}; delete the folder to record "
                "them again, or name their number with --demonstrations"
            )
        streams = read_run(self.arguments.configs / f"ptp_{task}.yaml").model.streams
        self.console.print(f"converting the bags of {task}, once for all arms")
        self._verb(
            *("bags", "convert", str(bags), "--out", str(self._cache(task))),
            *("--workers", str(self.arguments.workers), "--streams", *streams),
        )

    def _cache(self, task: str) -> Path:
        return self.arguments.work / "cache" / task

    def _measure_expert(self, task: str) -> None:
        if not self._expert(task).exists():
            self._evaluate(EXPERT, task, self._expert(task))

    def _measure(self, cell: Cell) -> None:
        """Trains a checkpoint unless it is there, and runs the evaluations it lacks."""
        model = self._model(cell)
        if not self._is_trained(cell):
            self._train(cell, model)
        for arm, samples in {cell.arm: None, **(VERIFIED if cell.arm == "ptp" else {})}.items():
            result = self._result(Cell(cell.task, arm, cell.seed))
            if arm in self.arguments.arms and not self._is_of(result, model):
                options = [] if samples is None else ["--samples", str(samples)]
                expert = ["--expert", str(self._expert(cell.task))]
                self._evaluate(str(model), cell.task, result, *expert, *options)

    def _is_of(self, result: Path, model: Path) -> bool:
        """Whether a result is there and was measured with this very checkpoint."""
        if not result.exists():
            return False
        expected, seen = checkpoint_hash(model), self._read(result).get("checkpoint")
        if expected != seen:
            self.console.print(f"{result.name}: of checkpoint {seen}, not of {expected}: not used")
        return expected == seen

    def _train(self, cell: Cell, model: Path) -> None:
        config = self.arguments.work / "configs" / f"{cell.name}.yaml"
        with atomic_write(config) as temporary:
            temporary.write_text(yaml.safe_dump(self._config(cell), sort_keys=False), "utf-8")
        work = self.arguments.work / "training" / cell.name
        again = ["--resume"] if work.exists() else []
        began = time.monotonic()
        self._verb(
            *("train", "ptp", "--config", str(config), "--bags", str(self._cache(cell.task))),
            *("--out", str(model), "--work", str(work), "--seed", str(cell.seed), *again),
        )
        self.console.print(f"{cell.name}: trained in {time.monotonic() - began:.0f} s")

    def _evaluate(self, model: str, task: str, out: Path, *options: str) -> None:
        self._python(
            *(str(ROOT / "benchmarks" / "_arm_evaluation.py"), "--model", model, "--task", task),
            *("--episodes", str(self.arguments.episodes), "--seed", str(EVALUATION_SEED)),
            *("--out", str(out), *options),
        )
        self.console.print(f"{out.stem}: success {self._read(out)['success']:.3f}")

    def _verb(self, *words: str) -> None:
        self._python("-m", "embodied_rl.cli.main", *words)

    def _python(self, *words: str) -> None:
        """A program of this source tree in a process of its own, on one thread.

        It has its own session: Ctrl-C reaches us alone, and we ask it to save and end.

        Raises:
            UserError: it failed, or was stopped.
        """
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(paths),
        }
        child = Child(words[-1], [sys.executable, *words], environment, piped=True)
        output: list[str] = []

        def pump(wait_s: float) -> None:
            time.sleep(wait_s)
            output.extend(child.lines())

        try:
            while child.exit_code is None and not self.stop.is_set():
                pump(0.1)
        finally:
            if child.exit_code is None:
                child.stop(STOP_S, 10.0, pump)
        pump(0.0)
        if child.exit_code or self.stop.is_set():
            last = next((line for line in reversed(output) if line.strip()), "no output")
            raise UserError(
                f"{' '.join(words[:4])} ended with {describe_exit(child.exit_code or 0)}: {last}"
            )


def _check_settings(path: Path, config: Mapping[str, Any], seed: int) -> None:
    """Refuses a checkpoint of other settings than those of `config`, trained with `seed`."""
    saved = load_yaml_mapping(path)
    given = {"model": config["model"], "training": {**config["training"], "seed": seed}}
    for part, kind in (("model", PtpConfig), ("training", TrainSettings)):
        # Through the dataclass: what a file leaves out has its default.
        expected, seen = (
            as_mapping(read_dataclass(kind, Section(str(path), part, data.get(part))))
            for data in (given, saved)
        )
        for key in (key for key in expected if expected[key] != seen[key]):
            raise UserError(
                f"{path}: {part}.{key}: expected {expected[key]}, saw {seen[key]}; it was trained "
                "with another config: name another --work, or delete the model to train it again"
            )
