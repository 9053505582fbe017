"""The online monitor's state, one node a sub-formula.

A node holds the value of its newest decided step (``low``, ``high``) and two sets of steps: those
that are satisfied for good and those that are violated for good. ``update`` brings both to the
next step, children before parents.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl import steps
from embodied_rl.stl.queues import SlidingMax, SlidingUntil


class Node:
    """What all nodes have; ``mask`` bounds the sets, so that memory stays flat."""

    horizon = 0
    low = high = math.nan
    true = false = 0  # sets of steps, see embodied_rl.stl.steps
    new_true = new_false = 0  # those that the newest sample added
    unseen_true = unseen_false = False  # whether the bounds alone settle steps not seen yet

    def __init__(self, mask: int):
        self.mask = mask

    def update(self, row: Sequence[float], complete: bool) -> None:
        raise NotImplementedError

    def _set(self, true: int, false: int) -> None:
        """Replace the sets by larger ones; bit 0 is the new step."""
        mask = self.mask
        true &= mask
        false &= mask
        self.new_true = true & ~(self.true << 1)
        self.new_false = false & ~(self.false << 1)
        self.true, self.false = true, false

    def _add(self, true: int, false: int) -> None:
        """Bring the sets to the new step and add to them what may be in them already."""
        mask = self.mask
        kept = self.true << 1 & mask
        self.new_true = true & mask & ~kept if true else 0
        self.true = kept | self.new_true
        kept = self.false << 1 & mask
        self.new_false = false & mask & ~kept if false else 0
        self.false = kept | self.new_false


class _Leaf(Node):
    """A predicate."""

    def __init__(self, mask: int, predicate: fm.Predicate, names: Sequence[str],
                 bounds: Mapping[str, ex.Interval]):  # fmt: skip
        super().__init__(mask)
        self._margin, self._bounds = predicate.margin, dict(bounds)
        self._places = {n: names.index(n) for n in ex.signal_names(predicate.margin)}
        self._value = ex.compile_scalar(predicate.margin, self._places)
        low, high = ex.enclose(self._margin, self._bounds)
        self.unseen_true, self.unseen_false = low > 0, high < 0

    def update(self, row: Sequence[float], complete: bool) -> None:
        if complete or all(math.isfinite(row[place]) for place in self._places.values()):
            low = high = self._value(row)
        else:
            low = high = math.nan
        if low - low != 0.0:  # missing, or outside the domain of a function
            box = dict(self._bounds)
            for name, place in self._places.items():
                if math.isfinite(row[place]):
                    box[name] = (row[place], row[place])
            low, high = ex.enclose(self._margin, box)
        self.low, self.high = low, high
        self.new_true, self.new_false = int(low > 0), int(high < 0)
        mask = self.mask
        self.true = (self.true << 1 | self.new_true) & mask
        self.false = (self.false << 1 | self.new_false) & mask


class _Constant(Node):
    def __init__(self, mask: int, value: bool):
        super().__init__(mask)
        self.low = self.high = math.inf if value else -math.inf
        self.unseen_true, self.unseen_false = value, not value

    def update(self, row: Sequence[float], complete: bool) -> None:
        true, false = (self.mask, 0) if self.unseen_true else (0, self.mask)
        self._set(true, false)


class _Negation(Node):
    def __init__(self, mask: int, operand: Node):
        super().__init__(mask)
        self._operand, self.horizon = operand, operand.horizon
        self.unseen_true, self.unseen_false = operand.unseen_false, operand.unseen_true

    def update(self, row: Sequence[float], complete: bool) -> None:
        operand = self._operand
        self.low, self.high = -operand.high, -operand.low
        self.true, self.false = operand.false, operand.true
        self.new_true, self.new_false = operand.new_false, operand.new_true


class _Delay:
    """Decided values of an operand, as late as those of the slowest operand beside it."""

    def __init__(self, operand: Node, horizon: int):
        self._operand = operand
        self._late: deque[tuple[float, float]] | None = None
        if horizon > operand.horizon:
            self._late = deque(maxlen=horizon - operand.horizon + 1)

    def next(self) -> tuple[float, float]:
        operand, late = self._operand, self._late
        if late is None:
            return operand.low, operand.high
        late.append((operand.low, operand.high))
        return late[0]


class _Pair(Node):
    """And, or."""

    def __init__(self, mask: int, left: Node, right: Node, highest: bool):
        super().__init__(mask)
        self._left, self._right, self._highest = left, right, highest
        self.horizon = max(left.horizon, right.horizon)
        self._lefts, self._rights = _Delay(left, self.horizon), _Delay(right, self.horizon)
        joined = (left.unseen_true, right.unseen_true), (left.unseen_false, right.unseen_false)
        self.unseen_true = any(joined[0]) if highest else all(joined[0])
        self.unseen_false = all(joined[1]) if highest else any(joined[1])

    def update(self, row: Sequence[float], complete: bool) -> None:
        left, right = self._left, self._right
        (left_low, left_high), (right_low, right_high) = self._lefts.next(), self._rights.next()
        if self._highest:
            self.low = left_low if left_low > right_low else right_low
            self.high = left_high if left_high > right_high else right_high
            self._set(left.true | right.true, left.false & right.false)
        else:
            self.low = left_low if left_low < right_low else right_low
            self.high = left_high if left_high < right_high else right_high
            self._set(left.true & right.true, left.false | right.false)


class _Implication(_Pair):
    """``left -> right`` is ``not left or right``."""

    def __init__(self, mask: int, left: Node, right: Node):
        self._negation = _Negation(mask, left)
        super().__init__(mask, self._negation, right, highest=True)

    def update(self, row: Sequence[float], complete: bool) -> None:
        self._negation.update(row, complete)
        super().update(row, complete)


class _Window(Node):
    """Eventually and always. ``reach`` is the verdict that one step of the window settles (true of
    eventually, false of always), ``need`` the one that takes them all; always is eventually with
    the signs and the two sets exchanged."""

    def __init__(self, mask: int, operand: Node, start: int, end: int, highest: bool):
        super().__init__(mask)
        self._operand, self._start, self._end, self._highest = operand, start, end, highest
        self.horizon = operand.horizon + end
        width = end - start + 1
        self._lows = SlidingMax(width)
        self._highs: SlidingMax | None = None  # from the first missing sample on
        self._block, self._last = steps.ones(width), 1 << end
        self._block_ahead = self._block << start
        self.unseen_true, self.unseen_false = operand.unseen_true, operand.unseen_false
        unseen = (self.unseen_true, self.unseen_false)
        self._unseen_reach, self._unseen_need = unseen if highest else unseen[::-1]
        self._always_reached = steps.ones(end) if self._unseen_reach else 0

    def update(self, row: Sequence[float], complete: bool) -> None:
        operand = self._operand
        if self._highest:
            self._push(operand.low, operand.high)
            true = self._reached(operand.new_true)
            self._add(true, self._completed(operand.false, operand.new_false))
        else:
            self._push(-operand.high, -operand.low)
            self.low, self.high = -self.high, -self.low
            false = self._reached(operand.new_false)
            self._add(self._completed(operand.true, operand.new_true), false)

    def _push(self, low: float, high: float) -> None:
        if low != low:
            return  # the operand itself has no decided step yet
        if self._highs is None and low != high:
            self._highs = self._lows.copy()
        self.low = self.high = self._lows.push(low)
        if self._highs is not None:
            self.high = self._highs.push(high)

    def _reached(self, new: int) -> int:
        """The steps whose window holds one of the operand's new steps."""
        if new == 1:
            return self._block_ahead | self._always_reached
        if not new:
            return self._always_reached
        return steps.spread(new, self._start, self._end) | self._always_reached

    def _completed(self, now: int, new: int) -> int:
        """The steps whose whole window is in the operand's set now, if the new steps matter."""
        if self._unseen_need or new > 1:
            return steps.shrink(now, self._start, self._end, self._unseen_need)
        # The newest step alone was added: it completes one window, that of the step `end` ago.
        return self._last if new and now & self._block == self._block else 0


