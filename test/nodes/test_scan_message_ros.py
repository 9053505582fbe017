"""A scan as the simulator sends it: live, through the bytes of a bag, and for other readers."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import serialize_message  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402

from embodied_rl.bags.messages import Decoder  # noqa: E402
from embodied_rl.bags.read import Bag  # noqa: E402
from embodied_rl.bags.write import BagWriter  # noqa: E402
from embodied_rl.core.decode import decode  # noqa: E402
from embodied_rl.core.embodiment import LASER_SCAN, Embodiment  # noqa: E402
from embodied_rl.core.window import Sample  # noqa: E402
from embodied_rl.nodes import messages  # noqa: E402

ROBOT = """
name: rover
control_rate_hz: 10
base_frame: odom
streams:
  scan: {topic: scan, type: sensor_msgs/msg/LaserScan, beams: 360,
         angle_min_rad: -3.141592653589793, angle_increment_rad: 0.017453292519943295,
         range_min_m: 0.05, range_max_m: 8.0, rate_hz: 10, max_age_s: 0.2}
commands:
  base: {topic: cmd_vel, type: geometry_msgs/msg/TwistStamped, dimensions: [linear_x, angular_z],
         lower: [-1, -1], upper: [1, 1], max_acceleration: [1, 1]}
"""
STREAM = Embodiment.parse(ROBOT, "rover.yaml").streams["scan"]
STAMP_NS = 7_000_000_123


def readings() -> np.ndarray:
    values = np.random.default_rng(0).uniform(0.05, 8, 360).astype(np.float32)
    values[3], values[5:9], values[9] = 0.05, 8.0, 0.0
    return values


def test_a_scan_comes_back_bit_for_bit_live_and_from_a_bag(tmp_path):
    sent = Sample(STAMP_NS, readings())
    live = messages.encode_topic([STREAM], {"scan": sent}, "odom")
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/scan", LASER_SCAN)
    writer.write("/scan", STAMP_NS + 5, serialize_message(live))
    with Bag.open(writer.close()) as bag:
        (raw,) = bag.messages()
        recorded = Decoder(bag.topics.values())("/scan", LASER_SCAN, raw.data)
    for message in (live, recorded):
        found = decode(STREAM, message)
        assert found.stamp_ns == STAMP_NS and found.value.dtype == np.float32
        assert found.value.tobytes() == sent.value.tobytes()


def test_other_readers_find_what_rep_117_and_the_message_say(tmp_path):
    live = messages.encode_topic([STREAM], {"scan": Sample(STAMP_NS, readings())}, "odom")
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/scan", LASER_SCAN)
    writer.write("/scan", STAMP_NS, serialize_message(live))
    with AnyReader([writer.close()]) as reader:
        ((connection, _, data),) = reader.messages()
        found = reader.deserialize(data, connection.msgtype)
    assert found.header.frame_id == "base_link"  # not the odometry's
    assert found.angle_min == pytest.approx(-math.pi, rel=1e-7)
    assert found.angle_increment == pytest.approx(math.tau / 360, rel=1e-7)
    assert found.angle_max == pytest.approx(math.pi - math.tau / 360, rel=1e-7)
    assert (found.range_min, found.range_max) == (np.float32(0.05), 8.0)
    assert (found.scan_time, found.time_increment) == (np.float32(0.1), 0.0)
    assert found.ranges[3] == -math.inf and math.isnan(found.ranges[9])
    assert (found.ranges[5:9] == math.inf).all() and len(found.intensities) == 0
    np.testing.assert_array_equal(found.ranges[10:], readings()[10:])
