"""A picture of a replay: signals with their thresholds, robustness bands, verdicts over time."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl.events import Event, Kind
from embodied_rl.stl.online import Verdict
from embodied_rl.stl.replay import Replay
from embodied_rl.stl.text import infix, number

# colours that people with the common kinds of colour blindness tell apart (Okabe and Ito)
COLOURS = {
    Verdict.SATISFIED: "#009E73",
    Verdict.VIOLATED: "#D55E00",
    Verdict.UNDECIDED: "#BBBBBB",
    Verdict.UNDETERMINED: "#F0E442",
}
_LINE = "#0072B2"
_TITLE_WIDTH = 130  # characters of the small font that fit
_WIDTH, _SIGNAL_HEIGHT, _FORMULA_HEIGHT = 9.0, 1.25, 1.9  # inches


def draw(record: Replay, path: Path, title: str) -> None:
    """Write the picture of a replay as PNG; seconds count from the first slot."""
    signals, formulas = list(record.spec.signals.signals), list(record.spec.formulas)
    heights = [_SIGNAL_HEIGHT] * len(signals) + [_FORMULA_HEIGHT] * len(formulas)
    figure = Figure(figsize=(_WIDTH, sum(heights) + 1.2), layout="constrained")
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    axes = [row[0] for row in rows]
    for name, axis in zip(signals, axes):
        _draw_signal(axis, record, name)
    for name, axis in zip(formulas, axes[len(signals) :]):
        _draw_formula(axis, record, name)
    axes[-1].set_xlabel("time [s]")
    figure.suptitle(title, fontsize=11)
    handles = [Patch(color=colour, label=kind.value) for kind, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _seconds(record: Replay, stamps_ns: list[int]) -> np.ndarray:
    return (np.array(stamps_ns, dtype=np.int64) - record.slots[0].stamp_ns) / 1e9


def _draw_signal(axis: Axes, record: Replay, name: str) -> None:
    """The signal, and dashed the constants that predicates compare it with."""
    time_s = _seconds(record, [slot.stamp_ns for slot in record.slots])
    axis.plot(time_s, [slot.values[name] for slot in record.slots], color=_LINE, lw=1.4)
    for level in _levels(record, name):
        axis.axhline(level, color="black", ls="--", lw=0.8)
        axis.annotate(
            number(level), (0.998, level), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=7,
        )  # fmt: skip
    unit = record.spec.signals.signals[name].unit
    axis.set_ylabel(f"{name}\n[{unit}]" if unit else name, fontsize=8)
    axis.margins(x=0.01, y=0.2)


def _levels(record: Replay, name: str) -> list[float]:
    """The constants that a signal by itself is compared with."""
    found = set()
    for formula in record.spec.formulas.values():
        for predicate in fm.predicates(formula):
            if predicate.left == ex.Signal(name) and isinstance(predicate.right, ex.Constant):
                found.add(predicate.right.value)
    return sorted(found)


def _draw_formula(axis: Axes, record: Replay, name: str) -> None:
    """Band of the robustness, dashed its prediction, and the verdict as a strip at the bottom."""
    history = record.history(name)
    time_s = _seconds(record, [stamp for stamp, _ in history])
    low, high = (np.array([getattr(s, end) for _, s in history]) for end in ("low", "high"))
    finite = np.concatenate([low, high])[np.isfinite(np.concatenate([low, high]))]
    bottom, top = (min(finite.min(), 0.0), max(finite.max(), 0.0)) if len(finite) else (-1.0, 1.0)
    room = 0.15 * (top - bottom or 1.0)
    bottom, top = bottom - 2 * room, top + room
    axis.fill_between(
        time_s, np.maximum(low, bottom), np.minimum(high, top),
        color=_LINE, alpha=0.22, lw=0, step="post",
    )  # fmt: skip

    axis.plot(time_s, low, color=_LINE, lw=1.2, drawstyle="steps-post")
    axis.plot(time_s, high, color=_LINE, lw=1.2, drawstyle="steps-post")
    axis.axhline(0.0, color="black", lw=0.8)
    if record.spec.predictor != "none":
        predicted = [np.nan if v is None else v for v in record.estimates[name]]
        slots_s = _seconds(record, [slot.stamp_ns for slot in record.slots])
        axis.plot(slots_s, predicted, color="black", lw=1.0, ls="--")
    _draw_strip(axis, time_s, [status.verdict for _, status in history], record.spec.dt_s)
    for event in record.events:
        if event.formula == name and not event.path:
            _mark(axis, record, event)
    axis.set_ylim(bottom, top)
    axis.set_ylabel(f"{name}\nrobustness", fontsize=8)
    axis.margins(x=0.01)
    text = infix(record.spec.formulas[name], record.spec.dt_s)
    lines = textwrap.wrap(text, _TITLE_WIDTH, max_lines=3, placeholder=" ...")
    axis.set_title("\n".join(lines), fontsize=8, loc="left")


def _draw_strip(axis: Axes, time_s: np.ndarray, verdicts: list[Verdict], dt_s: float) -> None:
    edges = [0, *(i for i in range(1, len(verdicts)) if verdicts[i] is not verdicts[i - 1])]
    for first, last in zip(edges, [*edges[1:], len(verdicts)]):
        end = time_s[last] if last < len(verdicts) else time_s[-1] + dt_s
        axis.axvspan(time_s[first], end, 0.0, 0.07, color=COLOURS[verdicts[first]], lw=0)


def _mark(axis: Axes, record: Replay, event: Event) -> None:
    colours = {Kind.VIOLATED: Verdict.VIOLATED, Kind.SATISFIED: Verdict.SATISFIED}
    colour = COLOURS[colours[event.event]] if event.event in colours else "black"
    time_s = float(_seconds(record, [event.stamp_ns])[0])
    axis.axvline(time_s, color=colour, lw=1.0, ls=":")
    axis.annotate(
        event.event.value, (time_s, 1.0), xycoords=("data", "axes fraction"), rotation=90,
        ha="right", va="top", fontsize=7, color=colour,
    )  # fmt: skip
