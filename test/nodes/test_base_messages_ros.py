"""Messages of a mobile base there and back: live, and through the bytes that a bag holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402

from embodied_rl.bags.messages import Decoder  # noqa: E402
from embodied_rl.core.decode import decode, stamp_ns  # noqa: E402
from embodied_rl.core.decode_commands import read_targets  # noqa: E402
from embodied_rl.core.embodiment import ODOMETRY, Embodiment  # noqa: E402
from embodied_rl.core.heading import wrapped  # noqa: E402
from embodied_rl.core.policy import ActionChunk  # noqa: E402
from embodied_rl.core.window import Sample  # noqa: E402
from embodied_rl.nodes import messages  # noqa: E402

ODOM = "topic: odom, type: nav_msgs/msg/Odometry, rate_hz: 50, max_age_s: 0.1"
ROBOT = f"""
name: rover
control_rate_hz: 10
base_frame: odom
streams:
  place: {{{ODOM}, field: position}}
  yaw: {{{ODOM}, field: yaw}}
  speed: {{{ODOM}, field: linear_velocity}}
  turning: {{{ODOM}, field: angular_velocity}}
commands:
  base: {{topic: cmd_vel, type: geometry_msgs/msg/KIND, dimensions: [linear_x, angular_z],
         lower: [-1, -1], upper: [2, 1], max_acceleration: [1, 1]}}
"""
BODY = Embodiment.parse(ROBOT.replace("KIND", "TwistStamped"))
STAMP_NS = 7_000_000_123
NUMBERS = st.floats(-1e6, 1e6)
VECTORS = st.tuples(NUMBERS, NUMBERS, NUMBERS)


@given(place=VECTORS, speed=VECTORS, turning=VECTORS, yaw=st.floats(-4, 4))
def test_an_odometry_comes_back_bit_for_bit_live_and_from_bytes(place, speed, turning, yaw):
    values = {"place": place, "yaw": (wrapped(yaw),), "speed": speed, "turning": turning}
    samples = {key: Sample(STAMP_NS, np.array(value)) for key, value in values.items()}
    live = messages.encode_topic(list(BODY.streams.values()), samples, "odom")
    assert live.header.frame_id == "odom" and live.child_frame_id == "base_link"
    recorded = Decoder()("odom", ODOMETRY, serialize_message(live))
    for message in (live, recorded):
        for key, stream in BODY.streams.items():
            found = decode(stream, message)
            assert found.stamp_ns == STAMP_NS
            assert found.value.tolist() == list(values[key])


def test_a_whole_orientation_is_sent_in_place_of_its_yaw():
    both = Embodiment.parse(ROBOT.replace("KIND", "Twist").replace("place", "turn").replace(
        "field: position", "field: orientation"
    ))  # fmt: skip
    turn = np.array([0.5, 0.5, 0.5, 0.5])
    samples = {"turn": Sample(1, turn), "yaw": Sample(1, np.array([0.1]))}
    streams = [both.streams[key] for key in samples]
    message = messages.encode_topic(streams, samples, "odom")
    assert decode(both.streams["turn"], message).value.tolist() == turn.tolist()


@pytest.mark.parametrize("kind", ["TwistStamped", "Twist"])
def test_a_velocity_command_comes_back_live_and_from_bytes(kind):
    command = Embodiment.parse(ROBOT.replace("KIND", kind)).commands["base"]
    chunk = ActionChunk(STAMP_NS, 100, np.array([[9.0, 0.3, -0.7], [9.0, 8.0, 7.0]]))
    live = messages.command_message(command, chunk, slice(1, 3))
    recorded = Decoder()("cmd_vel", command.type, serialize_message(live))
    for message in (live, recorded):
        assert read_targets(message, command).tolist() == [0.3, -0.7]
        if kind == "TwistStamped":
            assert stamp_ns(message.header) == STAMP_NS
            assert message.header.frame_id == "base_link"
        twist = message.twist if kind == "TwistStamped" else message
        others = [twist.linear.y, twist.linear.z, twist.angular.x, twist.angular.y]
        assert others == [0.0] * 4


def test_what_an_odometry_carries_is_finite_or_refused():
    samples = {"yaw": Sample(1, np.array([math.nan]))}
    message = messages.encode_topic([BODY.streams["yaw"]], samples, "odom")
    with pytest.raises(Exception, match="unit quaternion"):
        decode(BODY.streams["yaw"], message)
