"""Success of TGPO and its rivals on the stored tasks of a robot: robustness of the formula > 0.

The unit of budget is the transition. TGPO trains one policy for all tasks of the robot with the
budget B of its config; a learning rival (f_mdp, tau_mdp, rnn) trains one policy for each of the n
tasks with B / n; a planning rival (cem, grad) may call the model B / n times for every single
start, which is far more in all. Networks have the same width. All meet the same starts; planners
only the first of them.

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
from rich.progress import Progress

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import episode_seed
from embodied_rl.policies.tgpo.baselines.config import LEARNING, PLANNING, read_baseline
from embodied_rl.policies.tgpo.baselines.learners import run_learner, train_learner
from embodied_rl.policies.tgpo.baselines.planners import plan
from embodied_rl.policies.tgpo.config import TgpoRun, read_run
from embodied_rl.policies.tgpo.evaluation import evaluate
from embodied_rl.policies.tgpo.runtime import RunSettings, load_tgpo
from embodied_rl.policies.tgpo.train import train_tgpo
from embodied_rl.sim.stl_tasks.task import MULTI_LAYER, TWO_LAYER, StlTask, load_task
from embodied_rl.training.statistics import wilson_interval

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
OWN = ("tgpo", "uniform", "random", "given_up")
METHODS = (*OWN, *LEARNING, *PLANNING)
LEAST = {"linear": 0.80, "unicycle": 0.65, "quadrotor": 0.50}
PER_TASK = "tasks"


@dataclass(frozen=True)
class Arguments:
    """Success rates with Wilson 95 % intervals, by class of formula."""

    robot: str = "linear"
    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    """Training seeds, 0 and up."""
    episodes: int = 256
    """Starts of a task, the same for all methods."""
    planner_episodes: int = 16
    """Starts for cem and grad, which plan each one anew."""
    work: Path = Path("runs/tgpo_success")
    """Trained models and measured cells."""
    json: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One method with one training seed; its result is successes and starts of every task."""

    run: TgpoRun
    method: str
    seed: int
    arguments: Arguments

    @property
    def tasks(self) -> list[StlTask]:
        return [load_task(name) for name in self.run.training.tasks]

    @property
    def share(self) -> int:
        """Transitions for one task."""
        return self.run.training.transitions // len(self.run.training.tasks)

    def file(self) -> Path:
        """Named after everything that the result depends on but the code."""
        a = self.arguments
        if self.method in OWN:
            settings = [repr(self.run), self.seed, a.episodes]
        else:
            rival = read_baseline(CONFIGS / f"tgpo_rival_{self.method}.yaml")
            settings = [self.run.training.tasks, self.share, self.seed, a.episodes, repr(rival)]
            settings += [a.planner_episodes] if self.method in PLANNING else []
        tag = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:10]
        return a.work / a.robot / f"{self.method}_{self.seed}_{tag}.json"

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
        folder = self.arguments.work / self.arguments.robot / f"model_{tag}"
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
        rival = read_baseline(CONFIGS / f"tgpo_rival_{self.method}.yaml")
        found = {}
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


def rates(name: str, tasks: Sequence[StlTask], cells: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Success over all seeds and tasks, and by class of formula."""
    found: dict[str, float] = {}
    for layers in ("", TWO_LAYER, MULTI_LAYER):
        rows = [c[t.name] for c in cells for t in tasks if layers in ("", t.layers)]
        successes, starts = (sum(row[i] for row in rows) for i in (0, 1))
        key = f"{name}.{layers}" if layers else name
        low, high = wilson_interval(successes, starts)
        found |= {f"{key}.success": successes / starts, f"{key}.low": low, f"{key}.high": high}
    return found


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench tgpo_success")
    unknown = sorted(set(arguments.methods) - set(METHODS))
    if unknown or arguments.robot not in LEAST:
        seen = unknown or arguments.robot
        raise UserError(
            f"bench tgpo_success: expected robots {sorted(LEAST)} and methods {list(METHODS)}, "
            f"saw {seen}"
        )
    torch.set_num_threads(1)
    run = read_run(CONFIGS / f"tgpo_{arguments.robot}.yaml")
    figures: dict[str, float] = {"seeds": arguments.seeds, "transitions": run.training.transitions}
    series: dict[str, Any] = {}
    with Progress(transient=True) as progress:
        bar = progress.add_task("", total=len(arguments.methods) * arguments.seeds)
        for method in arguments.methods:
            cells = []
            for seed in range(arguments.seeds):
                progress.update(bar, description=f"{method}, seed {seed}")
                cells.append(Cell(run, method, seed, arguments).result())
                progress.advance(bar)
            tasks = [load_task(name) for name in run.training.tasks]
            figures |= rates(method, tasks, cells)
            series[method] = cells
    targets: dict[str, Target] = {}
    if "tgpo" in arguments.methods:
        targets["tgpo.success"] = (">=", LEAST[arguments.robot])
    if {"tgpo", "f_mdp"} <= set(arguments.methods):
        key = f"{MULTI_LAYER}.success"
        figures["tgpo_over_f_mdp"] = figures[f"tgpo.{key}"] - figures[f"f_mdp.{key}"]
        targets["tgpo_over_f_mdp"] = (">=", 0.15)
    name = f"tgpo_success_{arguments.robot}"
    return report(name, figures, targets, arguments.json, series)
