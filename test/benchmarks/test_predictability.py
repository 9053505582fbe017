"""Predictability of the next action, on paths whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from _predictability import path_range, prediction_error


def paths(step: float, count: int = 60) -> list[np.ndarray]:
    """Random walks in [-1, 1]^3 whose steps have standard deviation `step`."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        walk = [random.uniform(-1, 1, 3)]
        for _ in range(50):
            walk.append(np.clip(walk[-1] + random.normal(0, step, 3), -1, 1))
        found.append(np.array(walk))
    return found


def test_error_is_the_variance_of_what_cannot_be_known():
    low, high = -np.ones(3), np.ones(3)
    noise = list(np.random.default_rng(1).uniform(-1, 1, (60, 50, 3)))
    assert prediction_error(noise, low, high) == pytest.approx(1 / 3, rel=0.1)
    assert prediction_error(paths(0.1), low, high) == pytest.approx(0.01, rel=0.25)


def test_a_policy_that_jitters_is_less_predictable_than_the_expert():
    low, high = path_range(paths(0.05))
    calm, jittery = (prediction_error(paths(step), low, high) for step in (0.05, 0.3))
    assert calm / jittery < 0.2


def test_error_does_not_depend_on_the_unit():
    walks = paths(0.1, 20)
    in_mm = [1000 * walk for walk in walks]
    expected = prediction_error(walks, *path_range(walks))
    assert prediction_error(in_mm, *path_range(in_mm)) == pytest.approx(expected, rel=1e-3)


def test_one_trajectory_is_too_few():
    with pytest.raises(ValueError, match="two trajectories or more, saw 1"):
        prediction_error([np.zeros((5, 3)), np.zeros((1, 3))], -np.ones(3), np.ones(3))
