"""From a ROS message to a sample, for live nodes and bag readers alike.

The functions read attributes only, so they take rclpy's message objects and those that ``rosbags``
decodes without ROS. They refuse everything that a policy must not see. :func:`decode` looks at one
message; :class:`StreamDecoder` also puts together what comes in parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from embodied_rl.core.errors import MessageError, NotForThisStream, quoted
from embodied_rl.core.frames import UNIT_TOLERANCE, Pose
from embodied_rl.core.heading import yaw_of
from embodied_rl.core.images import read_image
from embodied_rl.core.message_types import (
    COMPONENTS,
    COMPRESSED_IMAGE,
    FLOAT,
    FLOAT32,
    FLOAT32_ARRAY,
    FLOAT_ARRAY,
    IMAGE,
    IMU,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    ODOMETRY,
    POINT_CLOUD,
    POSE,
    POSE_COVARIANCE,
    TF,
    TWIST_STAMPED,
    WRENCH,
)
from embodied_rl.core.point_cloud import read_points
from embodied_rl.core.streams import NANOSECONDS, RECEIVE, Stream
from embodied_rl.core.tf_chain import TransformChain
from embodied_rl.core.window import Sample

BEAM_TOLERANCE = 0.1  # of the angle between two beams, by which a beam may point elsewhere
RANGE_TOLERANCE = 1e-6  # of a range, which a message holds as float32
MOST_JOINTS = 1024  # of one message
TURN = 2 * math.pi


def stamp_ns(header: Any) -> int:
    """Stamp of a std_msgs/Header in nanoseconds."""
    return int(header.stamp.sec * NANOSECONDS + header.stamp.nanosec)


def decode(stream: Stream, message: Any, received_ns: int | None = None) -> Sample:
    """The part of a message that a stream names.

    Args:
        received_ns: when the message was received, on the clock of the stamps; of a stream with
            ``stamps: receive`` it is the stamp of the sample.

    Raises:
        NotForThisStream: the message has none of the stream's joints, or not its frame.
        MessageError: wrong encoding, size, frame, joints or beams, a value that is not finite, no
            heading, or no stamp; names the topic, what was expected and what was seen.
    """
    part = _transform(stream, message) if stream.type == TF else message
    value = _VALUES[stream.type](stream, part)
    return Sample(_stamp(stream, part, received_ns), _sound(stream, value))


def _stamp(stream: Stream, part: Any, received_ns: int | None) -> int:
    if stream.stamps == RECEIVE:
        if received_ns is None or received_ns <= 0:
            raise MessageError(f"{stream.topic}: expected a time of receipt, saw none")
        return received_ns
    stamp = stamp_ns(part.header)
    if stamp <= 0:
        seen = "0 ns" if stamp == 0 else "one before 1970"
        raise MessageError(
            f"{stream.topic}: expected a stamp in the header, saw {seen}; of a driver that has "
            "none say 'stamps: receive'"
        )
    return stamp


def _sound(stream: Stream, value: np.ndarray) -> np.ndarray:
    """The value, every number finite; pictures, scans and clouds mark what is missing by NaN."""
    if len(stream.shape) > 1 or stream.type == LASER_SCAN or np.all(np.isfinite(value)):
        return value
    where = int(np.argmin(np.isfinite(value)))
    names = stream.joints or stream.names
    name = names[where] if names else f"{stream.field}[{where}]"
    raise MessageError(f"{stream.topic}: {name}: expected a finite number, saw {value[where]}")


class StreamDecoder:
    """:func:`decode` for the messages of one stream in turn, whose joints may come in parts, and
    whose frame may be connected over several transforms (:mod:`embodied_rl.core.tf_chain`).

    With ``split: true`` the joints are put together from messages that hold some of them each.
    Parts belong together when their stamps lie within half a period of the stream; each is used
    once, and the sample has the oldest stamp among them: nothing in it is older than it says.
    """

    def __init__(self, stream: Stream):
        self.stream = stream
        self._parts: dict[str, tuple[int, float]] = {}  # joint -> stamp, value
        self._chain = TransformChain(stream) if stream.type == TF else None

    def latch(self, message: Any) -> None:
        """Take a message of the stream's ``static_topic``, the transforms that stay."""
        if self._chain is not None:
            self._chain.latch(message)

    def __call__(self, message: Any, received_ns: int | None = None) -> Sample:
        """The sample that a message completes; raises what :func:`decode` does, and
        NotForThisStream while parts are missing."""
        if self._chain is not None:
            pose = self._chain.take(message)
            stamp = _stamp(self.stream, pose, received_ns)
            return Sample(stamp, _sound(self.stream, _pose(self.stream, pose)))
        if not self.stream.split:
            return decode(self.stream, message, received_ns)
        stream = self.stream
        here = [name in set(message.name) for name in stream.wire_joints]
        value = _joints(stream, message, some=True)
        stamp = _stamp(stream, message, received_ns)
        present = [joint for joint, found in zip(stream.joints, here, strict=True) if found]
        self._parts |= {joint: (stamp, number) for joint, number in zip(present, value[here])}
        reach_ns = stream.period_ns // 2
        self._parts = {
            joint: kept for joint, kept in self._parts.items() if abs(stamp - kept[0]) <= reach_ns
        }
        missing = [joint for joint in stream.joints if joint not in self._parts]
        if missing:
            raise NotForThisStream(f"{stream.topic}: {missing[0]} is still to come")
        oldest = min(stamp for stamp, _ in self._parts.values())
        whole = np.array([self._parts[joint][1] for joint in stream.joints])
        self._parts.clear()
        return Sample(oldest, whole)


