"""From a ROS command message to arrays; like :mod:`embodied_rl.core.decode`, for both worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.embodiment import FLOAT_ARRAY, NANOSECONDS, TWIST_STAMPED, Command
from embodied_rl.core.errors import MessageError


def read_trajectory(
    message: Any, names: Sequence[str], topic: str
) -> tuple[int, np.ndarray, np.ndarray]:
    """``(stamp_ns, times_ns (T,), positions (T, n))`` in the order of ``names``.

    Raises:
        MessageError: other joints, no points, times that do not rise, or a value not finite.
    """
    place = {name: i for i, name in enumerate(message.joint_names)}
    if set(place) != set(names) or len(place) != len(message.joint_names):
        raise MessageError(
            f"{topic}: expected the joints {list(names)}, saw {list(message.joint_names)}"
        )
    if not len(message.points):
        raise MessageError(f"{topic}: expected points, saw none")
    widths = {len(point.positions) for point in message.points}
    if widths != {len(place)}:
        raise MessageError(f"{topic}: expected {len(place)} positions a point, saw {widths}")
    stamp = stamp_ns(message.header)
    offsets = [
        p.time_from_start.sec * NANOSECONDS + p.time_from_start.nanosec for p in message.points
    ]
    if offsets[0] <= 0 or any(b <= a for a, b in zip(offsets, offsets[1:], strict=False)):
        raise MessageError(f"{topic}: expected rising times_from_start above 0, saw {offsets}")
    order = [place[name] for name in names]
    positions = np.array([point.positions for point in message.points], dtype=np.float64)[:, order]
    if not np.all(np.isfinite(positions)):
        row, column = np.argwhere(~np.isfinite(positions))[0]
        raise MessageError(f"{topic}: {names[column]}: point {row} is not finite")
    return stamp, stamp + np.array(offsets, dtype=np.int64), positions


def read_targets(message: Any, command: Command) -> np.ndarray:
    """Targets ``(n,)`` of a command that is in force at once: an array of positions, or a twist.

    Raises:
        MessageError: another count, a value that is not finite, or a velocity along a dimension
            that the robot has not.
    """
    if command.type != FLOAT_ARRAY:
        return _twist(message.twist if command.type == TWIST_STAMPED else message, command)
    values = np.array(message.data, dtype=np.float64)
    if values.shape != (len(command.names),) or not np.all(np.isfinite(values)):
        raise MessageError(
            f"{command.topic}: expected {len(command.names)} finite values, saw {values.tolist()}"
        )
    return values


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
                f"{list(command.names)}, saw {value:g}"
            )
    return np.array([found[name] for name in command.names])
