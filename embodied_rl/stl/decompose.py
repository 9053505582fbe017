"""Decomposition of a formula into timed subgoals and invariants.

A formula of the fragment becomes a list of alternatives. Each has integer time variables with
bounds and constraints, state formulas to *reach* at one moment and state formulas to *hold* over a
span, the moments being sums of a constant and time variables. The grounding identity ties them to
the formula: at the start of every trace that covers the horizon,

    robustness = max over alternatives and feasible times of min over their reach and hold margins

so one grounding met with margin m certifies robustness >= m. The rules, ``e`` being the moment at
which a sub-formula is asked for, after negations have been pushed inward and F F, G G merged:

====================  ==========================================================================
state formula         reach it at e
F[a,b] f              new t in [a,b]; f at e + t. With f = G[c,d] s, reaching s at e + t + c is a
                      guide beside the invariant
G[a,b] s              hold s over [e + a, e + b]; G distributes over ``and``
g U[a,b] f            new t in [a,b]; f at e + t; hold g over [e, e + t - 1] unless t = 0. g is a
                      conjunction of state formulas and G[c,d] of them
f and g               both: every pair of alternatives
f or g                either: the alternatives of both (one state formula, if both are)
G[a,b] F[c,d] s       visits v1 < ... < vn from [a + c, a + d] to [b + c, b + d], each at most
                      d - c + 1 after the one before, for every n that a trace may need
====================  ==========================================================================

Anything else (a negated until, G over until, over ``or`` with temporal parts, over F of them) is
refused by name, never approximated. The rules are our design; that decompositions of this kind
serve control is arXiv 2403.10554 and 2510.00225.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from embodied_rl.core.errors import UserError
from embodied_rl.stl import formula as fm
from embodied_rl.stl.formula import Formula
from embodied_rl.stl.text import infix

MOST_ALTERNATIVES = 64
MOST_VARIABLES = 16
MOST_ASSIGNMENTS = 2_000_000


class DecompositionError(UserError):
    """A formula without a decomposition: ``subformula`` is what no rule takes, ``rule`` why."""

    def __init__(self, subformula: Formula, rule: str, dt_s: float):
        self.subformula, self.rule = subformula, rule
        super().__init__(f"outside the fragment: '{infix(subformula, dt_s)}': {rule}")


class DecompositionTooLarge(DecompositionError):
    """More alternatives or time variables than the limits of this module."""


@dataclass(frozen=True)
class TimeVariable:
    """A whole number of steps in ``[low, high]``, from the operator ``source``."""

    low: int
    high: int
    source: Formula


@dataclass(frozen=True)
class Moment:
    """``offset`` plus the time variables at ``variables``, in steps from the start."""

    offset: int = 0
    variables: tuple[int, ...] = ()

    def plus(self, offset: int, *variables: int) -> Moment:
        return Moment(self.offset + offset, self.variables + variables)

    def at(self, times: np.ndarray) -> np.ndarray:
        """Steps ``(N,)`` for assignments ``(N, K)`` of all time variables."""
        return self.offset + times[:, list(self.variables)].sum(axis=1)


@dataclass(frozen=True)
class Reach:
    """``goal`` is to hold at one moment. A guide repeats what an invariant asks already."""

    goal: Formula
    moment: Moment
    guide: bool = False


@dataclass(frozen=True)
class Hold:
    """``condition`` is to hold from ``first`` to ``last``, both included.

    With ``unless_zero``, the place of an until's time variable, nothing is asked when that is 0.
    """

    condition: Formula
    first: Moment
    last: Moment
    unless_zero: int | None = None


@dataclass(frozen=True)
class Gap:
    """Between two time variables: ``low <= times[later] - times[earlier] <= high``."""

    earlier: int
    later: int
    low: int
    high: int


@dataclass(frozen=True)
class Alternative:
    """One way to satisfy the formula; places in ``variables`` name the time variables."""

    variables: tuple[TimeVariable, ...] = ()
    reach: tuple[Reach, ...] = ()
    hold: tuple[Hold, ...] = ()
    gaps: tuple[Gap, ...] = ()

    def feasible(self, times: np.ndarray) -> np.ndarray:
        """Which of the assignments ``(N, K)`` keep bounds and gaps, ``(N,)``."""
        found = np.ones(len(times), dtype=bool)
        for place, variable in enumerate(self.variables):
            found &= (variable.low <= times[:, place]) & (times[:, place] <= variable.high)
        for gap in self.gaps:
            distance = times[:, gap.later] - times[:, gap.earlier]
            found &= (gap.low <= distance) & (distance <= gap.high)
        return found

    def assignments(self) -> np.ndarray:
        """Every feasible assignment ``(N, K)``.

        Raises:
            UserError: more than two million candidates.
        """
        found = np.zeros((1, 0), dtype=np.int64)
        for place, variable in enumerate(self.variables):
            choices = np.arange(variable.low, variable.high + 1)
            if len(found) * len(choices) > MOST_ASSIGNMENTS:
                raise UserError(
                    f"groundings: expected at most {MOST_ASSIGNMENTS} candidates, saw "
                    f"{len(found) * len(choices)} at time variable {place + 1}"
                )
            repeated = np.repeat(found, len(choices), axis=0)
            found = np.column_stack([repeated, np.tile(choices, len(found))])
            for gap in self.gaps:
                if gap.later == place:
                    distance = found[:, gap.later] - found[:, gap.earlier]
                    found = found[(gap.low <= distance) & (distance <= gap.high)]
        return found

    def margin(self, times: np.ndarray, values: Mapping[Formula, np.ndarray]) -> np.ndarray:
        """Smallest reach or hold margin ``(N,)`` of assignments ``(N, K)`` on one trace.

        Args:
            values: robustness ``(T,)`` of every state formula of the alternative on the trace.
        """
        found = np.full(len(times), np.inf)
        for item in self.reach:
            found = np.minimum(found, values[item.goal][item.moment.at(times)])
        for span in self.hold:
            table = _lowest_of_spans(values[span.condition])
            first, last = span.first.at(times), span.last.at(times)
            asked = last >= first
            if span.unless_zero is not None:
                asked &= times[:, span.unless_zero] > 0
            lowest = table[first[asked], last[asked]]
            found[asked] = np.minimum(found[asked], lowest)
        return found


def _lowest_of_spans(values: np.ndarray) -> np.ndarray:
    """``(T, T)``: entry (i, j) is the minimum of ``values[i..j]``."""
    table = np.full((len(values), len(values)), np.inf)
    for first in range(len(values)):
        table[first, first:] = np.minimum.accumulate(values[first:])
    return table


def decompose(
    formula: Formula, dt_s: float = 1.0, fewest_visits: bool = False
) -> tuple[Alternative, ...]:
    """The alternatives of a formula; ``dt_s`` is for the text of errors only.

    Args:
        fewest_visits: of a recurrence (G F) keep only the plans with the fewest visits. Each still
            certifies, but a trace may satisfy the formula with more visits and meet none of them.

    Raises:
        DecompositionError: a sub-formula is outside the fragment; DecompositionTooLarge: more
            than 64 alternatives, or more than 16 time variables in one.
    """
    return _Decomposer(dt_s, fewest_visits).of(_merged(fm.negation_normal_form(formula)))


def _merged(formula: Formula) -> Formula:
    """With ``F F`` and ``G G`` as one operator, and G of a conjunction as a conjunction."""
    if isinstance(formula, (fm.Eventually, fm.Always)):
        operand = _merged(formula.operand)
        if isinstance(operand, type(formula)):
            start, end = formula.start + operand.start, formula.end + operand.end
            return type(formula)(start, end, operand.operand)
        whole = type(formula)(formula.start, formula.end, operand)
        if isinstance(formula, fm.Eventually) or not isinstance(operand, fm.And):
            return whole
        if fm.is_state_formula(operand):
            return whole
        parts = [fm.Always(whole.start, whole.end, part) for part in fm.children(operand)]
        return fm.And(*(_merged(part) for part in parts))
    return fm.rebuilt(formula, [_merged(child) for child in fm.children(formula)])


class _Decomposer:
    def __init__(self, dt_s: float, fewest_visits: bool):
        self._dt_s, self._fewest = dt_s, fewest_visits

    def of(self, formula: Formula) -> tuple[Alternative, ...]:
        return tuple(self._at(formula, Moment(), Alternative()))

    def _at(self, f: Formula, e: Moment, so_far: Alternative) -> list[Alternative]:
        """``so_far`` with all that ``f`` at moment ``e`` asks, one for each way to satisfy it."""
        if fm.is_state_formula(f):
            if f == fm.Truth(True):
                return [so_far]
            return [replace(so_far, reach=(*so_far.reach, Reach(f, e)))]
        if isinstance(f, fm.And):
            lefts = self._at(f.left, e, so_far)
            return self._counted(f, [part for left in lefts for part in self._at(f.right, e, left)])
        if isinstance(f, fm.Or):
            both = self._at(f.left, e, so_far) + self._at(f.right, e, so_far)
            return self._counted(f, both)
        if isinstance(f, fm.Eventually):
            return self._eventually(f, e, so_far)
        if isinstance(f, fm.Until):
            return self._until(f, e, so_far)
        if isinstance(f, fm.Always):
            return self._always(f, e, so_far)
        return self._refuse(f, "a negated until has no rule; say it with G, F and until instead")

    def _eventually(self, f: fm.Eventually, e: Moment, so_far: Alternative) -> list[Alternative]:
        moment, so_far, _ = self._timed(f, e, so_far)
        inner = f.operand
        if isinstance(inner, fm.Always) and fm.is_state_formula(inner.operand):
            guide = Reach(inner.operand, moment.plus(inner.start), guide=True)
            so_far = replace(so_far, reach=(*so_far.reach, guide))
        return self._at(inner, moment, so_far)

    def _until(self, f: fm.Until, e: Moment, so_far: Alternative) -> list[Alternative]:
        moment, so_far, variable = self._timed(f, e, so_far)
        for condition, start, end in self._guards(f, f.left):
            if variable is None and f.start == 0 or condition == fm.Truth(True):
                continue
            span = Hold(condition, e.plus(start), moment.plus(end - 1), variable)
            so_far = replace(so_far, hold=(*so_far.hold, span))
        return self._at(f.right, moment, so_far)

    def _guards(self, whole: fm.Until, f: Formula) -> list[tuple[Formula, int, int]]:
        """What the left side of an until asks at every step, as ``G[start,end] condition``."""
        if fm.is_state_formula(f):
            return [(f, 0, 0)]
        if isinstance(f, fm.And):
            return self._guards(whole, f.left) + self._guards(whole, f.right)
        if isinstance(f, fm.Always) and fm.is_state_formula(f.operand):
            return [(f.operand, f.start, f.end)]
        return self._refuse(
            whole, f"the left side of until takes state formulas and G of them, not "
            f"'{infix(f, self._dt_s)}'",
        )  # fmt: skip

    def _always(self, f: fm.Always, e: Moment, so_far: Alternative) -> list[Alternative]:
        inner = f.operand
        if f.start == f.end:
            return self._at(inner, e.plus(f.start), so_far)
        if fm.is_state_formula(inner):
            span = Hold(inner, e.plus(f.start), e.plus(f.end))
            return [replace(so_far, hold=(*so_far.hold, span))]
        if isinstance(inner, fm.Eventually) and fm.is_state_formula(inner.operand):
            return self._recurrence(f, inner, e, so_far)
        if isinstance(inner, fm.Eventually):
            rule = "G over F takes a state formula below F"
        else:
            name = {fm.Until: "until", fm.Not: "a negated until"}.get(
                type(inner), "'or' with temporal parts"
            )
            rule = f"G over {name} has no rule; G takes state formulas, 'and', G and F of a state"
        return self._refuse(f, rule)

    def _recurrence(
        self, f: fm.Always, inner: fm.Eventually, e: Moment, so_far: Alternative
    ) -> list[Alternative]:
        """One alternative for each number of visits."""
        widest = inner.end - inner.start + 1  # between two visits
        first = (f.start + inner.start, f.start + inner.end)
        last = (f.end + inner.start, f.end + inner.end)
        fewest, most = visit_counts(f.end - f.start, widest)
        found = []
        for count in range(fewest, (fewest if self._fewest else most) + 1):
            base = len(so_far.variables)
            visits = []
            for i in range(count):
                rest = count - 1 - i
                low = max(first[0] + i, last[0] - rest * widest)
                high = min(first[1] + i * widest, last[1] - rest)
                visits.append(TimeVariable(low, high, f))
            places = range(base, base + count)
            self._check_count(f, base + count)
            found.append(
                Alternative(
                    so_far.variables + tuple(visits),
                    so_far.reach + tuple(Reach(inner.operand, e.plus(0, p)) for p in places),
                    so_far.hold,
                    so_far.gaps + tuple(Gap(p - 1, p, 1, widest) for p in places[1:]),
                )
            )
        return self._counted(f, found)

    def _timed(
        self, f: fm.Eventually | fm.Until, e: Moment, so_far: Alternative
    ) -> tuple[Moment, Alternative, int | None]:
        """The moment of the operator's choice; an interval of one step needs no variable."""
        if f.start == f.end:
            return e.plus(f.start), so_far, None
        place = len(so_far.variables)
        self._check_count(f, place + 1)
        variables = (*so_far.variables, TimeVariable(f.start, f.end, f))
        return e.plus(0, place), replace(so_far, variables=variables), place

    def _check_count(self, f: Formula, count: int) -> None:
        if count > MOST_VARIABLES:
            raise DecompositionTooLarge(
                f,
                f"more than {MOST_VARIABLES} time variables (decomposition_too_large)",
                self._dt_s,
            )

    def _counted(self, f: Formula, found: list[Alternative]) -> list[Alternative]:
        if len(found) > MOST_ALTERNATIVES:
            raise DecompositionTooLarge(
                f,
                f"more than {MOST_ALTERNATIVES} alternatives (decomposition_too_large)",
                self._dt_s,
            )
        return found

    def _refuse(self, f: Formula, rule: str) -> NoReturn:
        raise DecompositionError(f, rule, self._dt_s)


