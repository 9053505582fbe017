"""From arrays to ROS messages; the way in is :mod:`embodied_rl.core.decode` and its sibling
:mod:`embodied_rl.core.decode_commands`."""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState, LaserScan
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodied_rl.core import message_types as types
from embodied_rl.core.decode_commands import read_trajectory
from embodied_rl.core.embodiment import NANOSECONDS, Command, Embodiment, Stream
from embodied_rl.core.errors import MessageError, UserError
from embodied_rl.core.heading import quaternion_of
from embodied_rl.core.images import compress
from embodied_rl.core.policy import ActionChunk
from embodied_rl.core.window import Sample


@cache
def message_class(kind: str) -> Any:
    """The class of a message type such as ``sensor_msgs/msg/Imu``, or of an action's.

    Raises:
        UserError: its package is not installed; names it.
    """
    package, part, name = kind.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{part}"), name)
    except ImportError as error:
        raise UserError(
            f"{kind}: expected the ROS package '{package}' to be installed, saw none; install it "
            f"(ros-$ROS_DISTRO-{package.replace('_', '-')}) or use another type"
        ) from error


def command_class(command: Command) -> Any:
    """The class of a command's messages, for a robot that is simulated.

    Raises:
        UserError: the command is an action, or its package is not installed.
    """
    if command.goals is not None:
        raise UserError(
            f"commands.{command.key}.type: expected a type that is sent on a topic, for a "
            f"simulated robot offers no action, saw {command.type}; use {types.GRIPPER_COMMAND} "
            f"or {types.FLOAT} in its file"
        )
    return message_class(command.type)


def _installed(kinds: Iterable[str]) -> dict[str, Any]:
    return {kind: message_class(kind) for kind in kinds if find_spec(kind.split("/")[0])}


# those that are installed; of a type that may be missing ask message_class()
MESSAGE_CLASSES = _installed([*types.STREAM_FIELDS, *types.COMMAND_TYPES])


