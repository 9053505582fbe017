"""The heading of a mobile base: yaw in radians, and the quaternion that messages carry it in."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Twelve decimals of a radian are far below any sensor, and far above what a quaternion rounds:
# so a yaw that was written as a quaternion reads back as the very same number.
YAW_DECIMALS = 12


def wrapped(yaw: float) -> float:
    """The same angle within [-pi, pi], on the grid that survives a quaternion (rad)."""
    return round(math.atan2(math.sin(yaw), math.cos(yaw)), YAW_DECIMALS)


def quaternion_of(yaw: float) -> tuple[float, float, float, float]:
    """x, y, z, w of a turn about z by ``yaw`` (rad)."""
    return 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)


def yaw_of(quaternion: Sequence[float]) -> float:
    """Turn about z (rad, in [-pi, pi]) of a unit quaternion x, y, z, w: the yaw of ZYX angles."""
    x, y, z, w = quaternion
    yaw = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return round(yaw, YAW_DECIMALS)
