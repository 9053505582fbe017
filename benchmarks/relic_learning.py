"""Learning in context: what ReLIC's parts bring, by episodes of trials in worlds never trained in.

Arms differ from the config in one thing each and have the same number of steps: ``relic`` (the
config), ``no_iea`` (no attention over episodes), ``one_update`` (no partial updates), ``no_sink``,
``k0v0`` and ``token`` (other sinks), ``ordered`` (no shuffling of episodes; the Darkroom config has
none), and of the homes ``no_imitation`` and ``no_recall`` (without the start by imitation, without
the second task) and ``relative_pose`` (poses and objects in the frame of each episode's start; no
recall, which needs the map's). Every arm is trained with several seeds and meets the same trials.
Of the egocentric task there are two scripted bounds beside them: a searcher that keeps its map over
the episodes of a trial (``map``) and one that clears it (``search``). Of the arm ``relic`` the
episode after 1, 2 and 4 demonstrations by an expert stands beside the one after as many of its own.

With several ``--transitions`` the arms ``--followed`` are trained so long and so long: a part that
only makes learning faster shows there, and not at the end. What was trained or measured before is
not done again: see ``--work``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _paired import two_level_interval
from _plot import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    beside,
    picture,
)
from _report import Target, report
from matplotlib.axes import Axes
from rich.progress import Progress

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.policies.relic.episodes import Episodes, EpisodeTable
from embodied_rl.policies.relic.evaluation import EPISODES, LATE, Loaded, evaluate, load_relic_model
from embodied_rl.policies.relic.rollout import Played, Trials
from embodied_rl.policies.relic.run import RelicRun, read_run
from embodied_rl.policies.relic.train import train_relic
from embodied_rl.sim.navigation.base import HELD_OUT
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.sim.navigation.scripted import MapSearcher
from embodied_rl.training.iterations import read_log

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# arm -> part of the run -> its keys that differ
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "relic": {},
    "no_iea": {"model": {"inter_episode": False}},
    "one_update": {"training": {"updates": 1}},
    "no_sink": {"model": {"sink_mode": "none"}},
    "k0v0": {"model": {"sink_mode": "k0v0"}},
    "token": {"model": {"sink_mode": "token"}},
    "ordered": {"training": {"shuffle": False}},
    "no_imitation": {"imitation": {"transitions": 0}},
    "no_recall": {"ppo": {"auxiliary_coefficient": 0.0}},
    "relative_pose": {
        "model": {"feature_count": 360, "object_types": 0, "map_width": 0, "map_height": 0},
        "training": {"world": "egocentric_relative"},
        "ppo": {"auxiliary_coefficient": 0.0},
    },
}
COLOURS = dict(zip(CHANGES, (BLUE, RED, ORANGE, GREEN, PURPLE, SKY, GREY, BLACK, YELLOW, BROWN)))
SCRIPTED = {"map": True, "search": False}
MEASURES = ("returned", "success", "efficiency")
# the measure that a task is judged by, and what it must reach while it is learned
EGOCENTRIC = "egocentric"
JUDGED = {"darkroom": ("returned", 12.0), EGOCENTRIC: ("success", 0.6)}
RIVALS = ("one_update", "no_sink")
SHOWN = (1, 2, 4)
SMOOTHED = 10  # iterations of the training's log


# transitions of training -> arm -> its cells, one a seed
Passed = dict[int, dict[str, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Arguments:
    """Return, success and SPL of the first and the last episodes, with 95 % intervals."""

    task: str = "darkroom"
    arms: tuple[str, ...] = ("relic", "no_iea", "one_update", "no_sink")
    seeds: int = 3
    """Training seeds, 0 and up."""
    trials: int = 400
    transitions: tuple[int, ...] = ()
    """Amounts of training, in steps, each a training of its own, for the learning rate falls; the
    gates are for the largest. Default: the config's."""
    followed: tuple[str, ...] = ("relic", "one_update")
    """Arms that are trained with the smaller amounts too."""
    work: Path = Path("runs/relic_learning")
    """Trained models and measured cells."""
    json: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One arm with one training seed."""

    run: RelicRun
    trials: int
    work: Path

    def _named(self, *settings: object) -> str:
        """After everything that the result depends on but the code."""
        text = json.dumps([repr(self.run), *settings])
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def result(self) -> dict[str, Any]:
        """The stored result, or the one of training and measuring now."""
        path = self.work / f"{self.run.name}_{self._named(self.trials)}.json"
        if not path.exists():
            found = self._measure()
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(found), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    def _measure(self) -> dict[str, Any]:
        tag = self._named()
        folder, state = self.work / f"model_{tag}", self.work / f"state_{tag}"
        if not folder.exists():
            trained = train_relic(self.run, out=folder, work=state, resume=True)
            if not trained.finished:
                raise UserError(
                    f"bench relic_learning: {self.run.name} was interrupted at {trained.step} of "
                    f"{trained.steps} iterations; the same command goes on"
                )
        loaded, masses = load_relic_model(folder), []

        def watch(trials: Trials, _: Played) -> None:
            """Share of attention on the sinks, at the end of the trials."""
            if trials.table.complete:
                masses.append(loaded.model.transformer.sink_mass(trials.cache).mean(dim=1))

        episodes = evaluate(loaded.model, loaded.world, self.trials, 0, watch=watch)
        by_iteration = {record["iteration"]: record for record in read_log(state)}
        records = [by_iteration[key] for key in sorted(by_iteration)]
        mass = torch.stack(masses).mean(dim=0) if self.run.model.sink_mode != "none" else None
        return {
            "tables": tables(episodes),
            "shown": {str(n): self._after_demonstrations(loaded, n) for n in SHOWN},
            "sink_mass": None if mass is None else float(mass.max()),
            "log": [[r["transitions"], *(r[k][-1] for k in LOGGED.values())] for r in records],
        }

    def _after_demonstrations(self, loaded: Loaded, count: int) -> dict[str, list[float]]:
        """Each measure of the first episode after them, ``(trials,)``."""
        found = evaluate(
            loaded.model, loaded.world, self.trials, 0, episodes=count + 1, shown=count
        )
        return {key: getattr(found, key)[:, -1].double().tolist() for key in MEASURES}


LOGGED = {"returned": "return", "success": "success", "efficiency": "efficiency"}


def tables(episodes: Episodes) -> dict[str, list[list[float]]]:
    """``(trials, episodes)`` of each measure as JSON data."""
    return {key: getattr(episodes, key).double().numpy().tolist() for key in MEASURES}


def changed(run: RelicRun, arm: str, seed: int, transitions: int) -> RelicRun:
    """The run of an arm."""
    changes = {part: dict(values) for part, values in CHANGES[arm].items()}
    training = changes.setdefault("training", {})
    training |= {"seed": seed, "transitions": transitions}
    parts = {part: replace(getattr(run, part), **values) for part, values in changes.items()}
    return replace(run, name=f"{run.name}_{arm}_{seed}", **parts)


def scripted(keep: bool, trials: int) -> dict[str, list[list[float]]]:
    """The searcher in the trials that the arms meet."""
    world = EgocentricNavigation()
    worlds, table = world.worlds(HELD_OUT), EpisodeTable(trials, EPISODES)
    generator = torch.Generator().manual_seed(0)
    chosen = worlds[torch.arange(trials) % len(worlds)]
    view = world.reset(chosen, EPISODES * world.horizon, generator)
    searcher, first = MapSearcher(world, trials, keep=keep), torch.ones(trials, dtype=torch.bool)
    while not table.complete:
        found = world.step(searcher.act(view, first))
        table.add(found)
        view, first = found.view, found.ended
    return tables(table.episodes())


def figures_of(arm: str, found: Sequence[dict[str, list[list[float]]]]) -> dict[str, float]:
    """First and late episodes and their difference, over seeds and trials."""
    figures = {}
    for measure in MEASURES:
        table = np.array([cell[measure] for cell in found])  # (seeds, trials, episodes)
        last = late(table, measure)
        parts = {"first": table[..., 0], "late": last, "gain": last - table[..., 0]}
        for key, values in parts.items():
            figures |= interval(f"{arm}.{measure}.{key}", values)
    return figures


def late(table: np.ndarray, measure: str) -> np.ndarray:
    """``(..., trials)`` of ``(..., trials, episodes)``: the last return, or the mean from the sixth
    episode on."""
    return table[..., -1] if measure == "returned" else table[..., LATE:].mean(axis=-1)


def interval(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean of ``(seeds, trials)`` and its interval."""
    low, high = two_level_interval(values)
    return {name: float(values.mean()), f"{name}.low": low, f"{name}.high": high}


