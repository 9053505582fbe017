"""Keys of a stream in the embodiment file: defaults, limits, and what the contract takes in."""

from __future__ import annotations

import pytest
from core_cases import changed, robot

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError


def load(path, value):
    return Embodiment.parse(changed(path, value), "planar.yaml")


def test_time_keys_have_harmless_defaults():
    arm = robot().streams["arm"]
    assert (arm.latency_ns, arm.stamps, arm.stuck_after_s) == (0, "header", None)


def test_time_keys_are_read_and_leave_the_contract_alone():
    camera = load("streams.camera.latency_s", 0.09)
    assert camera.streams["camera"].latency_ns == 90_000_000
    assert load("streams.camera.stamps", "receive").streams["camera"].stamps == "receive"
    assert load("streams.arm.stuck_after_s", 1.5).streams["arm"].stuck_after_s == 1.5
    assert camera.contract_hash(["camera"]) == robot().contract_hash(["camera"])


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("latency_s", -0.1, "streams.camera.latency_s: expected a number of 0 or more"),
        ("latency_s", 0.21, r"camera.max_age_s: expected .* and latency_s \(0.31 s\), saw 0.3"),
        ("stamps", "arrival", r"streams.camera.stamps: expected one of \['header', 'receive'\]"),
        ("stuck_after_s", 0, "streams.camera.stuck_after_s: expected a finite number above 0"),
    ],
)
def test_unsound_time_keys_are_refused(key, value, line):
    with pytest.raises(UserError, match=line):
        load(f"streams.camera.{key}", value)