class _Until(Node):
    def __init__(self, mask: int, left: Node, right: Node, start: int, end: int):
        super().__init__(mask)
        self._left, self._right, self._start, self._end = left, right, start, end
        both = max(left.horizon, right.horizon)
        self.horizon = both + end
        self._lefts, self._rights = _Delay(left, both), _Delay(right, both)
        self._lows = SlidingUntil(start, end)
        self._highs: SlidingUntil | None = None  # from the first missing sample on
        self._wide, self._window = mask << end | steps.ones(end), steps.ones(end + 1)
        self._plain = not (
            both or left.unseen_true or left.unseen_false or right.unseen_true or right.unseen_false
        )
        sides = left.unseen_true, right.unseen_true
        self.unseen_true = sides[1] and (sides[0] or start == 0)
        sides = left.unseen_false, right.unseen_false
        self.unseen_false = sides[1] or (sides[0] and start > 0)

    def update(self, row: Sequence[float], complete: bool) -> None:
        (left_low, left_high), (right_low, right_high) = self._lefts.next(), self._rights.next()
        if left_low == left_low and right_low == right_low:  # both have a decided step
            if self._highs is None and (left_low != left_high or right_low != right_high):
                self._highs = self._lows.copy()
            self.low = self.high = self._lows.push(left_low, right_low)
            if self._highs is not None:
                self.high = self._highs.push(left_high, right_high)
        if self._plain:
            true = self._plain_true()
            self._set(true, self._plain_false(true))
        else:
            self._set(self._true(), self._false())

    def _true(self) -> int:
        left, right, end = self._left, self._right, self._end
        sides = (
            steps.with_unseen(left.true, end, left.unseen_true),
            steps.with_unseen(right.true, end, right.unseen_true),
        )
        return self.true << 1 | steps.until(*sides, self._start, end)

    def _false(self) -> int:
        """Violated is what cannot be satisfied: until over the steps that are not violated."""
        left, right, end = self._left, self._right, self._end
        sides = (
            self._wide ^ steps.with_unseen(left.false, end, left.unseen_false),
            self._wide ^ steps.with_unseen(right.false, end, right.unseen_false),
        )
        return self.false << 1 | (self.mask & ~steps.until(*sides, self._start, end))

    def _plain_true(self) -> int:
        """Over state formulas a step becomes true only when its right side does, now."""
        found = self.true << 1
        if self._right.new_true:
            farthest = min(self._end, steps.trailing(self._left.true >> 1))
            found |= steps.ones(farthest - self._start + 1) << self._start
        return found

    def _plain_false(self, true: int) -> int:
        """Over state formulas a step becomes false when its left side does, or its window ends."""
        left, right, window = self._left, self._right, self._window
        if not left.new_false:
            return self.false << 1 | (1 << self._end if self.high < 0 else 0)
        known = (left.true | left.false) & (right.true | right.false)
        if known & window == window:  # then what is not true by now cannot become it
            return self.false << 1 | (window & ~true)
        return self._false()


