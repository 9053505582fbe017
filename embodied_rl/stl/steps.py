"""Sets of steps as Python integers, for verdicts of all open steps at once.

Bit ``p`` stands for the step ``p`` before the newest one. A shift to the left is one step of time;
windows are joins of shifted copies, by doubling, so one operation handles thousands of steps.
"""

from __future__ import annotations


def ones(count: int) -> int:
    return (1 << count) - 1 if count > 0 else 0


def spread(steps: int, start: int, end: int) -> int:
    """The steps t for which some step of ``[t + start, t + end]`` is in the set."""
    width, size = end - start + 1, 1
    while 2 * size <= width:
        steps |= steps << size
        size *= 2
    return (steps | steps << (width - size)) << start


def shrink(steps: int, start: int, end: int, unseen: bool) -> int:
    """The steps t for which all of ``[t + start, t + end]`` are in the set; those after the newest
    one are if ``unseen``."""
    steps = with_unseen(steps, end, unseen)
    width, size = end - start + 1, 1
    while 2 * size <= width:
        steps &= steps >> size
        size *= 2
    return steps & steps >> (width - size)


def until(left: int, right: int, start: int, end: int) -> int:
    """The steps t with one of ``right`` in ``[t + start, t + end]`` and all before it, from t on,
    in ``left``. Both sets begin with ``end`` unseen steps, see :func:`with_unseen`; the result
    does not."""
    found, hold, width, size = right, left, end - start + 1, 1
    while 2 * size <= width:
        found |= hold & found << size
        hold &= hold << size
        size *= 2
    found |= hold & found << (width - size)
    if start:
        before, size = left, 1
        while 2 * size <= start:
            before &= before << size
            size *= 2
        found = found << start & before & before << (start - size)
    return found >> end


def with_unseen(steps: int, count: int, unseen: bool) -> int:
    """The set moved up by ``count`` steps that are still to come, which are in it if ``unseen``."""
    return steps << count | (ones(count) if unseen else 0)


def listed(steps: int, newest: int) -> list[int]:
    """The steps of a set in rising order, when bit 0 is the step ``newest``."""
    found = []
    while steps:
        place = steps.bit_length() - 1
        found.append(newest - place)
        steps ^= 1 << place
    return found


def trailing(steps: int) -> int:
    """How many steps in a row, the newest and back, are in the set."""
    return ((steps + 1) & ~steps).bit_length() - 1
