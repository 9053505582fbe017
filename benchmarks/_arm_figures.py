"""From the results of the arms of PTP to figures, targets and a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _paired import mcnemar_exact, two_level_interval
from _plot import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, picture, points
from _report import Target
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from embodied_rl.core.errors import UserError
from embodied_rl.policies.registry import EXPERT
from embodied_rl.training.statistics import wilson_interval

SUCCESS, GAP, GAP_TASKS = 0.80, 0.40, 2  # what is aimed for
LOOKS = {  # arm -> what the picture calls it, and its colour
    "expert": ("scripted expert", GREY),
    "short": ("2 frames", ORANGE),
    "no_ptp": ("long history, no past loss", RED),
    "future_only": ("long history, future only", PURPLE),
    "ptp": ("PTP", BLUE),
    "ptp_n4": ("PTP, best of 4", SKY),
    "ptp_n16": ("PTP, best of 16", GREEN),
}


@dataclass(frozen=True)
class ArmResults:
    """One arm in one task: what each training seed's evaluation wrote."""

    task: str
    arm: str
    rows: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.task}.{self.arm}"

    @property
    def outcomes(self) -> np.ndarray:
        """``(S, E)``: 1 where the episode ended in success."""
        return np.array([[o["success"] for o in row["outcomes"]] for row in self.rows], int)

    @property
    def episode_seeds(self) -> list[list[int]]:
        return [[o["seed"] for o in row["outcomes"]] for row in self.rows]

    @property
    def ratio(self) -> float:
        """Action predictability against the expert's, geometric mean over the training seeds:
        twice and half as predictable are equally far from the expert."""
        return float(np.exp(np.mean([np.log(row["predictability_ratio"]) for row in self.rows])))

    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the episodes of all seeds."""
        return wilson_interval(int(self.outcomes.sum()), self.outcomes.size)

    def failures(self) -> dict[str, float]:
        """Reason -> share of all episodes that failed for it."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            counts.update(o["reason"] for o in row["outcomes"] if not o["success"])
        return {reason: n / self.outcomes.size for reason, n in sorted(counts.items())}


def figures_of(results: Sequence[ArmResults]) -> tuple[dict[str, float], dict[str, Target]]:
    """Success, predictability and failures of every arm, and the paired differences.

    Raises:
        UserError: arms of a task did not run the same episodes.
    """
    figures: dict[str, float] = {"episodes_a_seed": results[0].outcomes.shape[1]}
    targets: dict[str, Target] = {}
    for result in results:
        _add_arm(result, figures)
    tasks = list(dict.fromkeys(result.task for result in results))
    for task in tasks:
        arms = {result.arm: result for result in results if result.task == task}
        _check_paired(list(arms.values()))
        if "ptp" not in arms:
            continue
        targets[f"{task}.ptp.low"] = (">=", SUCCESS)
        for rival in ("short", "no_ptp", "future_only"):
            if rival in arms:
                name = _add_difference(arms["ptp"], arms[rival], figures)
                if rival != "short":  # not below it: the interval is not all below zero
                    targets[f"{name}_high"] = (">=", 0.0)
        for verified in ("ptp_n4", "ptp_n16"):
            if verified in arms:
                name = _add_difference(arms[verified], arms["ptp"], figures)
                targets[f"{name}_high"] = (">=", 0.0)
    gaps = [figures[key] for task in tasks if (key := f"{task}.ptp_minus_short") in figures]
    if gaps:
        name = f"tasks_with_ptp_minus_short_of_{GAP:.2f}"
        figures[name] = sum(gap >= GAP for gap in gaps)
        targets[name] = (">=", min(GAP_TASKS, len(gaps)))
    return figures, targets


def _add_arm(result: ArmResults, figures: dict[str, float]) -> None:
    name, outcomes = result.name, result.outcomes
    if result.arm != EXPERT:
        figures[f"{name}.seeds"] = len(outcomes)
    figures[f"{name}.success"] = float(outcomes.mean())
    figures[f"{name}.low"], figures[f"{name}.high"] = result.interval()
    if len(outcomes) > 1:  # what one seed, or the expert, cannot tell
        bootstrap = two_level_interval(outcomes)
        figures[f"{name}.bootstrap_low"], figures[f"{name}.bootstrap_high"] = bootstrap
        figures[f"{name}.worst_seed"] = float(outcomes.mean(1).min())
    figures[f"{name}.predictability_ratio"] = result.ratio
    for reason, share in result.failures().items():
        figures[f"{name}.failed_{reason}"] = share