def make_nodes(
    program: fm.Program,
    names: Sequence[str],
    bounds: Mapping[str, ex.Interval],
    horizon: int,
) -> list[Node]:
    """One node for each sub-formula of the program, in its order."""
    mask, found = steps.ones(horizon + 1), list[Node]()
    for formula, places in zip(program.nodes, program.children):
        below = [found[place] for place in places]
        found.append(_make(formula, below, mask, names, bounds))
    return found


def _make(
    formula: fm.Formula,
    below: list[Node],
    mask: int,
    names: Sequence[str],
    bounds: Mapping[str, ex.Interval],
) -> Node:
    if isinstance(formula, fm.Predicate):
        return _Leaf(mask, formula, names, bounds)
    if isinstance(formula, fm.Truth):
        return _Constant(mask, formula.value)
    if isinstance(formula, fm.Not):
        return _Negation(mask, *below)
    if isinstance(formula, (fm.And, fm.Or)):
        return _Pair(mask, *below, highest=isinstance(formula, fm.Or))
    if isinstance(formula, fm.Implies):
        return _Implication(mask, *below)
    if isinstance(formula, (fm.Eventually, fm.Always)):
        highest = isinstance(formula, fm.Eventually)
        return _Window(mask, *below, formula.start, formula.end, highest)
    return _Until(mask, *below, formula.start, formula.end)
