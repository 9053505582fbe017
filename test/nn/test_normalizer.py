import numpy as np
import pytest
import torch

from embodied_rl.nn.normalizer import MinMax


def test_round_trip_and_range():
    rows = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 10.0, 0.1]
    limits = MinMax(3)
    limits.fit(rows)
    x = torch.from_numpy(rows).float()
    y = limits(x)
    low, high = rows.min(0), rows.max(0)
    expected = (rows - low) / (high - low) * 2 - 1
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(limits.inverse(y).numpy(), rows, atol=1e-5)


def test_constant_dimension_stays_near_zero():
    rows = np.full((10, 2), 0.4)
    rows[:, 1] += np.linspace(0, 1e-6, 10)
    limits = MinMax(2)
    limits.fit(rows, min_range=1e-3)
    y = limits(torch.from_numpy(rows).float())
    assert y.abs().max() < 1e-2
    torch.testing.assert_close(limits.inverse(y), torch.from_numpy(rows).float())


@pytest.mark.parametrize("rows", [np.zeros((0, 2)), np.zeros((4, 3)), np.full((4, 2), np.nan)])
def test_unsound_rows_are_refused(rows):
    with pytest.raises(ValueError):
        MinMax(2).fit(rows)