def curve(passed: Passed, measure: str) -> dict[str, float]:
    """The late episodes of each arm, and what the config has over the arms that it is held
    against, after each amount of training."""
    figures = {}
    for transitions, cells in passed.items():
        values = {
            arm: late(np.array([cell["tables"][measure] for cell in found]), measure)
            for arm, found in cells.items()
        }
        for arm, found in values.items():
            figures |= interval(f"at_{transitions}.{arm}", found)
        for arm in RIVALS:
            if {"relic", arm} <= set(values):
                name = f"at_{transitions}.relic_over_{arm}"
                figures |= interval(name, values["relic"] - values[arm])
    return figures


def demonstrated(cells: Sequence[dict[str, Any]], measure: str) -> dict[str, float]:
    """The episode after n demonstrations, and after n of its own."""
    figures = {}
    for count in SHOWN:
        shown = np.array([cell["shown"][str(count)][measure] for cell in cells])
        own = np.array([cell["tables"][measure] for cell in cells])[..., count]
        figures |= {f"after_{count}_shown": shown.mean(), f"after_{count}_own": own.mean()}
    return {key: float(value) for key, value in figures.items()}


def smoothed(log: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Transitions and the running mean of a column of ``(transitions, *MEASURES)``."""
    width = min(SMOOTHED, len(log))
    return log[width - 1 :, 0], np.convolve(log[:, column], np.ones(width) / width, mode="valid")


def speed(logs: Sequence[np.ndarray], column: int, threshold: float) -> dict[str, float]:
    """Of learning: the mean of a training's last episodes over all of the training, and the steps
    after which a running mean is above ``threshold``, if it is in every training."""
    figures = {"area": float(np.mean([log[:, column].mean() for log in logs]))}
    steps: list[float] = []
    for log in logs:
        transitions, mean = smoothed(log, column)
        steps.extend(transitions[mean >= threshold][:1])
    if len(steps) == len(logs):
        figures["steps_to_threshold"] = float(np.mean(steps))
    return figures


def targets_of(task: str, figures: dict[str, float], arms: Sequence[str]) -> dict[str, Target]:
    """The gates of the task, for the arms that were run; adds the figures that they need."""
    targets: dict[str, Target] = {}
    measure = JUDGED[task][0]
    if task == "darkroom":
        if "relic" in arms:
            targets["relic.returned.gain"] = (">=", 6.0)
        if "no_iea" in arms:
            figures["no_iea.returned.abs_gain"] = abs(figures["no_iea.returned.gain"])
            targets["no_iea.returned.abs_gain"] = ("<=", 1.5)
        if {"relic", "one_update"} <= set(arms):
            key = "relic_over_one_update"
            figures[key] = figures["relic.returned.late"] - figures["one_update.returned.late"]
            targets[key] = (">=", 2.0)
        if {"relic", "no_sink"} <= set(arms):
            key = "relic_and_no_sink_apart"
            figures[key] = abs(figures["relic.returned.late"] - figures["no_sink.returned.late"])
            targets[key] = ("<=", 1.5)
        return targets
    if "relic" in arms:
        targets |= {"relic.success.gain": (">=", 0.10), "relic.efficiency.gain": (">=", 0.12)}
        gap = figures[f"map.{measure}.late"] - figures[f"search.{measure}.late"]
        figures["share_of_scripted_gain"] = figures[f"relic.{measure}.gain"] / gap
    if "no_iea" in arms:
        for part in ("success", "efficiency"):
            figures[f"no_iea.{part}.abs_gain"] = abs(figures[f"no_iea.{part}.gain"])
            targets[f"no_iea.{part}.abs_gain"] = ("<=", 0.04)
    return targets


def draw(path: Path, task: str, passed: Passed, bounds: dict[str, Any]) -> None:
    """Held-out worlds by episode and, if there is more than one amount of training, by that; and
    the last episodes while training."""
    measure, _ = JUDGED[task]
    cells, columns = passed[max(passed)], 2 + (len(passed) > 1)
    with picture(path, columns=columns, size=(4.5 * columns, 3.4), title=f"ReLIC: {task}") as axes:
        by_episode(axes[0, 0], measure, cells, bounds)
        if len(passed) > 1:
            by_training(axes[0, 1], measure, passed)
        for arm, found in cells.items():
            for cell in found:
                line = smoothed(np.array(cell["log"]), 1 + MEASURES.index(measure))
                axes[0, -1].plot(*line, color=COLOURS[arm], lw=1, alpha=0.8)
        axes[0, -1].set(
            xlabel="training steps", ylabel=measure, title="training worlds, last episodes"
        )


def by_episode(
    axis: Axes, measure: str, cells: dict[str, list[dict[str, Any]]], bounds: dict[str, Any]
) -> None:
    """Of the trials: the mean over seeds thick, each seed thin."""
    episodes = range(1, EPISODES + 1)
    for arm, found in cells.items():
        rows = np.array([cell["tables"][measure] for cell in found]).mean(axis=1)
        axis.plot(episodes, rows.mean(axis=0), "o-", color=COLOURS[arm], ms=4, label=arm)
        for row in rows:
            axis.plot(episodes, row, color=COLOURS[arm], lw=0.6, alpha=0.5)
    for name, table in bounds.items():
        axis.plot(episodes, np.mean(table[measure], axis=0), "--", color=GREY, lw=1)
        axis.annotate(name, (EPISODES, np.mean(table[measure], axis=0)[-1]), fontsize=8)
    axis.set(xlabel="episode of the trial", ylabel=measure, title="held-out worlds")
    axis.legend()


def by_training(axis: Axes, measure: str, passed: Passed) -> None:
    """The late episodes after each amount of training: mean and interval, each seed thin."""
    for arm in passed[max(passed)]:
        amounts = [amount for amount, cells in passed.items() if arm in cells]
        tables = [[cell["tables"][measure] for cell in passed[a][arm]] for a in amounts]
        values = late(np.array(tables), measure)  # (amounts, seeds, trials)
        mean, ends = values.mean(axis=(1, 2)), [two_level_interval(one) for one in values]
        spread = np.abs(np.array(ends).T - mean)
        axis.errorbar(amounts, mean, spread, fmt="o-", color=COLOURS[arm], ms=4, capsize=2)
        axis.plot(amounts, values.mean(axis=2), color=COLOURS[arm], lw=0.6, alpha=0.5)
    axis.set(xlabel="training steps", ylabel=measure, title="held-out worlds, last episodes")


def measure_all(arguments: Arguments, run: RelicRun, amounts: Sequence[int]) -> Passed:
    """Trains and measures what is not stored."""
    followed = [arm for arm in arguments.arms if arm in arguments.followed]
    arms = dict.fromkeys(amounts, followed) | {amounts[-1]: list(arguments.arms)}
    passed: Passed = {amount: {arm: [] for arm in arms[amount]} for amount in amounts}
    wanted = [(amount, arm) for amount in amounts for arm in arms[amount]]
    with Progress(transient=True) as progress:
        bar = progress.add_task("", total=len(wanted) * arguments.seeds)
        for (amount, arm), seed in product(wanted, range(arguments.seeds)):
            progress.update(bar, description=f"{arm}, seed {seed}, {amount:,} steps")
            cell = Cell(changed(run, arm, seed, amount), arguments.trials, arguments.work)
            passed[amount][arm].append(cell.result())
            progress.advance(bar)
    return passed


def figures_at_end(cells: dict[str, list[dict[str, Any]]], task: str) -> dict[str, float]:
    """Of every arm after its whole training."""
    figures: dict[str, float] = {}
    measure, threshold = JUDGED[task]
    for arm, found in cells.items():
        figures |= figures_of(arm, [cell["tables"] for cell in found])
        logs = [np.array(cell["log"]) for cell in found]
        pace = speed(logs, 1 + MEASURES.index(measure), threshold)
        figures |= {f"{arm}.{key}": value for key, value in pace.items()}
        if arm == "relic":
            figures |= demonstrated(found, measure)
        masses = [cell["sink_mass"] for cell in found if cell["sink_mass"] is not None]
        if masses:
            figures[f"{arm}.sink_mass"] = float(np.mean(masses))
    return figures


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench relic_learning")
    task = arguments.task
    unknown = sorted({*arguments.arms, *arguments.followed} - set(CHANGES))
    if unknown or task not in JUDGED:
        raise UserError(
            f"bench relic_learning: expected tasks {sorted(JUDGED)} and arms {sorted(CHANGES)}, "
            f"saw {unknown or task}"
        )
    if min(arguments.seeds, arguments.trials, *arguments.transitions) < 1:
        raise UserError(
            "bench relic_learning: --seeds, --trials, --transitions: expected numbers above 0, saw "
            f"{arguments.seeds}, {arguments.trials}, {list(arguments.transitions)}"
        )
    torch.set_num_threads(1)
    run = read_run(CONFIGS / f"relic_{task}.yaml")
    amounts = sorted(set(arguments.transitions)) or [run.training.transitions]
    passed = measure_all(arguments, run, amounts)
    cells = passed[amounts[-1]]
    figures: dict[str, float] = {"seeds": arguments.seeds, "trials": arguments.trials}
    figures |= {"transitions": amounts[-1], **figures_at_end(cells, task)}
    if len(amounts) > 1:
        figures |= curve(passed, JUDGED[task][0])
    bounds = {}
    if task == EGOCENTRIC:
        bounds = {name: scripted(keep, arguments.trials) for name, keep in SCRIPTED.items()}
        for name, table in bounds.items():
            figures |= figures_of(name, [table])
    targets = targets_of(task, figures, arguments.arms)
    series = {arm: [cell["log"] for cell in found] for arm, found in cells.items()}
    if arguments.json is not None:
        draw(beside(arguments.json), task, passed, bounds)
    return report(f"relic_learning_{task}", figures, targets, arguments.json, series)
