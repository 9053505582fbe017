"""One plain style for the pictures of benchmarks, and their writing beside the JSON.

    with picture(beside(json_path), columns=2, size=(8, 3)) as axes:
        points(axes[0, 0], labels, values, lows, highs)

Nothing here needs a display.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embodied_rl.core.checkpoint import atomic_write

# Okabe and Ito's colours: told apart with any kind of colour vision, and in greyscale print.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip
GREY, BLACK, YELLOW, BROWN = "#7F7F7F", "#000000", "#F0E442", "#7A4A1E"
STYLE = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def beside(json_path: Path) -> Path:
    """The picture that belongs to a result file."""
    return json_path.with_suffix(".png")


@contextmanager
def picture(
    path: Path,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float],
    title: str = "",
    sharex: bool | str = False,
    sharey: bool | str = False,
) -> Iterator[np.ndarray]:
    """Axes ``(rows, columns)`` of a new figure; a PNG is written when the block succeeds.

    Args:
        size: width and height in inches; 150 pixels each.
        sharex, sharey: as in matplotlib: "row" or "col" shares an axis along that direction.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title)
        yield figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")


def points(
    axis: Axes,
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    *,
    rings: Sequence[Sequence[float]] | None = None,
    colours: Sequence[str] | str = BLUE,
) -> None:
    """One mark a label, the first label on top, values along x: names of any length are readable.

    Args:
        low, high: ends of an interval around each value.
        rings: the values that each mark sums up, such as one a training seed; drawn below it.
    """
    places, chosen = np.arange(len(labels)), _colours(labels, colours)
    for place, value, colour in zip(places, values, chosen, strict=True):
        axis.plot(value, place, "o", color=colour, markersize=7, zorder=3)
    if low is not None and high is not None:
        axis.hlines(places, low, high, colors=chosen, linewidth=2.2, zorder=2)
    for place, ring, colour in zip(places, rings or (), chosen):  # noqa: B905 - rings may be absent
        axis.plot(
            ring, np.full(len(ring), place + 0.28), "o", color=colour, markersize=3.5,
            markerfacecolor="none", zorder=3,
        )  # fmt: skip
    axis.set_yticks(places, labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", visible=True)


def bars(
    axis: Axes,
    labels: Sequence[str],
    values: Sequence[float],
    *,
    colours: Sequence[str] | str = BLUE,
    number: str = "{:.3g}",
) -> None:
    """One bar a label with its value written on top; for quantities that begin at zero."""
    places = np.arange(len(labels))
    drawn = axis.bar(places, values, width=0.62, color=_colours(labels, colours))
    axis.set_xticks(places, labels)
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.bar_label(drawn, [number.format(value) for value in values], padding=2, fontsize=8)
    axis.margins(y=0.15)


def target(axis: Axes, value: float, text: str = "") -> None:
    """A dashed line at what is aimed for, its meaning written above its right end."""
    axis.axhline(value, color=GREY, linestyle="--", linewidth=1, zorder=1)
    axis.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(0, 2),
        textcoords="offset points", ha="right", va="bottom", fontsize=7.5, color=GREY,
    )  # fmt: skip


def _colours(labels: Sequence[str], colours: Sequence[str] | str) -> list[str]:
    return [colours] * len(labels) if isinstance(colours, str) else list(colours)
