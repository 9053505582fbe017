"""Streams of a lidar: the file, what its messages mean, and what is refused."""

from __future__ import annotations

import array
import math
from types import SimpleNamespace as Msg

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.decode import decode
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import MessageError, UserError
from embodied_rl.core.schema import Section
from embodied_rl.core.signals import parse_signals
from embodied_rl.core.window import Sample, missing_value

SCAN = {
    "topic": "scan",
    "type": "sensor_msgs/msg/LaserScan",
    "beams": 8,
    "angle_min_rad": -math.pi,
    "angle_increment_rad": math.tau / 8,
    "range_min_m": 0.1,
    "range_max_m": 5.0,
    "rate_hz": 10,
    "max_age_s": 0.2,
}
BASE = {
    "topic": "cmd_vel",
    "type": "geometry_msgs/msg/Twist",
    "dimensions": ["linear_x"],
    "lower": [-1],
    "upper": [1],
    "max_acceleration": [1],
}


def body(**changes: object) -> Embodiment:
    """A robot with a lidar; keys of its stream set, or taken out with None."""
    scan = {key: value for key, value in (SCAN | changes).items() if value is not None}
    data = {"name": "rover", "control_rate_hz": 10, "streams": {"scan": scan}}
    return Embodiment.parse(yaml.safe_dump(data | {"commands": {"base": BASE}}), "rover.yaml")


STREAM = body().streams["scan"]


def scan_message(ranges: list[float], sec: int = 12, **changes: object) -> Msg:
    fields = {
        "header": Msg(stamp=Msg(sec=sec, nanosec=345), frame_id="base_link"),
        "angle_min": float(np.float32(-math.pi)),
        "angle_max": float(np.float32(0.75 * math.pi)),
        "angle_increment": float(np.float32(math.tau / 8)),
        "range_min": float(np.float32(0.1)),
        "range_max": 5.0,
        "ranges": array.array("f", ranges),
        "intensities": array.array("f"),
    }
    return Msg(**fields | changes)


# The file


def test_the_stream_has_a_number_for_each_beam():
    assert (STREAM.shape, STREAM.dtype, STREAM.unit) == ((8,), "float32", "m")
    assert STREAM.components == () and STREAM.field == ""
    degrees = np.rad2deg(STREAM.scan.angles_rad)
    np.testing.assert_allclose(degrees, [-180, -135, -90, -45, 0, 45, 90, 135], atol=1e-12)
    assert np.isnan(missing_value(STREAM)).all() and missing_value(STREAM).dtype == np.float32


@pytest.mark.parametrize("key", [key for key in SCAN if key not in ("topic", "type")])
def test_a_missing_key_is_named(key):
    with pytest.raises(UserError, match=rf"^rover\.yaml: streams\.scan\.{key}: missing$"):
        body(**{key: None})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beams": 0}, "beams: expected a whole number above 0, saw 0"),
        ({"beams": 8.0}, "beams: expected a whole number above 0, saw 8.0"),
        ({"beams": True}, "beams: expected a whole number above 0, saw True"),
        ({"angle_min_rad": "-pi"}, "angle_min_rad: expected a number, saw '-pi'"),
        ({"angle_min_rad": math.nan}, "angle_min_rad: expected a finite number"),
        ({"angle_increment_rad": -0.1}, "angle_increment_rad: expected a finite number above 0"),
        ({"beams": 10}, "angle_increment_rad: expected at most 0.698132 rad, for 10 beams"),
        ({"range_min_m": 0}, "range_min_m: expected a finite number above 0"),
        ({"range_min_m": 5.0}, "range_min_m: expected a range below range_max_m = 5, saw 5"),
        ({"range_min_m": 1e-60}, "range_min_m: expected a range below"),  # 0 as float32
        ({"unit": "cm"}, "unit: expected 'm', the unit of every scan, saw 'cm'"),
        ({"shape": [8]}, "shape: unknown key"),
        ({"field": "ranges"}, "field: unknown key"),
        ({"angle_max_rad": 3.1}, "angle_max_rad: unknown key"),
    ],
)
def test_a_wrong_scan_is_refused_in_one_line(changes, said):
    with pytest.raises(UserError) as caught:
        body(**changes)
    assert str(caught.value).startswith("rover.yaml: streams.scan.") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_beams_may_meet_at_the_back_but_not_overlap():
    assert body(beams=9).streams["scan"].scan.angles_rad[-1] == pytest.approx(math.pi)
    assert body(beams=1).streams["scan"].shape == (1,)


def test_the_hash_tells_scans_apart():
    """A network learns where each number points and what the largest of them means."""
    known = body().contract_hash(["scan"])
    assert body(topic="lidar/scan", rate_hz=20).contract_hash(["scan"]) == known
    others = {"beams": 7, "angle_min_rad": 0.0, "angle_increment_rad": 0.7}
    others |= {"range_min_m": 0.2, "range_max_m": 6.0}
    hashes = {body(**{key: value}).contract_hash(["scan"]) for key, value in others.items()}
    assert len(hashes | {known}) == len(others) + 1