# ---------------------------------------------------------------- joints and plain numbers
def _joints(stream: Stream, message: Any, some: bool = False) -> np.ndarray:
    """Values of the named joints ``(n,)``, NaN where one is not in the message, which only
    ``some`` allows; messages may list joints in any order."""
    if len(message.name) > MOST_JOINTS:
        raise MessageError(f"{stream.topic}: expected at most {MOST_JOINTS} joints, saw more")
    names, values = list(message.name), getattr(message, stream.field)
    place = {name: i for i, name in enumerate(names)}
    absent = [joint for joint in stream.wire_joints if joint not in place]
    if len(absent) == len(stream.joints):
        raise NotForThisStream(f"{stream.topic}: expected joint {absent[0]}, saw {quoted(names)}")
    if absent and not some:
        raise MessageError(
            f"{stream.topic}: expected joint {absent[0]}, saw {quoted(names)}; if the others come "
            "in messages of their own, give those a stream of their own or say 'split: true'"
        )
    if len(values) != len(names):
        raise MessageError(
            f"{stream.topic}: expected {len(names)} values of {stream.field}, saw {len(values)}"
        )
    if len(place) != len(names):
        raise MessageError(f"{stream.topic}: expected each joint once, saw {quoted(names)}")
    found = np.array(
        [values[place[joint]] if joint in place else np.nan for joint in stream.wire_joints],
        dtype=np.float64,
    )
    if some:
        _sound(stream, found[[joint in place for joint in stream.wire_joints]])
    return _turned(stream, _scaled(stream, found))


def _scaled(stream: Stream, value: np.ndarray) -> np.ndarray:
    """In the stream's unit."""
    return value if stream.scale == 1.0 else value * stream.scale


def _turned(stream: Stream, angles: np.ndarray) -> np.ndarray:
    """Endless joints within half a turn of their centre; of others a whole turn off is refused:
    a policy would spin them back by that turn."""
    for i, centre in enumerate(stream.continuous):
        if centre is not None and np.isfinite(angles[i]):
            turns = math.floor((angles[i] - centre + math.pi) / TURN)
            angles[i] -= turns * TURN
    for i, limits in enumerate(stream.limits):
        if limits is None or not np.isfinite(angles[i]):
            continue
        lower, upper = limits
        beyond = max(lower - angles[i], angles[i] - upper)
        turns = round((angles[i] - (lower + upper) / 2) / TURN)
        if beyond > TURN / 4 and lower <= angles[i] - turns * TURN <= upper:
            raise MessageError(
                f"{stream.topic}: {stream.joints[i]}: expected an angle within "
                f"[{lower:g}, {upper:g}] rad, saw one that is one turn off; turn the joint back, "
                "or declare it 'continuous' if it has no end"
            )
    return angles