def visit_counts(length: int, widest: int) -> tuple[int, int]:
    """Fewest and most visits that ``G[0,length] F[0,widest - 1]`` may need.

    The most: where every second of the visits that a trace offers lies just out of reach, none can
    be left out. Going to the farthest visit within reach, two steps cover more than ``widest``.
    """
    fewest = -(-(length + 1) // widest)
    most = max(fewest, 1)
    if length >= 1:
        most = max(most, 2 + 2 * ((length - 1) // (widest + 1)))
    if length >= widest + 1:
        most = max(most, 3 + 2 * ((length - widest - 1) // (widest + 1)))
    return fewest, most


def describe(alternative: Alternative, dt_s: float) -> list[str]:
    """The alternative in lines for people, times in seconds."""

    def seconds(steps: int) -> str:
        return f"{steps * dt_s:.12g}"

    def moment(m: Moment) -> str:
        names = [f"t{place + 1}" for place in m.variables]
        if m.offset or not names:
            names.append(seconds(m.offset))
        return " + ".join(names).replace("+ -", "- ")

    lines = []
    for place, variable in enumerate(alternative.variables):
        bounds = f"[{seconds(variable.low)}, {seconds(variable.high)}] s"
        lines.append(f"t{place + 1} in {bounds}   from {infix(variable.source, dt_s)}")
    for gap in alternative.gaps:
        bounds = f"[{seconds(gap.low)}, {seconds(gap.high)}] s"
        lines.append(f"t{gap.later + 1} - t{gap.earlier + 1} in {bounds}")
    for item in alternative.reach:
        guide = "   (guide)" if item.guide else ""
        lines.append(f"reach  {infix(item.goal)}   at {moment(item.moment)}{guide}")
    for span in alternative.hold:
        note = "" if span.unless_zero is None else f"   unless t{span.unless_zero + 1} = 0"
        first, last = moment(span.first), moment(span.last)
        lines.append(f"hold   {infix(span.condition)}   over [{first}, {last}]{note}")
    return lines


def state_formulas(alternatives: Sequence[Alternative]) -> list[Formula]:
    """Every state formula that the alternatives reach or hold, each once."""
    found: dict[Formula, None] = {}
    for alternative in alternatives:
        found.update(dict.fromkeys(item.goal for item in alternative.reach))
        found.update(dict.fromkeys(span.condition for span in alternative.hold))
    return list(found)
