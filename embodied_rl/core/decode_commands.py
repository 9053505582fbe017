"""From a ROS command message to arrays; like :mod:`embodied_rl.core.decode`, for both worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.embodiment import NANOSECONDS, Command
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


def read_positions(message: Any, command: Command) -> np.ndarray:
    """Targets ``(n,)`` of an unstamped position command.

    Raises:
        MessageError: another count, or a value that is not finite.
    """
    values = np.array(message.data, dtype=np.float64)
    if values.shape != (len(command.joints),) or not np.all(np.isfinite(values)):
        raise MessageError(
            f"{command.topic}: expected {len(command.joints)} finite values, saw {values.tolist()}"
        )
    return values