def _numbers(stream: Stream, message: Any) -> np.ndarray:
    """Values ``(n,)`` of an array, of the axes or buttons of a joystick, or of a single number."""
    if stream.type in (FLOAT, FLOAT32):
        return _scaled(stream, np.array([message.data], dtype=np.float64))
    values = getattr(message, stream.field) if stream.field else message.data
    if len(values) != len(stream.names):
        raise MessageError(
            f"{stream.topic}: expected {len(stream.names)} values ({quoted(stream.names)}), "
            f"saw {len(values)}"
        )
    return _scaled(stream, np.array(values, dtype=np.float64))


# ---------------------------------------------------------------- places and directions
def _pose_of(stream: Stream, pose: Any, header: Any) -> np.ndarray:
    """Position in metres, orientation x, y, z, w or yaw of a geometry_msgs/Pose."""
    way = _way(stream, header)
    if stream.field == "position":
        point = _scaled(stream, _parts(pose, stream.field))
        return point if way is None else way.point(point)
    turn = _unit(stream, _parts(pose, "orientation"))
    turn = turn if way is None else way.turn(turn)
    return np.array([yaw_of(turn.tolist())]) if stream.field == "yaw" else turn


def _pose(stream: Stream, message: Any) -> np.ndarray:
    return _pose_of(stream, message.pose, message.header)


def _pose_with_covariance(stream: Stream, message: Any) -> np.ndarray:
    return _pose_of(stream, message.pose.pose, message.header)


def _odometry(stream: Stream, message: Any) -> np.ndarray:
    """A part of the pose, or a velocity in m/s or rad/s in the frame of the base itself."""
    if stream.field == "linear_velocity":
        return _scaled(stream, _parts(message.twist.twist, "linear", stream.field))
    if stream.field == "angular_velocity":
        return _scaled(stream, _parts(message.twist.twist, "angular", stream.field))
    return _pose_of(stream, message.pose.pose, message.header)


class _Transformed:
    """A geometry_msgs/TransformStamped, read as a pose."""

    def __init__(self, stamped: Any):
        self.header = stamped.header
        self.position = stamped.transform.translation
        self.orientation = stamped.transform.rotation
        self.pose = self


def _transform(stream: Stream, message: Any) -> _Transformed:
    for stamped in message.transforms:
        if stamped.child_frame_id.lstrip("/") == stream.child_frame:
            return _Transformed(stamped)
    raise NotForThisStream(f"{stream.topic}: expected frame {stream.child_frame}, saw others")


def _twist(stream: Stream, message: Any) -> np.ndarray:
    name = "linear" if stream.field == "linear_velocity" else "angular"
    return _direction(stream, _parts(message.twist, name, stream.field), message.header)


def _imu(stream: Stream, message: Any) -> np.ndarray:
    """A field of a sensor_msgs/Imu; the first covariance is -1 of one that it does not measure."""
    if getattr(message, f"{stream.field}_covariance")[0] == -1:
        raise MessageError(
            f"{stream.topic}: {stream.field}: expected a measurement, saw covariance -1, by which "
            "the sensor says that it has none"
        )
    if stream.field == "orientation":
        return _unit(stream, _parts(message, "orientation"))
    return _direction(stream, _parts(message, stream.field), message.header)


def _wrench(stream: Stream, message: Any) -> np.ndarray:
    """Force in N or torque in N m; brought into another frame the torque gains the lever arm."""
    value = _direction(stream, _parts(message.wrench, stream.field), message.header)
    way = _way(stream, message.header)
    if stream.field == "torque" and way is not None:
        force = way.vector(_parts(message.wrench, "force"))
        value = value + np.cross(way.translation, force)
    return value


def _direction(stream: Stream, vector: np.ndarray, header: Any) -> np.ndarray:
    way = _way(stream, header)
    vector = _scaled(stream, vector)
    return vector if way is None else way.vector(vector)


