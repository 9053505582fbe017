"""Success of TGPO and its rivals on the stored tasks of a robot: robustness of the formula > 0.

The unit of budget is the transition. TGPO trains one policy for all tasks of the robot with the
budget B of its config; a learning rival (f_mdp, tau_mdp, rnn) trains one policy for each of the n
tasks with B / n, and a network of the same width and first noise; a planning rival (cem, grad) may
call the model B / n times for every single start, which is far more in all. All meet the same
starts; planners only the first of them.

TGPO's own arms: ``tgpo`` (critic-guided training and test), ``uniform`` (no chain in training),
``random`` (the model of ``tgpo``, times drawn at random at test), ``given_up`` (missed subgoals get
no new time). What was trained or measured before is not done again: see ``--work``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from _report import Target, report
from _tgpo_learners import run_learner, train_learner
from _tgpo_planners import plan
from _tgpo_rivals import (
    LEARNING,
    PLANNING,
    BaselineRun,
    read_baseline,
)
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import episode_seed
from embodied_rl.policies.tgpo.config import TgpoRun, read_run
from embodied_rl.policies.tgpo.evaluation import evaluate
from embodied_rl.policies.tgpo.runtime import RunSettings, load_tgpo
from embodied_rl.policies.tgpo.train import train_tgpo
from embodied_rl.sim.stl_tasks.task import MULTI_LAYER, TWO_LAYER, StlTask, load_task
from embodied_rl.training.statistics import wilson_interval

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
OWN = ("tgpo", "uniform", "random", "given_up")
METHODS = (*OWN, *LEARNING, *PLANNING)
LEAST = {"linear": 0.80, "unicycle": 0.65, "quadrotor": 0.50, "arm": 0.60}
PER_TASK = "tasks"


@dataclass(frozen=True)
class Arguments:
    """Success rates with Wilson 95 % intervals, by class of formula."""

    robots: tuple[str, ...] = tuple(LEAST)
    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    """Training seeds, 0 and up."""
    episodes: int = 256
    """Starts of a task, the same for all methods."""
    planner_episodes: int = 16
    """Starts for cem and grad, which plan each one anew."""
    work: Path = Path("runs/tgpo_success")
    """Trained models and measured cells."""
    stored: bool = False
    """Measure nothing: show what the work folder has of these settings."""
    json: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One method with one training seed; its result is successes and starts of every task."""

    run: TgpoRun
    method: str
    seed: int
    arguments: Arguments

    @property
    def robot(self) -> str:
        return self.run.model.dynamics

    @property
    def tasks(self) -> list[StlTask]:
        return [load_task(name) for name in self.run.training.tasks]

    @property
    def share(self) -> int:
        """Transitions for one task."""
        return self.run.training.transitions // len(self.run.training.tasks)

    @property
    def rival(self) -> BaselineRun:
        """The method's config; width and first noise of its network are those of TGPO's."""
        rival = read_baseline(CONFIGS / f"tgpo_rival_{self.method}.yaml")
        own = self.run.model
        learner = replace(rival.learner, width=own.width, log_std=own.log_std)
        return replace(rival, learner=learner)

    def file(self) -> Path:
        """Named after everything that the result depends on but the code."""
        a = self.arguments
        if self.method in OWN:
            settings = [repr(self.run), self.seed, a.episodes]
        else:
            settings = [self.run.training.tasks, self.share, self.seed, a.episodes]
            settings += [repr(self.rival)]
            settings += [a.planner_episodes] if self.method in PLANNING else []
        tag = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:10]
        return a.work / self.robot / f"{self.method}_{self.seed}_{tag}.json"

    def result(self) -> dict[str, Any]:
        """The stored result, or the one of measuring now."""
        path = self.file()
        if not path.exists():
            found = self._own() if self.method in OWN else self._rival()
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps({PER_TASK: found}, indent=1), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))[PER_TASK]

    def _own(self) -> dict[str, list[int]]:
        guided = 0.0 if self.method == "uniform" else self.run.allocation.guided
        run = replace(
            self.run,
            training=replace(self.run.training, seed=self.seed),
            allocation=replace(self.run.allocation, guided=guided),
        )
        tag = hashlib.sha256(repr(run).encode()).hexdigest()[:10]
        folder = self.arguments.work / self.robot / f"model_{tag}"
        if not folder.exists():
            train_tgpo(run, out=folder, work=folder.with_name(f"state_{tag}"), resume=True)
        settings = {"random": RunSettings(candidates=1), "given_up": RunSettings(replan=False)}
        results = evaluate(
            load_tgpo(folder),
            self.tasks,
            self.arguments.episodes,
            self.seed,
            settings.get(self.method, RunSettings()),
        )
        return {r.task.name: [r.successes, self.arguments.episodes] for r in results}

    def _rival(self) -> dict[str, list[int]]:
        rival, found = self.rival, {}
        for number, task in enumerate(self.tasks):
            starts = torch.Generator().manual_seed(episode_seed(self.seed, 2 * number))
            state = task.start(self.arguments.episodes, starts)
            if self.method in LEARNING:
                model = train_learner(task, rival, self.share, self.seed)
                robustness = run_learner(task, rival, model, state)
            else:
                generator = torch.Generator().manual_seed(episode_seed(self.seed, 2 * number + 1))
                few = state[: self.arguments.planner_episodes]
                robustness = plan(task, rival, few, self.share, generator)
            found[task.name] = [int((robustness > 0).sum()), len(robustness)]
        return found


