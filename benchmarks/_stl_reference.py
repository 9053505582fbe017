"""The definition of robustness, written as it is read. Slow: the yardstick of the fast paths.

Section by section the semantics of Donze and Maler (2010) in discrete time, until strict; the
interval rule is the robust satisfaction interval of arXiv 1506.08234.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl.formula import Formula
from embodied_rl.stl.robustness import PESSIMISTIC, TailRule, predicate_interval


def robustness(
    formula: Formula,
    signals: Mapping[str, np.ndarray],
    tail: TailRule = TailRule.TRUNCATE,
    bounds: Mapping[str, ex.Interval] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper robustness ``(T,)`` at every step; equal but for the rule ``interval``."""
    trace = _Trace(formula, signals, tail, bounds or {})
    values = [trace.value(formula, t) for t in range(trace.length)]
    return np.array([low for low, _ in values]), np.array([high for _, high in values])


class _Trace:
    def __init__(
        self,
        formula: Formula,
        signals: Mapping[str, np.ndarray],
        tail: TailRule,
        bounds: Mapping[str, ex.Interval],
    ):
        self.length = len(next(iter(signals.values())))
        self._tail = tail
        self._atoms, self._outside = {}, {}
        for predicate in fm.predicates(formula):
            self._atoms[predicate] = predicate_interval(predicate, signals, bounds, self.length)
            self._outside[predicate] = ex.enclose(predicate.margin, bounds)
        self._known: dict[tuple[int, int], ex.Interval] = {}

    def value(self, f: Formula, t: int) -> ex.Interval:
        """Robustness of ``f`` at step ``t``, which may lie past the end."""
        if (id(f), t) not in self._known:
            self._known[id(f), t] = self._value(f, t)
        return self._known[id(f), t]

    def _value(self, f: Formula, t: int) -> ex.Interval:
        if isinstance(f, fm.Truth):
            return (math.inf, math.inf) if f.value else (-math.inf, -math.inf)
        if isinstance(f, fm.Predicate):
            if t >= self.length:
                return self._outside[f]
            low, high = self._atoms[f]
            return float(low[t]), float(high[t])
        if isinstance(f, fm.Not):
            return _negated(self.value(f.operand, t))
        if isinstance(f, fm.And):
            return _lowest([self.value(f.left, t), self.value(f.right, t)])
        if isinstance(f, fm.Or):
            return _highest([self.value(f.left, t), self.value(f.right, t)])
        if isinstance(f, fm.Implies):
            return _highest([_negated(self.value(f.left, t)), self.value(f.right, t)])
        steps = self._steps(t + f.start, t + f.end)
        if isinstance(f, fm.Eventually):
            return _highest([self._operand(f.operand, u) for u in steps])
        if isinstance(f, fm.Always):
            return _lowest([self._operand(f.operand, u) for u in steps])
        return _highest(
            [
                _lowest(
                    [self._operand(f.right, u)] + [self._operand(f.left, v) for v in range(t, u)]
                )
                for u in steps
            ]
        )

    def _steps(self, first: int, last: int) -> range:
        cut = self._tail is TailRule.TRUNCATE
        return range(first, (min(last, self.length - 1) if cut else last) + 1)

    def _operand(self, f: Formula, t: int) -> ex.Interval:
        """Value of a temporal operator's operand, by the tail rule where the trace has ended."""
        if t >= self.length and self._tail is TailRule.PAD_PESSIMISTIC:
            return PESSIMISTIC, PESSIMISTIC
        return self.value(f, t)


def _negated(value: ex.Interval) -> ex.Interval:
    return -value[1], -value[0]


def _lowest(values: list[ex.Interval]) -> ex.Interval:
    lows, highs = zip(*values) if values else ((), ())
    return min(lows, default=math.inf), min(highs, default=math.inf)


def _highest(values: list[ex.Interval]) -> ex.Interval:
    lows, highs = zip(*values) if values else ((), ())
    return max(lows, default=-math.inf), max(highs, default=-math.inf)
