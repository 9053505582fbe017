"""From a ROS command message to arrays; like :mod:`embodied_rl.core.decode`, for both worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.embodiment import NANOSECONDS, Command
from embodied_rl.core.errors import MessageError, quoted
from embodied_rl.core.frames import UNIT_TOLERANCE
from embodied_rl.core.message_types import (
    FLOAT,
    FLOAT_ARRAY,
    GRIPPER_COMMAND,
    POSE,
    STAMPED_TARGETS,
    TWIST_STAMPED,
)

FIXED_TOLERANCE_RAD = 0.01  # by which a tool that does not turn may be told another orientation


def read_trajectory(
    message: Any, names: Sequence[str], topic: str, *, streamed: bool = False
) -> tuple[int, np.ndarray, np.ndarray]:
    """``(stamp_ns, times_ns (T,), positions (T, n))`` in the order of ``names``.

    Args:
        streamed: also take what controllers take from a teleoperation: some of the joints, NaN for
            the others, or more joints; and a first point that is in force at once.

    Raises:
        MessageError: other joints, no points, times that do not rise, or a value not finite.
    """
    place = {name: i for i, name in enumerate(message.joint_names)}
    fitting = any(name in place for name in names) if streamed else set(place) == set(names)
    if not fitting or len(place) != len(message.joint_names):
        raise MessageError(
            f"{topic}: expected the joints {quoted(names)}, saw {quoted(message.joint_names)}"
        )
    if not len(message.points):
        raise MessageError(f"{topic}: expected points, saw none")
    widths = {len(point.positions) for point in message.points}
    if widths != {len(place)}:
        raise MessageError(
            f"{topic}: expected {len(place)} positions a point, saw {sorted(widths)[:5]}"
        )
    stamp = stamp_ns(message.header)
    offsets = [
        p.time_from_start.sec * NANOSECONDS + p.time_from_start.nanosec for p in message.points
    ]
    least = 0 if streamed else 1
    if offsets[0] < least or any(b <= a for a, b in zip(offsets, offsets[1:], strict=False)):
        above = "from 0 on" if streamed else "above 0"
        raise MessageError(f"{topic}: expected rising times_from_start {above}, saw others")
    told = [i for i, name in enumerate(names) if name in place]
    order = [place[names[i]] for i in told]
    positions = np.full((len(message.points), len(names)), np.nan)
    positions[:, told] = np.array([p.positions for p in message.points], dtype=np.float64)[:, order]
    if not np.all(np.isfinite(positions[:, told])):
        row, column = np.argwhere(~np.isfinite(positions[:, told]))[0]
        raise MessageError(f"{topic}: {names[told[column]]}: point {row} is not finite")
    return stamp, stamp + np.array(offsets, dtype=np.int64), positions


def target_stamp_ns(message: Any, command: Command) -> int:
    """Stamp of a command that is in force at once; 0 where its type has none."""
    return stamp_ns(message.header) if command.type in STAMPED_TARGETS else 0


def read_targets(message: Any, command: Command) -> np.ndarray:
    """Targets ``(n,)`` of a command that is in force at once: positions, a pose, or a twist.

    Raises:
        MessageError: another count, other joints, another frame, a value that is not finite, or a
            velocity or a turn along a dimension that the robot has not.
    """
    if command.velocity:
        return _twist(message.twist if command.type == TWIST_STAMPED else message, command)
    if command.type == POSE:
        return _tool_pose(message, command)
    found: Sequence[float]
    if command.type == FLOAT_ARRAY:
        found = message.data
    elif command.type == FLOAT:
        found = [message.data]
    elif command.type == GRIPPER_COMMAND:
        found = [message.position]
    else:
        found = list(read_named(message, command, command.topic))
    if len(found) != len(command.names):
        raise MessageError(
            f"{command.topic}: expected {len(command.names)} finite values, saw {len(found)}"
        )
    values = np.array(found, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        where = int(np.argmin(np.isfinite(values)))
        raise MessageError(
            f"{command.topic}: expected {len(values)} finite values, "
            f"saw {command.names[where]} = {values[where]}"
        )
    return values


def read_named(message: Any, command: Command, topic: str) -> np.ndarray:
    """Positions ``(n,)`` of a sensor_msgs/JointState in the order of the command's joints.

    Raises:
        MessageError: other joints, or a position that is missing.
    """
    place = {name: i for i, name in enumerate(message.name)}
    sound = set(place) == set(command.wire_names) and len(place) == len(message.name)
    if not sound or len(message.position) != len(place):
        raise MessageError(
            f"{topic}: expected a position of each of {quoted(command.wire_names)}, "
            f"saw {len(message.position)} of {quoted(message.name)}"
        )
    found = [message.position[place[name]] for name in command.wire_names]
    return np.array(found, dtype=np.float64)


def _twist(twist: Any, command: Command) -> np.ndarray:
    """Velocities ``(n,)`` in m/s and rad/s of a geometry_msgs/Twist."""
    found = {
        f"{name}_{axis}": float(getattr(getattr(twist, name), axis))
        for name in ("linear", "angular")
        for axis in "xyz"
    }
    for name, value in found.items():
        if not np.isfinite(value):
            raise MessageError(f"{command.topic}: {name}: expected a finite number, saw {value}")
        if value and name not in command.names:
            raise MessageError(
                f"{command.topic}: {name}: expected 0, for this robot has only "
                f"{list(command.names)}, saw another velocity"
            )
    return np.array([found[name] for name in command.names])


def _tool_pose(message: Any, command: Command) -> np.ndarray:
    """Targets ``(n,)`` of a geometry_msgs/PoseStamped."""
    tool, pose = command.tool, message.pose
    assert tool is not None
    frame = message.header.frame_id.lstrip("/")
    if frame != tool.frame:
        raise MessageError(
            f"{command.topic}: expected a pose in frame '{tool.frame}', saw {quoted(frame)}"
        )
    position = np.array([getattr(pose.position, axis) for axis in "xyz"], dtype=np.float64)
    turn = np.array([getattr(pose.orientation, axis) for axis in "xyzw"], dtype=np.float64)
    if not np.all(np.isfinite(position)):
        where = int(np.argmin(np.isfinite(position)))
        raise MessageError(
            f"{command.topic}: {'xyz'[where]}: expected a finite number, saw {position[where]}"
        )
    norm = float(np.linalg.norm(turn))
    if not abs(norm - 1.0) <= UNIT_TOLERANCE:
        raise MessageError(
            f"{command.topic}: orientation: expected a unit quaternion, saw {turn.tolist()}"
        )
    turned = float(np.linalg.norm(tool.rotation_vector(turn / norm)))
    if not tool.turns and turned > FIXED_TOLERANCE_RAD:
        raise MessageError(
            f"{command.topic}: orientation: expected the fixed one of the file, "
            f"{tool.orientation.tolist()}, saw one turned by {turned:.3g} rad; declare rx, ry, rz "
            "as dimensions if the tool turns"
        )
    return tool.targets(position, turn / norm)