def test_a_scan_is_no_signal():
    data = {"signals": {"ahead": {"stream": "scan", "norm": "all"}}}
    with pytest.raises(UserError, match="stream: expected numbers, .* saw sensor_msgs/msg/LaserS"):
        parse_signals(Section("spec.yaml", "", data).children("signals"), body())


# Messages


def test_every_answer_of_rep_117_has_its_reading():
    inf, nan = math.inf, math.nan
    sample = decode(STREAM, scan_message([1.5, inf, -inf, nan, 0.0, 0.05, 5.001, 5.0]))
    assert sample.stamp_ns == 12_000_000_345
    low, high = float(np.float32(0.1)), 5.0
    assert sample.value.tolist() == [1.5, high, low, 0.0, low, low, high, high]
    assert sample.value.dtype == np.float32


def test_the_sample_owns_its_memory():
    message = scan_message([1.0] * 8)
    message.ranges = np.ones(8, dtype=np.float32)  # as of a bag
    sample = decode(STREAM, message)
    message.ranges[:] = 2.0
    assert sample.value.tolist() == [1.0] * 8


ANGLES = "expected beams from -3.14159 rad every 0.785398 rad, saw from "
RANGES = "expected ranges from 0.1 m or nearer to 5 m or farther, saw from "


@pytest.mark.parametrize(
    ("ranges", "changes", "said"),
    [
        ([1.0] * 7, {}, "expected 8 beams, saw 7"),
        ([1.0] * 9, {}, "expected 8 beams, saw 9"),
        ([], {}, "expected 8 beams, saw 0"),
        ([1.0] * 8, {"angle_min": 0.0}, ANGLES + "0 every 0.785398"),
        ([1.0] * 8, {"angle_min": math.pi}, ANGLES + "3.14159 every 0.785398"),
        ([1.0] * 8, {"angle_min": math.nan}, ANGLES + "nan every 0.785398"),
        ([1.0] * 8, {"angle_increment": math.nan}, ANGLES + "-3.14159 every nan"),
        ([1.0] * 8, {"angle_increment": -math.tau / 8}, ANGLES + "-3.14159 every -0.785398"),
        ([1.0] * 8, {"angle_increment": math.tau / 7}, ANGLES + "-3.14159 every 0.897598"),
        ([1.0] * 8, {"range_max": 3.5}, RANGES + "0.1 to 3.5 m"),
        ([1.0] * 8, {"range_max": math.nan}, RANGES + "0.1 to nan m"),
        ([1.0] * 8, {"range_min": 0.2}, RANGES + "0.2 to 5 m"),
        ([1.0] * 8, {"range_min": math.nan}, RANGES + "nan to 5 m"),
        ([1.0] * 8, {"sec": -1}, "expected a stamp in the header"),
    ],
)
def test_another_sensor_than_the_file_says_is_refused(ranges, changes, said):
    with pytest.raises(MessageError) as caught:
        decode(STREAM, scan_message(ranges, **changes))
    assert str(caught.value).startswith(f"scan: {said}") and "\n" not in str(caught.value)


def test_a_sensor_may_see_farther_and_may_state_its_last_angle_as_it_likes():
    wide = scan_message([0.07, 6.0] * 4, range_min=0.02, range_max=12.0, angle_max=math.pi)
    low = float(np.float32(0.1))
    assert decode(STREAM, wide).value.tolist() == [low, 5.0] * 4
    # a beam may point elsewhere by a tenth of the angle between two
    near, off = (-math.pi + share * math.tau / 8 for share in (0.09, 0.11))
    decode(STREAM, scan_message([1.0] * 8, angle_min=near))
    with pytest.raises(MessageError):
        decode(STREAM, scan_message([1.0] * 8, angle_min=off))


@given(st.lists(st.floats(width=32) | st.floats(0, 6, width=32), min_size=8, max_size=8))
def test_readings_are_within_the_limits_and_survive_the_message(ranges):
    first = decode(STREAM, scan_message(ranges))
    known = first.value[first.value != 0]
    assert ((known >= np.float32(0.1)) & (known <= 5)).all()
    assert (first.value == 0).tolist() == [math.isnan(value) for value in ranges]
    reported = STREAM.scan.ranges(first.value)
    assert reported.dtype == np.float32
    # REP 117: what is no distance is infinite or not a number
    finite = np.isfinite(reported)
    assert ((reported[finite] > np.float32(0.1)) & (reported[finite] < 5)).all()
    again: Sample = decode(STREAM, scan_message(reported.tolist()))
    assert again.value.tobytes() == first.value.tobytes()
