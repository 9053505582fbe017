"""A picture of one episode: where the robot went, when it was where, and what that was worth."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.plan import AVOIDED, DONE, MISSED, PENDING, ExecutedPath, PlannedItem

# colours that people with the common kinds of colour blindness tell apart (Okabe and Ito)
COLOURS = {DONE: "#009E73", MISSED: "#E69F00", PENDING: "#56B4E9", AVOIDED: "#D55E00"}
_UNUSED, _BAND = "#BBBBBB", "#0072B2"
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_LABEL_Y = (4, -11, 15, -22)  # points; goals that lie together keep their labels apart
_ROOM = 1.1  # size of the map, in sizes of what is drawn


def draw(drive: ExecutedPath, path: Path, title: str) -> None:
    """Write the picture as PNG; seconds count from the start of the plan."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(11.5, 6.2), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, width_ratios=(1.0, 1.05), height_ratios=(1.15, 1.0))
        where = figure.add_subplot(grid[:, 0])
        when = figure.add_subplot(grid[0, 1])
        worth = figure.add_subplot(grid[1, 1], sharex=when)
        _draw_map(figure, where, drive)
        _draw_times(when, drive)
        _draw_band(worth, drive)
        handles = [Patch(color=colour, label=state) for state, colour in COLOURS.items()]
        where.legend(
            handles=handles, ncols=4, fontsize=8, frameon=False, loc="lower center",
            bbox_to_anchor=(0.5, 1.0), handlelength=1.0, columnspacing=1.2,
        )  # fmt: skip
        formula = "\n".join(textwrap.wrap(drive.plan.formula, 125))
        figure.suptitle(f"{title}\n{formula}", fontsize=9)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")


def _state_of(drive: ExecutedPath, region: str) -> str:
    """How a region is drawn: a subgoal by how it stands, else as one to be avoided, or neither."""
    states = [item.state for item in drive.plan.items if item.region == region]
    for state in (MISSED, PENDING, DONE, AVOIDED):
        if state in states:
            return state
    return ""


def _draw_map(figure: Figure, axis: Axes, drive: ExecutedPath) -> None:
    """From above: regions, the path coloured by time, and where the robot was at the planned
    times."""
    for name, disc in drive.plan.regions.items():
        state, (x, y) = _state_of(drive, name), disc.centre[:2]
        colour = COLOURS.get(state, _UNUSED)
        hatch = "////" if state == AVOIDED else None
        axis.add_patch(Circle((x, y), disc.radius, facecolor=colour, alpha=0.18, lw=0))
        axis.add_patch(
            Circle(
                (x, y), disc.radius, fill=False, edgecolor=colour, hatch=hatch, lw=1.4, alpha=0.7
            )
        )
        axis.annotate(
            name, (x, y + disc.radius), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", weight="bold", zorder=5,
        )  # fmt: skip
    if drive.positions:
        _draw_path(figure, axis, drive)
    axis.set_aspect("equal")
    _fit(axis, drive)
    axis.set_xlabel("x [m]")
    axis.set_ylabel("y [m]")
    axis.grid(color="#DDDDDD", lw=0.5)
    axis.set_axisbelow(True)


def _fit(axis: Axes, drive: ExecutedPath) -> None:
    """A square around regions and path."""
    corners = [np.array(position[:2]) for position in drive.positions]
    for disc in drive.plan.regions.values():
        corners += [np.array(disc.centre[:2]) + sign * disc.radius for sign in (-1, 1)]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    middle, half = (low + high) / 2, _ROOM * float(np.max(high - low)) / 2
    axis.set_xlim(middle[0] - half, middle[0] + half)
    axis.set_ylim(middle[1] - half, middle[1] + half)


