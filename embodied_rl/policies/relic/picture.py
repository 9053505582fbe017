"""A top-down picture of one trial: the path of each episode, what was asked, what was known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.policies.relic.rollout import Played, Trials
from embodied_rl.sim.navigation.base import TrialWorld

# Okabe and Ito's colours, which people with the common kinds of colour blindness tell apart
SUCCESS, FAILURE, TARGET, LINE = "#009E73", "#D55E00", "#E69F00", "#0072B2"
COLUMNS = 4


@dataclass
class Course:
    """One episode: cells (x, y) in the order in which they were, and what became of it."""

    targets: Tensor  # (K, 2)
    cells: list[tuple[int, int]] = field(default_factory=list)
    success: bool = False
    familiar: bool = False  # the target was found in an earlier episode


class Watch:
    """Follows the first trial of an evaluation; the ``watch`` of :func:`evaluate`.

    An episode's last move is not on its course: the robot stands in the next one by then.
    """

    def __init__(self) -> None:
        self.courses: list[Course] = []
        self.world = -1
        self._trials: Trials | None = None
        self._running: Course | None = None

    def __call__(self, trials: Trials, played: Played) -> None:
        if self._trials is None:
            self._trials, self.world = trials, int(trials.worlds[0])
        if trials is not self._trials:
            return
        if self._running is None:
            self._running = Course(played.place.targets[0].nonzero().flip(-1))
        x, y = played.place.position[0].tolist()
        self._running.cells.append((x, y))
        if bool(played.transition.ended[0]):
            self._running.success = bool(played.transition.success[0])
            self._running.familiar = bool(played.transition.familiar[0])
            self.courses.append(self._running)
            self._running = None


def draw(
    path: Path, title: str, world: TrialWorld, watch: Watch, figures: Mapping[str, Any]
) -> None:
    """Writes a PNG: success and efficiency over all trials above, below the episodes of one.

    Args:
        figures: of :func:`embodied_rl.policies.relic.evaluation.summary`.
    """
    count = figures["episodes"]
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.4 + 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(1 + rows, COLUMNS)
    _curves(figure.add_subplot(grid[0, :]), figures)
    home = (world.walls(watch.world), world.objects(watch.world))
    for number, course in enumerate(watch.courses[:count]):
        row, column = divmod(number, COLUMNS)
        _course(figure.add_subplot(grid[1 + row, column]), *home, number, course)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _curves(axis: Axes, figures: Mapping[str, Any]) -> None:
    episodes = range(1, figures["episodes"] + 1)
    for key, label, colour in (("success", "success", SUCCESS), ("efficiency", "SPL", LINE)):
        mean, low, high = zip(*figures["by_episode"][key])
        axis.plot(episodes, mean, "o-", color=colour, markersize=4, label=label)
        axis.fill_between(episodes, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.set(ylim=(0, 1.02), xlabel="episode of the trial", xticks=list(episodes))
    axis.grid(axis="y", color="#DDDDDD")
    axis.legend(frameon=False, loc="lower right", ncols=2)
    axis.set_title(f"all {figures['trials']} trials, 95 % intervals", fontsize=9)


def _course(axis: Axes, walls: Tensor, objects: Tensor, number: int, course: Course) -> None:
    """The map with one episode's path; y points up, objects are named by their type's number."""
    axis.imshow(torch.where(walls, 0.35, 1.0).numpy(), cmap="gray", vmin=0, vmax=1, origin="lower")
    colour = SUCCESS if course.success else FAILURE
    for x, y in course.targets.tolist():
        face = TARGET if course.familiar else "none"
        axis.plot(x, y, "s", color=TARGET, markerfacecolor=face, markersize=9, markeredgewidth=1.8)
    for y, x in objects.nonzero().tolist():
        axis.text(x, y, str(int(objects[y, x])), fontsize=7, ha="center", va="center")
    x, y = zip(*course.cells)
    axis.plot(x, y, "-", color=colour, linewidth=1.8)
    axis.plot(x[0], y[0], "o", color=LINE, markersize=5)
    axis.plot(x[-1], y[-1], "x", color=colour, markersize=7, markeredgewidth=2)
    known = "found before" if course.familiar else "not found before"
    verdict = "success" if course.success else "failure"
    axis.set_title(f"{number + 1}: {verdict}, target {known}", fontsize=8)
    axis.set(xticks=[], yticks=[])