def _add_difference(first: ArmResults, second: ArmResults, figures: dict[str, float]) -> str:
    """Adds `first` minus `second`, episode by episode, over the training seeds that both have;
    returns the figure's name."""
    name = f"{first.task}.{first.arm}_minus_{second.arm}"
    seeds = min(len(first.rows), len(second.rows))
    ours, theirs = first.outcomes[:seeds], second.outcomes[:seeds]
    figures[name] = float((ours - theirs).mean())
    figures[f"{name}_low"], figures[f"{name}_high"] = two_level_interval(ours - theirs)
    figures[f"{name}_mcnemar_p"] = mcnemar_exact(ours, theirs)
    return name


def _check_paired(arms: Sequence[ArmResults]) -> None:
    expected = arms[0].episode_seeds[0]
    for arm in arms:
        for seed, seen in enumerate(arm.episode_seeds):
            if seen != expected:
                raise UserError(
                    f"{arm.name}, training seed {seed}: expected the episodes of {arms[0].name}, "
                    f"{len(expected)} from seed {expected[0]}, saw {len(seen)} from seed {seen[0]}"
                )


def draw(results: Sequence[ArmResults], path: Path) -> None:
    """Success and predictability of every arm, one column a task."""
    tasks = list(dict.fromkeys(result.task for result in results))
    most = max(sum(result.task == task for result in results) for task in tasks)
    counts = {len(result.rows) for result in results if result.arm != EXPERT}
    seeds = "-".join(str(n) for n in sorted({min(counts), max(counts)})) if counts else "no"
    episodes = results[0].outcomes.shape[1]
    title = (
        f"{seeds} training seeds, {episodes} episodes each, the same for every arm\n"
        "dot: all together, bar: 95 % Wilson interval, ring: one training seed"
    )
    size = (1.4 + 2.6 * len(tasks), 1.6 + 0.62 * most)
    with picture(path, rows=2, columns=len(tasks), size=size, title=title, sharex="row") as axes:
        for column, task in enumerate(tasks):
            arms = [result for result in results if result.task == task]
            _draw_success(axes[0, column], arms)
            _draw_ratios(axes[1, column], arms)
            axes[0, column].set_title(task)
            if [arm.arm for arm in arms] == [r.arm for r in results if r.task == tasks[0]]:
                for axis in axes[:, column]:  # one list of names serves all columns
                    axis.tick_params(axis="y", labelleft=column == 0)


def _draw_success(axis: Axes, arms: Sequence[ArmResults]) -> None:
    low, high = zip(*(arm.interval() for arm in arms), strict=True)
    rates = [arm.outcomes.mean() for arm in arms]
    labels, colours = _looks(arms)
    axis.axvline(SUCCESS, color=GREY, linestyle="--", linewidth=1, zorder=1)
    points(axis, labels, rates, low, high, rings=_seeds(arms, "success"), colours=colours)
    for place, rate in enumerate(rates):
        axis.annotate(
            f"{rate:.2f}", (rate, place), xytext=(0, 4), textcoords="offset points",
            fontsize=7.5, ha="center",
        )  # fmt: skip
    axis.set_xlim(-0.03, 1.06)
    axis.set_xlabel("success rate\n(dashed: PTP is to lie above)")


def _draw_ratios(axis: Axes, arms: Sequence[ArmResults]) -> None:
    labels, colours = _looks(arms)
    axis.axvline(1, color=GREY, linestyle="--", linewidth=1, zorder=1)
    rings = _seeds(arms, "predictability_ratio")
    points(axis, labels, [arm.ratio for arm in arms], rings=rings, colours=colours)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    wide = high / low > 10  # less than a decade has one round tick at most
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide else range(1, 10)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel("predictability of actions, expert = 1\n(below: jitter, above: copying)")


def _seeds(arms: Sequence[ArmResults], figure: str) -> list[list[float]]:
    """The values of the training seeds; the expert, which is not trained, has none."""
    return [[row[figure] for row in arm.rows] if len(arm.rows) > 1 else [] for arm in arms]


def _looks(arms: Sequence[ArmResults]) -> tuple[list[str], list[str]]:
    labels, colours = zip(*(LOOKS[arm.arm] for arm in arms), strict=True)
    return list(labels), list(colours)
