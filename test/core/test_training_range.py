"""Observations where a policy was trained, and where it was not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from core_cases import robot, spec

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import check_fits
from embodied_rl.core.training_range import TrainingRange
from embodied_rl.core.window import Observation

BODY = robot()
LOW, HIGH = np.array([-1.0, 0.5]), np.array([1.0, 0.5])  # the elbow never moved in training


class Trained:
    spec = spec({"arm": (2,), "thing": (3,)})

    def observed_range(self):
        return {"arm": (LOW, HIGH)}


def row(shoulder: float, elbow: float, valid: bool = True) -> Observation:
    values = {"arm": np.array([shoulder, elbow]), "thing": np.full(3, 1e9)}
    return Observation(0, values, {"arm": valid, "thing": True})


@pytest.mark.parametrize(
    ("shoulder", "elbow", "outside", "far"),
    [
        (0.0, 0.5, False, ""),
        (1.19, 0.51, False, ""),  # a tenth of the width, or the floor, beyond
        (-1.3, 0.5, True, ""),
        (0.0, 0.55, True, ""),
        (0.0, 0.5 + 2 * np.pi, True, "elbow"),
        (-3.1, 0.5, True, "shoulder"),  # more than the width beyond
    ],
)
def test_outside_is_counted_and_far_outside_is_refused(shoulder, elbow, outside, far):
    watch = TrainingRange(Trained(), BODY)
    watch.saw(row(shoulder, elbow))
    assert watch.outside["arm"] == outside and bool(watch.warning) == outside
    watch.saw(row(99, 99, valid=False))
    assert watch.outside["arm"] == outside, "what is not valid was not seen"
    if far:
        value = {"shoulder": shoulder, "elbow": elbow}[far]
        with pytest.raises(UserError, match=rf"'arm'.*{far}: expected .* saw {value:.3g} rad"):
            watch.require(row(shoulder, elbow).values)
    else:
        watch.require(row(shoulder, elbow).values)


def test_a_policy_without_a_range_refuses_nothing():
    class Plain:
        spec = Trained.spec

    watch = TrainingRange(Plain(), BODY)
    watch.saw(row(1e6, 1e6))
    watch.require(row(1e6, 1e6).values)
    assert not watch.warning and not watch.figures()


def test_a_policy_of_another_robot_is_refused_in_one_line():
    keys = ("arm", "thing")
    fitting = dataclasses.replace(Trained.spec, embodiment_hash=BODY.contract_hash(keys))
    check_fits(fitting, BODY)
    other = dataclasses.replace(
        fitting, embodiment="lifter", embodiment_hash="0" * 16, rate_hz=50.0, action_dim=7
    )
    with pytest.raises(UserError, match="'lifter', not for 'planar'.*50 Hz.*10 Hz.*7 inst") as said:
        check_fits(other, BODY)
    assert "\n" not in str(said.value) and "0000" in str(said.value)
    for change, word in (
        ({"streams": {"arm": (3,), "thing": (3,)}}, r"shape \[3\]"),
        ({"streams": {"leg": (2,)}}, "no stream 'leg'"),
        ({"embodiment_hash": ""}, "contract none"),
    ):
        with pytest.raises(UserError, match=word):
            check_fits(dataclasses.replace(fitting, **change), BODY)
