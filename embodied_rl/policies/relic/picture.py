"""A top-down picture of one trial: the path of each episode, what was asked, what was known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.policies.relic.rollout import Played, Trials
from embodied_rl.sim.navigation.base import TrialWorld

# Okabe and Ito's colours, which people with the common kinds of colour blindness tell apart
SUCCESS, FAILURE, TARGET, LINE = "#009E73", "#D55E00", "#E69F00", "#0072B2"
COLUMNS = 4
GREY_OF_WALLS, GREY_OF_FURNITURE, GREY_OF_UNKNOWN = 0.35, 0.65, "0.55"


@dataclass(frozen=True)
class Floor:
    """The map of a world; places ``(x, y)`` are counted in the unit of ``cell``, the width of a
    cell, from the corner of the first one."""

    walls: np.ndarray  # (H, W) bool, [y, x]
    objects: Mapping[int, tuple[float, float]]  # type -> its middle
    names: Sequence[str] = ()  # of the types; none: their numbers are shown
    furniture: np.ndarray | None = None  # (H, W) bool
    cell: float = 1.0
    unit: str = ""  # of lengths, where they mean something


@dataclass
class Course:
    """One episode: places in the order in which they were, and what became of it."""

    targets: list[tuple[float, float]]
    places: list[tuple[float, float]] = field(default_factory=list)
    success: bool = False
    familiar: bool = False  # the target was found in an earlier episode
    asked: str = "target"
    known: frozenset[int] | None = None  # types of objects seen in earlier episodes, if noted


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
            targets = played.place.targets[0].nonzero().flip(-1).tolist()
            self._running = Course([(x + 0.5, y + 0.5) for x, y in targets])
        x, y = played.place.position[0].tolist()
        self._running.places.append((x + 0.5, y + 0.5))
        if bool(played.transition.ended[0]):
            self._running.success = bool(played.transition.success[0])
            self._running.familiar = bool(played.transition.familiar[0])
            self.courses.append(self._running)
            self._running = None

    def floor(self, world: TrialWorld) -> Floor:
        """Of the world that was followed."""
        objects = world.objects(self.world)
        middles = {
            int(objects[y, x]) - 1: (x + 0.5, y + 0.5) for y, x in objects.nonzero().tolist()
        }
        return Floor(world.walls(self.world).numpy(), middles)


def draw(
    path: Path,
    title: str,
    floor: Floor,
    courses: Sequence[Course],
    figures: Mapping[str, Any],
    beside: tuple[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes a PNG: success and efficiency over all trials above, below the episodes of one.

    Args:
        figures: of :func:`embodied_rl.policies.relic.evaluation.summary`.
        beside: name and figures of what is drawn dashed beside them.
    """
    count = figures["episodes"]
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.4 + 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(1 + rows, COLUMNS)
    _curves(figure.add_subplot(grid[0, :]), figures, beside)
    for number, course in enumerate(courses[:count]):
        row, column = divmod(number, COLUMNS)
        _course(figure.add_subplot(grid[1 + row, column]), floor, number, course)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _curves(
    axis: Axes, figures: Mapping[str, Any], beside: tuple[str, Mapping[str, Any]] | None
) -> None:
    episodes = range(1, figures["episodes"] + 1)
    for key, label, colour in (("success", "success", SUCCESS), ("efficiency", "SPL", LINE)):
        mean, low, high = zip(*figures["by_episode"][key])
        axis.plot(episodes, mean, "o-", color=colour, markersize=4, label=label)
        axis.fill_between(episodes, low, high, color=colour, alpha=0.2, linewidth=0)
        if beside is not None:
            name, others = beside
            mean = [values[0] for values in others["by_episode"][key]]
            axis.plot(episodes, mean, "--", color=colour, label=f"{label}, {name}")
    axis.set(ylim=(0, 1.02), xlabel="episode of the trial", xticks=list(episodes))
    axis.grid(axis="y", color="#DDDDDD")
    axis.legend(frameon=False, loc="lower right" if beside is None else "best", ncols=2)
    axis.set_title(f"all {figures['trials']} trials, 95 % intervals", fontsize=9)


def _course(axis: Axes, floor: Floor, number: int, course: Course) -> None:
    """The map with one episode's path; y points up. Objects not seen before are grey."""
    grey = np.where(floor.walls, GREY_OF_WALLS, 1.0)
    if floor.furniture is not None:
        grey = np.where(floor.furniture, GREY_OF_FURNITURE, grey)
    height, width = grey.shape
    extent = (0.0, width * floor.cell, 0.0, height * floor.cell)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent)
    colour = SUCCESS if course.success else FAILURE
    for x, y in course.targets:
        face = TARGET if course.familiar else "none"
        axis.plot(x, y, "s", color=TARGET, markerfacecolor=face, markersize=9, markeredgewidth=1.8)
    for kind, (x, y) in floor.objects.items():
        seen = course.known is None or kind in course.known
        name = floor.names[kind] if floor.names else str(kind)
        ink = "black" if seen else GREY_OF_UNKNOWN
        label = axis.text(x, y, name, fontsize=7, ha="center", va="center", color=ink)
        label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])  # on dark walls
    x, y = zip(*course.places)
    axis.plot(x, y, "-", color=colour, linewidth=1.8)
    axis.plot(x[0], y[0], "o", color=LINE, markersize=5)
    axis.plot(x[-1], y[-1], "x", color=colour, markersize=7, markeredgewidth=2)
    known = "found before" if course.familiar else "not found before"
    verdict = "success" if course.success else "failure"
    axis.set_title(f"{number + 1}: {verdict}, {course.asked} {known}", fontsize=8)
    if floor.unit:
        axis.tick_params(labelsize=6)
        axis.set_xlabel(floor.unit, fontsize=6, labelpad=0)
    else:
        axis.set(xticks=[], yticks=[])
