import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm, sem

from embodied_rl.training.statistics import mean_interval, wilson_interval


@pytest.mark.parametrize("k, n", [(0, 1), (0, 20), (1, 20), (100, 200), (187, 200), (200, 200)])
def test_wilson_equals_scipy(k, n):
    theirs = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("k, n", [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts(k, n):
    with pytest.raises(ValueError):
        wilson_interval(k, n)


def test_mean_interval_equals_scipy_and_covers():
    random = np.random.default_rng(0)
    values = random.exponential(size=40)
    mean, low, high = mean_interval(values)
    theirs = norm.interval(0.95, values.mean(), sem(values))
    assert (mean, low, high) == pytest.approx((values.mean(), *theirs), abs=1e-12)
    found = np.array([mean_interval(row) for row in random.normal(size=(2000, 40))])
    covered = np.mean((found[:, 1] <= 0) & (found[:, 2] >= 0))
    assert 0.93 < covered < 0.96
    assert mean_interval(np.array([2.0])) == (2.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval(np.array([]))
