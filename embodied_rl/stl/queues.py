"""Sliding windows with O(1) amortised cost a sample, whatever their width."""

from __future__ import annotations

import math
from collections import deque


class SlidingMax:
    """Maximum of the last ``width`` values: the monotone wedge of arXiv cs/0610046.

    The minimum of a sequence is minus the maximum of its negatives.
    """

    __slots__ = ("_count", "_wedge", "_width")

    def __init__(self, width: int):
        self._width, self._count = width, 0
        self._wedge: deque[tuple[int, float]] = deque()  # falling values, each a maximum to come

    def push(self, value: float) -> float:
        """Take the next value; returns the maximum of those in the window."""
        wedge, count = self._wedge, self._count
        while wedge and wedge[-1][1] <= value:
            wedge.pop()
        wedge.append((count, value))
        if wedge[0][0] <= count - self._width:
            wedge.popleft()
        self._count = count + 1
        return wedge[0][1]

    def copy(self) -> SlidingMax:
        other = SlidingMax(self._width)
        other._count, other._wedge = self._count, self._wedge.copy()
        return other


class SlidingUntil:
    """Strict until over a sliding window ``[t + start, t + end]`` of pairs (left, right).

    Pairs combine by ``(U1, M1) o (U2, M2) = (max(U1, min(M1, U2)), min(M1, M2))``, which is
    associative, so a queue made of two stacks with running aggregates gives the window's value.
    ``left`` before the window, where start > 0, is a sliding minimum.
    """

    __slots__ = ("_back", "_back_hold", "_back_until", "_before", "_front", "_size", "_width")

    def __init__(self, start: int, end: int):
        self._width, self._size = end - start + 1, 0
        self._front: list[tuple[float, float, float]] = []  # until, hold from here on; own left
        self._back: list[tuple[float, float]] = []  # (left, right) as they came
        self._back_until, self._back_hold = -math.inf, math.inf
        self._before = SlidingMax(start) if start else None

    def push(self, left: float, right: float) -> float:
        """Take the next pair; returns the until of the step whose window ends with it."""
        before = math.inf
        if self._size == self._width:
            expired = self._pop()
            if self._before is not None:
                before = -self._before.push(-expired)
        else:
            self._size += 1
        self._back.append((left, right))
        self._back_until = max(self._back_until, min(self._back_hold, right))
        self._back_hold = min(self._back_hold, left)
        if not self._front:
            return min(before, self._back_until)
        until, hold, _ = self._front[-1]
        return min(before, max(until, min(hold, self._back_until)))

    def _pop(self) -> float:
        """Drop the oldest pair; returns its left value."""
        if not self._front:
            until, hold = -math.inf, math.inf
            for left, right in reversed(self._back):
                until, hold = max(right, min(left, until)), min(left, hold)
                self._front.append((until, hold, left))
            self._back.clear()
            self._back_until, self._back_hold = -math.inf, math.inf
        return self._front.pop()[2]

    def copy(self) -> SlidingUntil:
        other = SlidingUntil(0, self._width - 1)
        other._size = self._size
        other._front, other._back = self._front.copy(), self._back.copy()
        other._back_until, other._back_hold = self._back_until, self._back_hold
        other._before = self._before.copy() if self._before is not None else None
        return other