def time_message(time_ns: int) -> Time:
    return Time(sec=time_ns // NANOSECONDS, nanosec=time_ns % NANOSECONDS)


def duration_message(duration_ns: int) -> Duration:
    return Duration(sec=duration_ns // NANOSECONDS, nanosec=duration_ns % NANOSECONDS)


def now_ns(node) -> int:
    """The node's ROS clock; simulated time in simulation."""
    return int(node.get_clock().now().nanoseconds)


def bytes_of(value: np.ndarray) -> array:
    """Array memory as the type that the generated setter takes without a check per element."""
    data = array("B")
    data.frombytes(memoryview(np.ascontiguousarray(value)).cast("B"))
    return data


def encode_topic(
    streams: Sequence[Stream], samples: Mapping[str, Sample], frame_id: str
) -> JointState | Image | CompressedImage | LaserScan | PoseStamped | Odometry:
    """One message of a topic from the samples of the streams that share it.

    Raises:
        UserError: a simulator does not send this type.

    ``frame_id`` is the frame of poses, or of a camera whose stream declares none.
    """
    first = streams[0]
    header_ns = samples[first.key].stamp_ns
    if first.type == types.IMAGE:
        message = _image(first, samples[first.key].value)
    elif first.type == types.COMPRESSED_IMAGE and first.encoding != "32FC1":
        png = bytes_of(np.frombuffer(compress(samples[first.key].value), np.uint8))
        message = CompressedImage(format=f"{first.encoding}; png compressed", data=png)
    elif first.type == types.LASER_SCAN:
        message = _laser_scan(first, samples[first.key].value)
    elif first.type == types.JOINT_STATE:
        message = _joint_state(streams, samples)
    elif first.type == types.ODOMETRY:
        message = _odometry(streams, samples)
    elif first.type == types.POSE:
        message = _pose(streams, samples)
    else:
        raise UserError(
            f"streams.{first.key}.type: expected one that a simulator sends, saw {first.type}"
            f"{' of ' + first.encoding if first.encoding else ''}"
        )
    message.header.stamp = time_message(header_ns)
    message.header.frame_id = first.sensor_frame or frame_id
    return message


def _image(stream: Stream, pixels: np.ndarray) -> Image:
    return Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=stream.encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=bytes_of(pixels),
    )


def _laser_scan(stream: Stream, readings: np.ndarray) -> LaserScan:
    """All beams at once, in the terms of REP 117."""
    scan = stream.scan
    assert scan is not None
    return LaserScan(
        angle_min=scan.angle_min_rad,
        angle_max=float(scan.angles_rad[-1]),
        angle_increment=scan.angle_increment_rad,
        time_increment=0.0,
        scan_time=1 / stream.rate_hz,
        range_min=scan.range_min_m,
        range_max=scan.range_max_m,
        ranges=array("f", scan.ranges(readings).tobytes()),
    )


def _joint_state(streams: Sequence[Stream], samples: Mapping[str, Sample]) -> JointState:
    """Joints of all streams of the topic; NaN where a field is not measured for a joint, as the
    ros2_control joint state broadcaster does."""
    names = list(dict.fromkeys(joint for stream in streams for joint in stream.wire_joints))
    message = JointState(name=names)
    for field in ("position", "velocity", "effort"):
        parts = [stream for stream in streams if stream.field == field]
        if parts:
            values = dict.fromkeys(names, float("nan"))
            for stream in parts:
                sent = samples[stream.key].value / stream.scale  # in the driver's unit
                values.update(zip(stream.wire_joints, sent.tolist(), strict=True))
            setattr(message, field, array("d", values.values()))
    return message


def _pose(streams: Sequence[Stream], samples: Mapping[str, Sample]) -> PoseStamped:
    message = PoseStamped()
    for stream in streams:
        _fill(getattr(message.pose, stream.field), stream, samples)
    return message


def _odometry(streams: Sequence[Stream], samples: Mapping[str, Sample]) -> Odometry:
    """Pose in the header's frame, velocities in the base's own; a yaw makes the quaternion of a
    flat floor, unless there is a stream of the whole orientation."""
    message = Odometry(child_frame_id=streams[0].child_frame)
    pose, twist = message.pose.pose, message.twist.twist
    parts = {"linear_velocity": twist.linear, "angular_velocity": twist.angular}
    parts |= {"position": pose.position, "orientation": pose.orientation}
    whole = any(stream.field == "orientation" for stream in streams)
    for stream in streams:
        if stream.field != "yaw":
            _fill(parts[stream.field], stream, samples)
        elif not whole:
            turn = quaternion_of(float(samples[stream.key].value[0]))
            pose.orientation.z, pose.orientation.w = turn[2:]
    return message


def _fill(part, stream: Stream, samples: Mapping[str, Sample]) -> None:
    """The components of a point, vector or quaternion of a message."""
    _set_axes(part, samples[stream.key].value)


def _set_axes(part, values: np.ndarray) -> None:
    """The components x, y, z and, of a quaternion, w of a part of a message."""
    for axis, value in zip("xyzw"[: len(values)], values.tolist(), strict=True):
        setattr(part, axis, value)


def camera_info(
    stamp: Time, frame_id: str, size: tuple[int, int], matrix: np.ndarray
) -> CameraInfo:
    """Pinhole camera without distortion; ``size`` is (height, width), ``matrix`` K ``(3, 3)``."""
    message = CameraInfo(height=size[0], width=size[1], distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp, message.header.frame_id = stamp, frame_id
    message.k = matrix.ravel().tolist()
    message.r = np.eye(3).ravel().tolist()
    message.p = np.hstack([matrix, np.zeros((3, 1))]).ravel().tolist()
    return message


def trajectory(chunk: ActionChunk, names: Sequence[str], columns: slice) -> JointTrajectory:
    """The chosen columns of a chunk; the header carries when its first control period begins.

    Between our own nodes a chunk has all dimensions, and the velocities of a base too stand in the
    field ``positions``: as one target a period each, which is what an action is.
    """
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp = time_message(chunk.stamp_ns)
    message.points = [
        JointTrajectoryPoint(
            positions=array("d", row[columns].tolist()),
            time_from_start=duration_message((i + 1) * chunk.period_ns),
        )
        for i, row in enumerate(chunk.values)
    ]
    return message


def command_message(command: Command, chunk: ActionChunk, columns: slice) -> Any:
    """The chosen columns of a chunk for the actuators of a command group: a trajectory as a whole,
    of other types its first target."""
    if command.type == types.JOINT_TRAJECTORY:
        return trajectory(chunk, command.wire_names, columns)
    values = chunk.values[0, columns].tolist()
    stamp = time_message(chunk.stamp_ns)
    if command.type == types.FLOAT_ARRAY:
        return Float64MultiArray(data=values)
    if command.type == types.FLOAT:
        return Float64(data=values[0])
    if command.type == types.GRIPPER_COMMAND:
        return message_class(command.type)(position=values[0], max_effort=command.max_effort)
    if command.type == types.GRIPPER_ACTION:
        return gripper_goal(command, values[0])
    if command.type == types.JOINT_STATE:
        message = JointState(name=list(command.wire_names), position=array("d", values))
        message.header.stamp = stamp
        return message
    if command.tool:
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = stamp, command.frame
        place, turn = command.tool.pose(chunk.values[0, columns])
        _set_axes(pose.pose.position, place)
        _set_axes(pose.pose.orientation, turn)
        return pose
    twist = Twist()
    for name, value in zip(command.names, values, strict=True):
        part, axis = name.split("_")
        setattr(getattr(twist, part), axis, value)
    if command.type == types.TWIST:
        return twist
    stamped = TwistStamped(twist=twist)
    stamped.header.stamp, stamped.header.frame_id = stamp, command.frame
    return stamped


def gripper_goal(command: Command, position: float) -> Any:
    """A goal of ``control_msgs/action/GripperCommand``."""
    goal = message_class(command.type).Goal()
    goal.command.position, goal.command.max_effort = position, command.max_effort
    return goal


def read_chunk(message: JointTrajectory, embodiment: Embodiment, topic: str) -> ActionChunk:
    """An action chunk over all dimensions of the embodiment.

    Raises:
        MessageError: as :func:`read_trajectory`, or targets that are not one control period apart.
    """
    stamp, times, values = read_trajectory(message, embodiment.action_names, topic)
    chunk = ActionChunk(stamp, embodiment.period_ns, values)
    if not np.array_equal(times, chunk.times_ns):
        raise MessageError(
            f"{topic}: expected points every {embodiment.period_ns / 1e6:g} ms, "
            f"saw others, the first after {(times[0] - stamp) / 1e6:g} ms"
        )
    return chunk