def _draw_path(figure: Figure, axis: Axes, drive: ExecutedPath) -> None:
    points = np.array([position[:2] for position in drive.positions])
    pieces = np.stack([points[:-1], points[1:]], axis=1)
    path = LineCollection(list(pieces), cmap="viridis", lw=2.4, capstyle="round", zorder=3)
    path.set_array(np.array(drive.times_s[:-1]))
    axis.add_collection(path)
    figure.colorbar(path, ax=axis, location="bottom", shrink=0.7, pad=0.02, label="time [s]")
    axis.plot(*points[0], "o", color="black", ms=6, zorder=4)
    axis.plot(*points[-1], "s", color="black", ms=5, zorder=4)
    axis.annotate("start", points[0], xytext=(6, 6), textcoords="offset points", fontsize=8)
    for number, item in enumerate(drive.plan.subgoals):
        for step in sorted({item.first, item.last}):
            place = drive.at(step * drive.plan.dt_s)
            if place is None:
                continue
            axis.plot(
                *place[:2], "D", ms=7, mfc=COLOURS[item.state], mec="black", mew=1.0, zorder=6
            )
            axis.annotate(
                f"{item.region} {step * drive.plan.dt_s:g} s", place[:2], zorder=7, fontsize=8,
                xytext=(8, _LABEL_Y[number % len(_LABEL_Y)]), textcoords="offset points",
            )  # fmt: skip


def _draw_times(axis: Axes, drive: ExecutedPath) -> None:
    """A row a region: when the robot was inside, and the windows of the plan."""
    rows = list(dict.fromkeys(item.region for item in drive.plan.items))
    place = {name: len(rows) - 1 - i for i, name in enumerate(rows)}
    for name, row in place.items():
        harmful = _state_of(drive, name) == AVOIDED
        colour = COLOURS[AVOIDED] if harmful else COLOURS[DONE]
        spans = [(begin, end - begin) for begin, end in drive.inside(name)]
        axis.broken_barh(spans, (row - 0.22, 0.44), facecolor=colour, alpha=0.55)
        axis.axhline(row, color="#EEEEEE", lw=0.8, zorder=0)
    for old in drive.replaced:
        for item in old.subgoals:
            _draw_window(axis, item, place[item.region], drive.plan.dt_s, faint=True)
    for item in drive.plan.items:
        _draw_window(axis, item, place[item.region], drive.plan.dt_s)
    axis.set_yticks(list(place.values()), list(place))
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlim(0, drive.plan.steps * drive.plan.dt_s)
    axis.tick_params(labelbottom=False)
    axis.set_title(
        "bars: inside the region;  diamonds: planned times;  dashed: to be avoided",
        fontsize=8, loc="left",
    )  # fmt: skip


def _draw_window(axis: Axes, item: PlannedItem, row: int, dt_s: float, faint: bool = False) -> None:
    first_s, last_s = item.first * dt_s, item.last * dt_s
    if item.state == AVOIDED:
        axis.plot([first_s, last_s], [row, row], "--", color=COLOURS[AVOIDED], lw=1.0)
        return
    fill, alpha = ("none", 0.5) if faint else (COLOURS[item.state], 1.0)
    axis.plot([first_s, last_s], [row, row], "-", color="black", lw=1.0, alpha=alpha)
    axis.plot(
        [first_s, last_s], [row, row], "D", mfc=fill, mec="black", ms=7, alpha=alpha, zorder=4
    )
    if not faint:
        axis.annotate(
            f"{first_s:g} s", (first_s, row), xytext=(0, 8), textcoords="offset points",
            ha="center", fontsize=8,
        )  # fmt: skip


def _draw_band(axis: Axes, drive: ExecutedPath) -> None:
    """The interval that the robustness lies in, as it narrowed while the robot drove."""
    axis.axhline(0.0, color="black", lw=0.8)
    axis.set_xlabel("time [s]")
    axis.set_ylabel("robustness [m]")
    if not drive.band:
        axis.text(
            0.5, 0.5, "no monitor was heard", transform=axis.transAxes, ha="center", color="grey"
        )
        return
    time_s, low, high = np.array(drive.band).T
    finite = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)], [0.0]])
    room = 0.15 * (np.ptp(finite) or 1.0)
    bottom, top = finite.min() - room, finite.max() + room
    axis.fill_between(
        time_s, np.maximum(low, bottom), np.minimum(high, top),
        color=_BAND, alpha=0.22, lw=0, step="post",
    )  # fmt: skip
    for end in (low, high):
        axis.plot(time_s, end, color=_BAND, lw=1.3, drawstyle="steps-post")
    axis.set_ylim(bottom, top)
    axis.set_title(
        f"interval that holds the robustness; at the end {_interval(low[-1], high[-1])}",
        fontsize=8, loc="left",
    )  # fmt: skip


def _interval(low: float, high: float) -> str:
    return f"{low:+.2f} m" if low == high else f"[{low:+.2f}, {high:+.2f}] m"
