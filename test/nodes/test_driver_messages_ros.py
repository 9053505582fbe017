"""Messages of many drivers: the same sample from a live message and from its recorded bytes."""

from __future__ import annotations

import io
import struct
from array import array

import numpy as np
import pytest
import yaml
from PIL import Image as Pillow

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402

from embodied_rl.bags.actions import ActionLog  # noqa: E402
from embodied_rl.bags.messages import Decoder, standard_types  # noqa: E402
from embodied_rl.core.decode import decode  # noqa: E402
from embodied_rl.core.decode_commands import read_targets, target_stamp_ns  # noqa: E402
from embodied_rl.core.embodiment import Embodiment  # noqa: E402
from embodied_rl.core.errors import UserError  # noqa: E402
from embodied_rl.core.policy import ActionChunk  # noqa: E402
from embodied_rl.core.window import Sample  # noqa: E402
from embodied_rl.nodes import messages  # noqa: E402

RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 255, (4, 6, 3), dtype=np.uint8)
FINGER = {"topic": "grip", "joints": ["f"], "lower": [0], "upper": [1], "max_velocity": [1]}


def body(prefix="", command=None, **stream):
    arm = {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "field": "position",
           "joints": ["f"], "unit": "rad"}  # fmt: skip
    streams = {"arm": arm, **({"it": {"topic": "it", **stream}} if stream else {})}
    for keys in streams.values():
        keys |= {"rate_hz": 10, "max_age_s": 0.3}
    command = {"type": "std_msgs/msg/Float64", **FINGER, **(command or {})}
    data = {"name": "own", "control_rate_hz": 10, "prefix": prefix, "streams": streams,
            "commands": {"grip": command}}  # fmt: skip
    return Embodiment.parse(yaml.safe_dump(data), "own.yaml")


def jpeg():
    file = io.BytesIO()
    Pillow.fromarray(PIXELS).save(file, "JPEG")
    return array("B", file.getvalue())


def xyz(part, *values):
    for axis, value in zip("xyzw", values, strict=False):
        setattr(part, axis, value)


def filled(kind):
    """A live message with something in every part that a stream can take."""
    message = messages.message_class(kind)()
    if hasattr(message, "header"):
        message.header.stamp.sec, message.header.frame_id = 7, "base_link"
    name = kind.split("/")[-1]
    if name == "CompressedImage":
        message.format, message.data = "jpeg", jpeg()
    elif name == "Image":
        rows = np.hstack([PIXELS.reshape(4, 18), RANDOM.integers(0, 9, (4, 6), dtype=np.uint8)])
        message.height, message.width, message.step, message.encoding = 4, 6, 24, "bgr8"
        message.data = array("B", rows.tobytes())
    elif name == "Imu":
        xyz(message.orientation, 0.0, 0.6, 0.0, 0.8)
        xyz(message.linear_acceleration, 0.1, 0.2, 9.8)
    elif name == "WrenchStamped":
        xyz(message.wrench.torque, 1.0, 2.0, 3.0)
    elif name == "TwistStamped":
        xyz(message.twist.angular, 1.0, 2.0, 3.0)
    elif name == "PoseWithCovarianceStamped":
        xyz(message.pose.pose.orientation, 0.0, 0.0, 0.6, 0.8)
    elif name == "Joy":
        message.axes, message.buttons = array("f", [0.1, -0.5]), array("i", [1, 0])
    elif name in ("Float64", "Float32"):
        message.data = 0.1
    elif name == "Float64MultiArray":
        message.data = array("d", [0.1, 0.2])
    elif name == "PointCloud2":
        field = messages.message_class("sensor_msgs/msg/PointField")
        message.fields = [field(name=n, offset=4 * i, datatype=7, count=1)
                          for i, n in enumerate("xyz")]  # fmt: skip
        message.height, message.width, message.point_step, message.row_step = 1, 2, 12, 24
        message.data = array("B", struct.pack("<6f", *range(6)))
    return message


STREAMS = [
    {"type": "sensor_msgs/msg/CompressedImage", "encoding": "rgb8", "shape": [4, 6, 3]},
    {"type": "sensor_msgs/msg/Image", "encoding": "rgb8", "shape": [4, 6, 3],
     "source_encoding": "bgr8"},
    {"type": "sensor_msgs/msg/Imu", "field": "orientation"},
    {"type": "sensor_msgs/msg/Imu", "field": "linear_acceleration"},
    {"type": "geometry_msgs/msg/WrenchStamped", "field": "torque"},
    {"type": "geometry_msgs/msg/TwistStamped", "field": "angular_velocity"},
    {"type": "geometry_msgs/msg/PoseWithCovarianceStamped", "field": "yaw"},
    {"type": "sensor_msgs/msg/Joy", "field": "axes", "names": ["x", "y"]},
    {"type": "sensor_msgs/msg/Joy", "field": "buttons", "names": ["a", "b"]},
    {"type": "std_msgs/msg/Float64", "stamps": "receive"},
    {"type": "std_msgs/msg/Float32", "stamps": "receive"},
    {"type": "std_msgs/msg/Float64MultiArray", "stamps": "receive", "names": ["x", "y"]},
    {"type": "sensor_msgs/msg/PointCloud2", "channels": ["x", "z"], "shape": [3, 2]},
]  # fmt: skip


