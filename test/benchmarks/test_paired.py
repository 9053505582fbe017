"""Paired statistics against brute force and against the textbook."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from _paired import mcnemar_exact, two_level_interval


def test_interval_over_seeds_equals_the_enumeration_of_all_draws():
    # Episodes of one seed are all alike, so only the draw of the three seeds matters: 27 cases.
    rates = np.array([0.0, 0.5, 1.0])
    means = sorted(np.mean(draw) for draw in product(rates, repeat=3))
    expected = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    assert two_level_interval(np.repeat(rates[:, None], 40, axis=1)) == pytest.approx(expected)


def test_interval_over_episodes_equals_drawing_them_one_by_one():
    random = np.random.default_rng(3)
    values = random.integers(0, 2, (2, 60)).astype(float)
    means = []
    for _ in range(4000):
        seeds, episodes = random.integers(0, 2, 2), random.integers(0, 60, 60)
        means.append(values[np.ix_(seeds, episodes)].mean())
    expected = np.quantile(means, [0.025, 0.975])
    assert two_level_interval(values) == pytest.approx(expected, abs=0.02)


def test_seeds_that_agree_are_not_more_episodes():
    one = np.random.default_rng(0).integers(0, 2, (1, 100))
    narrow = np.ptp(two_level_interval(one))
    assert np.ptp(two_level_interval(np.repeat(one, 5, axis=0))) == pytest.approx(narrow, rel=0.05)


def test_interval_is_a_function_of_values_and_seed():
    values = np.random.default_rng(1).integers(-1, 2, (3, 50))
    assert two_level_interval(values) == two_level_interval(values)
    assert two_level_interval(values) != two_level_interval(values, seed=1)
    assert two_level_interval(-values) == pytest.approx(
        [-x for x in two_level_interval(values)][::-1]
    )
    with pytest.raises(ValueError):
        two_level_interval(values[0])


@pytest.mark.parametrize("b, c", [(0, 0), (1, 0), (8, 1), (3, 9), (5, 5)])
def test_mcnemar_is_the_two_tailed_sum_of_coin_tosses(b, c):
    first = np.array([[1] * b + [0] * c + [1, 1, 0]])
    second = np.array([[0] * b + [1] * c + [1, 1, 0]])
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar_exact(first, second) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar_exact(second, first) == pytest.approx(mcnemar_exact(first, second))


def test_mcnemar_needs_pairs():
    with pytest.raises(ValueError):
        mcnemar_exact(np.zeros((1, 3)), np.zeros((1, 4)))
