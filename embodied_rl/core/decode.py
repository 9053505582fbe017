"""From a ROS message to a sample, for live nodes and bag readers alike.

The functions read attributes only, so they take rclpy's message objects and those that ``rosbags``
decodes without ROS. They refuse everything that a policy must not see.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from embodied_rl.core.embodiment import (
    COMPONENTS,
    ENCODINGS,
    IMAGE,
    JOINT_STATE,
    LASER_SCAN,
    NANOSECONDS,
    ODOMETRY,
    Stream,
)
from embodied_rl.core.errors import MessageError
from embodied_rl.core.heading import yaw_of
from embodied_rl.core.window import Sample

UNIT_TOLERANCE = 1e-3  # of the norm of a quaternion
BEAM_TOLERANCE = 0.1  # of the angle between two beams, by which a beam may point elsewhere
RANGE_TOLERANCE = 1e-6  # of a range, which a message holds as float32


def stamp_ns(header: Any) -> int:
    """Stamp of a std_msgs/Header in nanoseconds."""
    return header.stamp.sec * NANOSECONDS + header.stamp.nanosec


def decode(stream: Stream, message: Any) -> Sample:
    """The part of a message that a stream names.

    Raises:
        MessageError: wrong encoding, size, joints or beams, a value that is not finite, no
            heading, or no stamp; names the topic, what was expected and what was seen.
    """
    stamp = stamp_ns(message.header)
    if stamp <= 0 and stream.stamps == "header":
        raise MessageError(f"{stream.topic}: expected a stamp in the header, saw {stamp} ns")
    if stream.type == IMAGE:
        return Sample(stamp, _image(stream, message))
    if stream.type == LASER_SCAN:
        return Sample(stamp, _scan(stream, message))
    if stream.type == JOINT_STATE:
        value = _joints(stream, message)
    elif stream.type == ODOMETRY:
        value = _odometry(stream, message)
    else:
        value = _parts(message.pose, stream.field)
    if not np.all(np.isfinite(value)):
        where = int(np.argmin(np.isfinite(value)))
        name = stream.joints[where] if stream.joints else f"{stream.field}[{where}]"
        raise MessageError(f"{stream.topic}: {name}: expected a finite number, saw {value[where]}")
    return Sample(stamp, value)


def _joints(stream: Stream, message: Any) -> np.ndarray:
    """Values of the named joints ``(n,)``; messages may list joints in any order."""
    names, values = list(message.name), getattr(message, stream.field)
    if len(values) != len(names):
        raise MessageError(
            f"{stream.topic}: expected {len(names)} values of {stream.field}, saw {len(values)}"
        )
    place = {name: i for i, name in enumerate(names)}
    missing = [joint for joint in stream.joints if joint not in place]
    if missing:
        raise MessageError(f"{stream.topic}: expected joint {missing[0]}, saw {names}")
    if len(place) != len(names):
        raise MessageError(f"{stream.topic}: expected each joint once, saw {names}")
    return np.array([values[place[joint]] for joint in stream.joints], dtype=np.float64)


def _odometry(stream: Stream, message: Any) -> np.ndarray:
    """Position in metres, orientation x, y, z, w, yaw, or a velocity in m/s or rad/s."""
    if stream.field == "linear_velocity":
        return _parts(message.twist.twist, "linear", stream.field)
    if stream.field == "angular_velocity":
        return _parts(message.twist.twist, "angular", stream.field)
    if stream.field == "position":
        return _parts(message.pose.pose, stream.field)
    turn = _parts(message.pose.pose, "orientation")
    norm = float(np.linalg.norm(turn))
    if not abs(norm - 1.0) <= UNIT_TOLERANCE:  # also of a message that nobody filled in
        raise MessageError(
            f"{stream.topic}: orientation: expected a unit quaternion, saw one of norm {norm:g}"
        )
    return np.array([yaw_of(turn.tolist())]) if stream.field == "yaw" else turn


def _parts(message: Any, name: str, field: str = "") -> np.ndarray:
    """The components ``(n,)`` of a point, vector or quaternion."""
    part = getattr(message, name)
    return np.array([getattr(part, axis) for axis in COMPONENTS[field or name]], dtype=np.float64)


def _image(stream: Stream, message: Any) -> np.ndarray:
    """Pixels ``(H, W, 3)`` or ``(H, W)``; owns its memory, since messages are short-lived."""
    height, width = stream.shape[:2]
    dtype, channels = ENCODINGS[stream.encoding]
    if message.encoding != stream.encoding:
        raise MessageError(
            f"{stream.topic}: expected encoding {stream.encoding}, saw {message.encoding}"
        )
    if (message.height, message.width) != (height, width):
        raise MessageError(
            f"{stream.topic}: expected {width}x{height} px, saw {message.width}x{message.height}"
        )
    row_bytes = width * channels * np.dtype(dtype).itemsize
    if message.step != row_bytes or len(message.data) != row_bytes * height:
        raise MessageError(
            f"{stream.topic}: expected rows of {row_bytes} bytes and {row_bytes * height} in all, "
            f"saw {message.step} and {len(message.data)}"
        )
    order: Literal[">", "<"] = ">" if message.is_bigendian else "<"
    pixels = np.frombuffer(message.data, dtype=np.dtype(dtype).newbyteorder(order))
    return pixels.astype(dtype).reshape(stream.shape)


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