def rates(tasks: Sequence[StlTask], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Success with its interval over all seeds and tasks, by class of formula, and by seed."""
    found: dict[str, Any] = {"seeds": len(cells)}
    for layers in ("all", TWO_LAYER, MULTI_LAYER):
        rows = [c[t.name] for c in cells for t in tasks if layers in ("all", t.layers)]
        successes, starts = (sum(row[i] for row in rows) for i in (0, 1))
        low, high = wilson_interval(successes, starts)
        found[layers] = {"success": successes / starts, "low": low, "high": high}
    found["by_seed"] = [
        sum(hits for hits, _ in cell.values()) / sum(starts for _, starts in cell.values())
        for cell in cells
    ]
    return {**found, "cells": list(cells)}


def measured(arguments: Arguments, robot: str) -> dict[str, dict[str, Any]]:
    """The rates of every method; with ``stored`` of those alone that were measured before."""
    run, found = read_run(CONFIGS / f"tgpo_{robot}.yaml"), {}
    with Progress(transient=True) as progress:
        bar = progress.add_task("", total=len(arguments.methods) * arguments.seeds)
        for method in arguments.methods:
            cells = [Cell(run, method, seed, arguments) for seed in range(arguments.seeds)]
            if arguments.stored:
                cells = [cell for cell in cells if cell.file().exists()]
            results = []
            for cell in cells:
                progress.update(bar, description=f"{robot}, {method}, seed {cell.seed}")
                results.append(cell.result())
                progress.advance(bar)
            if results:
                found[method] = rates([load_task(name) for name in run.training.tasks], results)
    return found


def figures_of(robot: str, found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Success, and TGPO's lead over what it is compared with."""
    figures = {f"{robot}.{method}": rates["all"]["success"] for method, rates in found.items()}
    if "tgpo" not in found:
        return figures
    own = figures[f"{robot}.tgpo"]
    rivals = [figures[f"{robot}.{method}"] for method in (*LEARNING, *PLANNING) if method in found]
    if rivals:
        figures[f"{robot}.over_best_rival"] = own - max(rivals)
    for method in ("uniform", "random"):
        if method in found:  # over the training seeds that both have
            pairs = list(zip(found["tgpo"]["by_seed"], found[method]["by_seed"]))
            figures[f"{robot}.over_{method}"] = sum(a - b for a, b in pairs) / len(pairs)
    if "f_mdp" in found:
        nested = [found[method][MULTI_LAYER]["success"] for method in ("tgpo", "f_mdp")]
        figures[f"{robot}.multi_layer_over_f_mdp"] = nested[0] - nested[1]
    return figures


def table(found: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """One row an arm."""
    shown = Table(title="robustness of the formula above 0, Wilson 95 %", title_justify="left")
    for column in ("robot", "method", "success", "two layers", "nested", "by training seed"):
        shown.add_column(column)
    for robot, methods in found.items():
        for method, rates in methods.items():
            low, high = (rates["all"][end] for end in ("low", "high"))
            cells = [f"{rates['all']['success']:.3f} [{low:.3f}, {high:.3f}]"]
            cells += [f"{rates[layers]['success']:.3f}" for layers in (TWO_LAYER, MULTI_LAYER)]
            seeds = " ".join(f"{value:.3f}" for value in rates["by_seed"])
            shown.add_row(robot, method, *cells, seeds)
        shown.add_section()
    return shown


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench tgpo_success")
    unknown = sorted({*arguments.methods} - {*METHODS} | {*arguments.robots} - {*LEAST})
    if unknown:
        raise UserError(
            f"bench tgpo_success: expected robots {sorted(LEAST)} and methods {list(METHODS)}, "
            f"saw {unknown}"
        )
    torch.set_num_threads(1)
    found = {robot: measured(arguments, robot) for robot in arguments.robots}
    found = {robot: methods for robot, methods in found.items() if methods}
    if not found:
        raise UserError(f"{arguments.work}: expected measured cells of these settings, saw none")
    figures: dict[str, float] = {}
    for robot, methods in found.items():
        figures |= figures_of(robot, methods)
    bounds = {f"{robot}.tgpo": least for robot, least in LEAST.items()}
    bounds |= {"unicycle.over_best_rival": 0.0, "linear.multi_layer_over_f_mdp": 0.15}
    targets: dict[str, Target] = {k: (">=", v) for k, v in bounds.items() if k in figures}
    Console().print(table(found))
    return report("tgpo_success", figures, targets, arguments.json, found)