def _way(stream: Stream, header: Any) -> Pose | None:
    """What brings the message's values into the stream's frame; None where they are in it.

    Raises:
        MessageError: another frame that no fixed transform connects, or none.
    """
    if not stream.frame:
        return None
    seen = header.frame_id.lstrip("/")
    if not seen and stream.source_frame:
        seen = stream.source_frame
    # A header that names no frame contradicts nothing where the file speaks of one frame only.
    alone = not seen and not stream.frame_declared and not stream.transforms
    if seen == stream.frame or alone:
        return None
    found = stream.transforms.get(seen)
    if found is not None:
        return found
    if not seen:
        advice = "; of a driver that names none say which it means: 'source_frame: ...'"
    else:
        advice = (
            f"; declare where that frame stands ('frames: {{{quoted(seen)[1:-1]}: {{parent: "
            f"{stream.frame}, xyz: ..., rpy: ...}}}}'), or 'frame:' if the stream is meant in it"
        )
    raise MessageError(
        f"{stream.topic}: expected values in frame '{stream.frame}', "
        f"saw {quoted(header.frame_id)}{advice}"
    )


def _unit(stream: Stream, turn: np.ndarray) -> np.ndarray:
    """The quaternion, of length 1; one that nobody filled in is not."""
    norm = float(np.linalg.norm(turn))
    if not abs(norm - 1.0) <= UNIT_TOLERANCE:
        seen = "zeros" if norm == 0 else "one of another length"
        raise MessageError(f"{stream.topic}: orientation: expected a unit quaternion, saw {seen}")
    return turn


def _parts(message: Any, name: str, field: str = "") -> np.ndarray:
    """The components ``(n,)`` of a point, vector or quaternion."""
    part = getattr(message, name)
    return np.array([getattr(part, axis) for axis in COMPONENTS[field or name]], dtype=np.float64)


# ---------------------------------------------------------------- scans and clouds
def _scan(stream: Stream, message: Any) -> np.ndarray:
    """Readings ``(beams,)`` of a scan, see :mod:`embodied_rl.core.scan`."""
    scan = stream.scan
    assert scan is not None
    if len(message.ranges) != scan.beams:
        raise MessageError(
            f"{stream.topic}: expected {scan.beams} beams, saw {len(message.ranges)}"
        )
    # angle_max is not looked at: it follows from the others, and drivers differ in whether it is
    # the angle of the last beam or of the one that would come next.
    start, increment = message.angle_min, message.angle_increment
    ends = np.array([start, start + (scan.beams - 1) * increment])
    off = np.abs(ends - scan.angles_rad[[0, -1]])
    if not np.all(off <= BEAM_TOLERANCE * scan.angle_increment_rad):  # also of NaN
        raise MessageError(
            f"{stream.topic}: expected beams from {scan.angle_min_rad:.6g} rad every "
            f"{scan.angle_increment_rad:.6g} rad, saw from {start:.6g} every {increment:.6g}"
        )
    # A sensor that sees less far says nothing at a distance that a policy would take for free.
    near, far = message.range_min, message.range_max
    if not (
        near <= scan.range_min_m * (1 + RANGE_TOLERANCE)
        and far >= scan.range_max_m * (1 - RANGE_TOLERANCE)
    ):
        raise MessageError(
            f"{stream.topic}: expected ranges from {scan.range_min_m:g} m or nearer to "
            f"{scan.range_max_m:g} m or farther, saw from {near:g} to {far:g} m"
        )
    return scan.readings(np.asarray(message.ranges, dtype=np.float32))


def _points(stream: Stream, message: Any) -> np.ndarray:
    """Points ``(P, C)`` of a cloud, see :mod:`embodied_rl.core.point_cloud`."""
    way = _way(stream, message.header)
    points = read_points(message, stream.names, stream.shape[0], stream.topic)
    if way is not None:
        columns = [stream.names.index(axis) for axis in "xyz"]
        places = points[:, columns].astype(np.float64) @ way.rotation.T + way.translation
        points[:, columns] = places.astype(np.float32)
    return points


_VALUES: dict[str, Callable[[Stream, Any], np.ndarray]] = {
    JOINT_STATE: _joints,
    POSE: _pose,
    POSE_COVARIANCE: _pose_with_covariance,
    TF: _pose,
    ODOMETRY: _odometry,
    TWIST_STAMPED: _twist,
    IMU: _imu,
    WRENCH: _wrench,
    JOY: _numbers,
    FLOAT: _numbers,
    FLOAT32: _numbers,
    FLOAT_ARRAY: _numbers,
    FLOAT32_ARRAY: _numbers,
    IMAGE: read_image,
    COMPRESSED_IMAGE: read_image,
    LASER_SCAN: _scan,
    POINT_CLOUD: _points,
}
