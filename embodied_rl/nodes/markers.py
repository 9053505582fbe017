"""A plan and the drive under it as markers for RViz, Foxglove and their like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from embodied_rl.core.plan import AVOIDED, DONE, MISSED, PENDING, Disc, ExecutedPath

# as in the pictures: Okabe and Ito's green, orange, blue and vermilion
COLOURS = {
    DONE: (0.0, 0.62, 0.45),
    MISSED: (0.90, 0.62, 0.0),
    PENDING: (0.34, 0.71, 0.91),
    AVOIDED: (0.84, 0.37, 0.0),
}
_EARLY, _LATE = np.array([0.27, 0.0, 0.33]), np.array([0.99, 0.91, 0.14])
_FLAT_M = 0.02  # height of a disc
_TEXT, _PATH = 0.7, 0.1  # height and width, as shares of the smallest region's radius


def plan_markers(drive: ExecutedPath, frame: str, stamp: Time) -> MarkerArray:
    """All of them anew: regions, planned times, the path so far coloured by time, robustness."""
    found = [Marker(action=Marker.DELETEALL)]
    unit_m = min(disc.radius for disc in drive.plan.regions.values())
    text_m = _TEXT * unit_m
    for number, item in enumerate(drive.plan.items):
        disc, colour = drive.plan.regions[item.region], COLOURS[item.state]
        kind = "avoided" if item.state == AVOIDED else "goals"
        found.append(_region(kind, number, disc, colour))
        text = item.region
        if item.state != AVOIDED:
            first, last = (f"{step * drive.plan.dt_s:g}" for step in (item.first, item.last))
            text += f" {first if first == last else f'{first}..{last}'} s {item.state}"
        found.append(_text("times", number, _above(disc, text_m), text, colour, text_m))
    if len(drive.positions) > 1:
        found.append(_path(drive, _PATH * unit_m))
    if drive.band and drive.positions:
        _, low, high = drive.band[-1]
        colour = COLOURS[DONE if low > 0 else MISSED if high < 0 else PENDING]
        text = f"robustness {low:+.2f} .. {high:+.2f} m"
        place = _lifted(drive.positions[-1], 2 * text_m)
        found.append(_text("robustness", 0, place, text, colour, text_m))
    for marker in found:
        marker.header.frame_id, marker.header.stamp = frame, stamp
    return MarkerArray(markers=found)


def _point(place: Sequence[float]) -> Point:
    x, y = (float(value) for value in place[:2])
    return Point(x=x, y=y, z=float(place[2]) if len(place) > 2 else 0.0)


def _marker(namespace: str, number: int, kind: int, place: Sequence[float]) -> Marker:
    marker = Marker(ns=namespace, id=number, type=kind, action=Marker.ADD)
    marker.pose.position = _point(place)
    marker.pose.orientation.w = 1.0
    return marker


def _region(namespace: str, number: int, disc: Disc, colour: tuple[float, ...]) -> Marker:
    """A flat cylinder on the floor, or a ball."""
    ball = len(disc.centre) > 2
    kind = Marker.SPHERE if ball else Marker.CYLINDER
    marker = _marker(namespace, number, kind, disc.centre)
    marker.scale.x = marker.scale.y = 2.0 * disc.radius
    marker.scale.z = 2.0 * disc.radius if ball else _FLAT_M
    marker.color = ColorRGBA(r=colour[0], g=colour[1], b=colour[2], a=0.4)
    return marker


def _text(
    namespace: str,
    number: int,
    place: Sequence[float],
    text: str,
    colour: tuple[float, ...],
    height_m: float,
) -> Marker:
    marker = _marker(namespace, number, Marker.TEXT_VIEW_FACING, place)
    marker.text, marker.scale.z = text, height_m
    marker.color = ColorRGBA(r=colour[0], g=colour[1], b=colour[2], a=1.0)
    return marker


def _above(disc: Disc, lift_m: float) -> list[float]:
    return _lifted(disc.centre, lift_m + (disc.radius if len(disc.centre) > 2 else 0.0))


def _lifted(place: Sequence[float], lift_m: float) -> list[float]:
    height = float(place[2]) if len(place) > 2 else 0.0
    return [float(place[0]), float(place[1]), height + lift_m]


def _path(drive: ExecutedPath, width_m: float) -> Marker:
    marker = _marker("path", 0, Marker.LINE_STRIP, (0.0, 0.0, 0.0))
    marker.scale.x = width_m
    whole_s = drive.plan.steps * drive.plan.dt_s
    for time_s, position in zip(drive.times_s, drive.positions):
        share = min(time_s / whole_s, 1.0)
        red, green, blue = (float(value) for value in (1 - share) * _EARLY + share * _LATE)
        marker.points.append(_point(position))
        marker.colors.append(ColorRGBA(r=red, g=green, b=blue, a=1.0))
    return marker
