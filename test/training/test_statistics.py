import pytest
from scipy.stats import binomtest

from embodied_rl.training.statistics import wilson_interval


@pytest.mark.parametrize("k, n", [(0, 1), (0, 20), (1, 20), (100, 200), (187, 200), (200, 200)])
def test_wilson_equals_scipy(k, n):
    theirs = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("k, n", [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts(k, n):
    with pytest.raises(ValueError):
        wilson_interval(k, n)
