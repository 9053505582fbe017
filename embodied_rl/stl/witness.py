"""Why a verdict stands: the predicate and the step whose margin makes the robustness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied_rl.stl import formula as fm

Intervals = list[tuple[np.ndarray, np.ndarray]]  # low, high of each sub-formula of a program


@dataclass(frozen=True)
class Witness:
    """The margin ``value`` of ``predicate`` at ``step``: the robustness, or below ``not`` minus it.

    A step past the newest sample is one that the declared bounds decide.
    """

    predicate: fm.Predicate | fm.Truth
    step: int
    value: float


def find_witness(program: fm.Program, place: int, step: int, intervals: Intervals) -> Witness:
    """Descend from a sub-formula to what fixes its ``high`` where that is below 0, else its
    ``low``: at each operator to the operand and step that the max or min came from, the first of
    equal ones."""
    place %= len(program.nodes)
    upper = bool(intervals[place][1][step] < 0)
    while True:
        node, below = program.nodes[place], program.children[place]
        if isinstance(node, (fm.Predicate, fm.Truth)):
            return Witness(node, step, float(intervals[place][upper][step]))
        if isinstance(node, fm.Not):
            place, upper = below[0], not upper
        elif isinstance(node, fm.Until):
            place, step = _of_until(node, below, step, intervals, upper)
        elif isinstance(node, (fm.Eventually, fm.Always)):
            place = below[0]
            window = intervals[place][upper][step + node.start : step + node.end + 1]
            choose = np.argmax if isinstance(node, fm.Eventually) else np.argmin
            step += node.start + int(choose(window))
        else:
            place, upper = _of_pair(node, below, step, intervals, upper)


def _of_pair(
    node: fm.Formula, below: tuple[int, ...], step: int, intervals: Intervals, upper: bool
) -> tuple[int, bool]:
    """The operand of ``and``, ``or`` or ``->`` that counts, and which of its ends."""
    left, right = below
    negated = isinstance(node, fm.Implies)
    left_value = intervals[left][upper != negated][step] * (-1.0 if negated else 1.0)
    right_value = intervals[right][upper][step]
    left_counts = left_value <= right_value if isinstance(node, fm.And) else (
        left_value >= right_value
    )  # fmt: skip
    return (left, upper != negated) if left_counts else (right, upper)


def _of_until(
    node: fm.Until, below: tuple[int, ...], step: int, intervals: Intervals, upper: bool
) -> tuple[int, int]:
    left = intervals[below[0]][upper][step : step + node.end + 1]
    right = intervals[below[1]][upper][step : step + node.end + 1]
    held = np.concatenate([[np.inf], np.minimum.accumulate(left)[:-1]])  # of the left side, before
    switch = node.start + int(np.argmax(np.minimum(right, held)[node.start :]))
    if right[switch] <= held[switch]:
        return below[1], step + switch
    return below[0], step + int(np.argmin(left[:switch]))
