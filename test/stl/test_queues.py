"""Sliding windows and sets of steps against brute force."""

from __future__ import annotations

import random

from embodied_rl.stl import steps
from embodied_rl.stl.queues import SlidingMax, SlidingUntil


def test_sliding_max_is_the_maximum_of_the_window():
    draw = random.Random(0)
    for _ in range(100):
        width, values = draw.randint(1, 12), [draw.randint(-5, 5) for _ in range(60)]
        window = SlidingMax(width)
        for i, value in enumerate(values):
            if i == 30:
                window = window.copy()
            assert window.push(value) == max(values[max(0, i - width + 1) : i + 1])


def test_sliding_until_is_its_definition():
    draw = random.Random(1)
    for _ in range(300):
        start = draw.randint(0, 6)
        end = start + draw.randint(0, 8)
        left, right = ([draw.randint(-9, 9) for _ in range(60)] for _ in range(2))
        queue = SlidingUntil(start, end)
        for i in range(60):
            if i == 33:
                queue = queue.copy()
            found, t = queue.push(left[i], right[i]), i - end
            if t >= 0:
                options = [min([right[u], *left[t:u]]) for u in range(t + start, t + end + 1)]
                assert found == max(options)


def test_queues_stay_flat():
    window, queue = SlidingMax(50), SlidingUntil(5, 50)
    draw = random.Random(2)
    for _ in range(20_000):
        window.push(draw.random())
        queue.push(draw.random(), draw.random())
    assert len(window._wedge) <= 50
    assert len(queue._front) + len(queue._back) == 46


def as_steps(found: set[int], newest: int) -> int:
    return sum(1 << (newest - step) for step in found)


def test_sets_of_steps_are_sets():
    draw, newest, unseen_to = random.Random(3), 20, 50
    for _ in range(300):
        start = draw.randint(0, 7)
        end = start + draw.randint(0, 9)
        unseen = draw.random() < 0.5
        left, right = ({t for t in range(newest + 1) if draw.random() < 0.7} for _ in range(2))
        later = set(range(newest + 1, unseen_to)) if unseen else set()
        expected = [
            {t for t in range(newest + 1) if right & set(range(t + start, t + end + 1))},
            {t for t in range(newest + 1) if right | later >= set(range(t + start, t + end + 1))},
            {
                t
                for t in range(newest + 1)
                if any(
                    u in right | later and left | later >= set(range(t, u))
                    for u in range(t + start, t + end + 1)
                )
            },
        ]
        a, b = as_steps(left, newest), as_steps(right, newest)
        sides = steps.with_unseen(a, end, unseen), steps.with_unseen(b, end, unseen)
        found = [
            steps.spread(b, start, end),
            steps.shrink(b, start, end, unseen),
            steps.until(*sides, start, end),
        ]
        for have, want in zip(found, expected):
            assert steps.listed(have & steps.ones(newest + 1), newest) == sorted(want)


def test_trailing_counts_the_newest_run():
    assert [steps.trailing(s) for s in (0, 1, 0b10, 0b1011, 0b111)] == [0, 1, 0, 2, 3]
