"""From arrays to ROS messages; the way in is :mod:`embodied_rl.core.decode` and its sibling
:mod:`embodied_rl.core.decode_commands`."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodied_rl.core import embodiment as types
from embodied_rl.core.decode_commands import read_trajectory
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import MessageError
from embodied_rl.core.policy import ActionChunk
from embodied_rl.core.window import Sample

MESSAGE_CLASSES = {
    types.JOINT_STATE: JointState,
    types.IMAGE: Image,
    types.POSE: PoseStamped,
    types.JOINT_TRAJECTORY: JointTrajectory,
    types.FLOAT_ARRAY: Float64MultiArray,
}


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
) -> JointState | Image | PoseStamped:
    """One message of a topic from the samples of the streams that share it."""
    first = streams[0]
    header_ns = samples[first.key].stamp_ns
    if first.type == types.IMAGE:
        message = _image(first, samples[first.key].value)
    elif first.type == types.JOINT_STATE:
        message = _joint_state(streams, samples)
    else:
        message = _pose(streams, samples)
    message.header.stamp = time_message(header_ns)
    message.header.frame_id = frame_id
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


def _joint_state(streams: Sequence[Stream], samples: Mapping[str, Sample]) -> JointState:
    """Joints of all streams of the topic; NaN where a field is not measured for a joint, as the
    ros2_control joint state broadcaster does."""
    names = list(dict.fromkeys(joint for stream in streams for joint in stream.joints))
    message = JointState(name=names)
    for field in ("position", "velocity", "effort"):
        parts = [stream for stream in streams if stream.field == field]
        if parts:
            values = dict.fromkeys(names, float("nan"))
            for stream in parts:
                values.update(zip(stream.joints, samples[stream.key].value.tolist(), strict=True))
            setattr(message, field, array("d", values.values()))
    return message


def _pose(streams: Sequence[Stream], samples: Mapping[str, Sample]) -> PoseStamped:
    message = PoseStamped()
    for stream in streams:
        part = getattr(message.pose, stream.field)
        for axis, value in zip("xyzw", samples[stream.key].value.tolist(), strict=False):
            setattr(part, axis, value)
    return message


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
    """The chosen columns of a chunk; the header carries when its first control period begins."""
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
            f"saw {((times - stamp) / 1e6).tolist()} ms"
        )
    return chunk
