"""The distance between the simulated base and its twin: small, and found where it is made large."""

from __future__ import annotations

import numpy as np
import pytest
from _twin_error import TwinErrors, twin_errors

from embodied_rl.core.errors import UserError

TICKS = 5


def targets(now: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Speed in a ramp, turn at an even rate, over the five ticks of half a second."""
    turn = np.remainder(after[2] - now[2] + np.pi, 2 * np.pi) - np.pi
    speeds = now[3] + (after[3] - now[3]) * np.arange(1, TICKS + 1) / TICKS
    return np.stack([speeds, np.full(TICKS, turn / 0.5)], axis=1)


@pytest.fixture(scope="module")
def sound() -> TwinErrors:
    return twin_errors(targets, "unicycle_00", count=1)


def test_a_step_is_near_that_of_the_twin_and_drift_begins_at_zero(sound):
    assert sound.step_m.shape == sound.step_rad.shape == (1, 64)
    assert sound.drift_m.shape == sound.drift_rad.shape == (1, 65)
    assert sound.drift_m[0, 0] == sound.drift_rad[0, 0] == 0
    # half of a second of half of 1 m/s^2 is what the ramp is ahead of the twin's speed
    assert 0 < np.median(sound.step_m) < 0.125 and np.median(sound.step_rad) < 0.05
    assert sound.drift_m[0, -1] > np.median(sound.step_m)


def test_a_base_that_turns_too_little_is_found(sound):
    def lame(now: np.ndarray, after: np.ndarray) -> np.ndarray:
        return targets(now, after) * [1.0, 0.5]

    found = twin_errors(lame, "unicycle_00", count=1)
    assert np.median(found.step_rad) > 5 * np.median(sound.step_rad)
    assert found.drift_rad[0, -1] > 5 * sound.drift_rad[0, -1]


def test_a_task_for_another_robot_is_refused():
    with pytest.raises(UserError, match="expects dynamics unicycle"):
        twin_errors(targets, "linear_00")