@pytest.mark.parametrize("keys", STREAMS, ids=lambda keys: keys["type"].split("/")[-1])
def test_live_and_recorded_messages_give_the_same_sample(keys):
    stream = body(**keys).streams["it"]
    data = serialize_message(filled(stream.type))
    live = deserialize_message(data, messages.message_class(stream.type))
    recorded = Decoder()("it", stream.type, data)
    first, second = (decode(stream, message, 7 * 10**9) for message in (live, recorded))
    assert first.stamp_ns == second.stamp_ns == 7 * 10**9
    assert first.value.shape == stream.shape and first.value.dtype == np.dtype(stream.dtype)
    assert first.value.tobytes() == second.value.tobytes() and first.value.any()


@pytest.mark.parametrize("kind", ["std_msgs/msg/Float64", "sensor_msgs/msg/JointState"])
def test_commands_come_back_as_they_were_sent(kind):
    command = body("left_", {"type": kind}).commands["grip"]
    chunk = ActionChunk(7 * 10**9, 10**8, np.array([[0.25], [0.5]]))
    live = messages.command_message(command, chunk, slice(0, 1))
    recorded = Decoder()("grip", kind, serialize_message(live))
    for message in (live, recorded):
        assert read_targets(message, command).tolist() == [0.25]
    assert target_stamp_ns(recorded, command) == (7 * 10**9 if "Joint" in kind else 0)
    if "Joint" in kind:
        assert list(live.name) == ["left_f"]


@pytest.mark.parametrize("turn", [[], [0.3, -0.2, 1.1]])
def test_a_tool_pose_comes_back_as_it_was_sent(turn):
    width = 3 + len(turn)
    pose = {"topic": "target_frame", "type": "geometry_msgs/msg/PoseStamped",
            "dimensions": ["x", "y", "z", "rx", "ry", "rz"][:width],
            "orientation": [0, 0.6, 0, 0.8], "max_velocity": [1] * width,
            "lower": [-1.2] * width, "upper": [1.2] * width}  # fmt: skip
    file = body(type="geometry_msgs/msg/PoseStamped", field="position").text
    data = yaml.safe_load(file)
    data["streams"]["way"] = {**data["streams"]["it"], "field": "orientation"}
    data["commands"] = {"tool": pose}
    command = Embodiment.parse(yaml.safe_dump(data), "own.yaml").commands["tool"]
    wanted = np.array([0.25, -0.5, 0.75, *turn])
    chunk = ActionChunk(7 * 10**9, 10**8, wanted[None])
    live = messages.command_message(command, chunk, slice(0, width))
    recorded = Decoder()("tool", command.type, serialize_message(live))
    for message in (live, recorded):
        assert read_targets(message, command) == pytest.approx(wanted, abs=1e-12)
        assert target_stamp_ns(message, command) == 7 * 10**9
    assert live.header.frame_id == "base_link"
    # a bag's reader makes the action of it as of every other target that is in force at once
    log = ActionLog(Embodiment.parse(yaml.safe_dump(data), "own.yaml"), executed=False)
    log.add("tool", command.topic, recorded, 7 * 10**9 + 5, 0)
    values, valid = log.actions(np.array([7 * 10**9]), 7 * 10**9, lambda log_ns: log_ns)
    assert valid.all() and values[0] == pytest.approx(wanted, abs=1e-12)


def test_a_trajectory_carries_the_prefix_of_its_robot():
    kind = "trajectory_msgs/msg/JointTrajectory"
    command = body("left_", {"type": kind}).commands["grip"]
    chunk = ActionChunk(7 * 10**9, 10**8, np.array([[0.25], [0.5]]))
    message = messages.command_message(command, chunk, slice(0, 1))
    assert message.joint_names == ["left_f"]


def test_joint_states_are_sent_as_the_file_reads_them():
    robot = body("left_")
    sample = Sample(7 * 10**9, np.array([0.25]))
    message = messages.encode_topic([robot.streams["arm"]], {"arm": sample}, "base_link")
    assert message.name == ["left_f"]
    assert decode(robot.streams["arm"], message).value.tolist() == [0.25]


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "mono16"])
def test_a_simulator_sends_compressed_pictures_without_loss(encoding):
    pixels = RANDOM.integers(0, 255, (4, 6, 3) if encoding == "rgb8" else (4, 6))
    pixels = pixels.astype("uint16" if encoding == "mono16" else "uint8")
    stream = body(type="sensor_msgs/msg/CompressedImage", encoding=encoding,
                  shape=list(pixels.shape)).streams["it"]  # fmt: skip
    message = messages.encode_topic([stream], {"it": Sample(7 * 10**9, pixels)}, "eye")
    np.testing.assert_array_equal(decode(stream, message).value, pixels)
    other = body(type="sensor_msgs/msg/Joy", field="axes", names=["x"]).streams["it"]
    with pytest.raises(UserError, match="streams.it.type: expected one that a simulator sends"):
        messages.encode_topic([other], {"it": Sample(7 * 10**9, np.zeros(1))}, "")


def test_a_type_whose_package_is_missing_is_named():
    with pytest.raises(UserError, match="expected the ROS package 'absent_msgs' .*absent-msgs"):
        messages.message_class("absent_msgs/msg/Thing")


def test_a_gripper_command_has_the_bytes_of_its_definition():
    store = standard_types()
    kind = "control_msgs/msg/GripperCommand"
    message = store.types[kind](position=0.25, max_effort=0.0)
    data = bytes(store.serialize_cdr(message, kind))
    assert data[4:] == struct.pack("<2d", 0.25, 0.0)
    command = body("", {"type": kind}).commands["grip"]
    assert read_targets(Decoder()("grip", kind, data), command).tolist() == [0.25]
