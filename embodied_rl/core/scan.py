"""A planar lidar: where its beams point and what its readings mean.

A reading is a range in metres that is always a number within the sensor's limits, so that a policy
can take it as it is, where a driver may answer in the terms of REP 117:

| sensor_msgs/LaserScan              | reading              | meaning                     |
|------------------------------------|----------------------|-----------------------------|
| ``+inf``, or above ``range_max_m`` | ``range_max_m``      | free so far                 |
| ``-inf``, or below ``range_min_m`` | ``range_min_m``      | something too near to range |
| NaN                                | 0                    | no measurement              |

No measurement is not free space, and no obstacle either: whoever reads a scan must leave it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embodied_rl.core.schema import Section

NO_MEASUREMENT = 0.0
_TURN_TOLERANCE = 1e-4  # of a full circle: increments are written down with few digits


@dataclass(frozen=True)
class ScanGeometry:
    """The beams of a scan, counter-clockwise, 0 rad straight ahead; the fields of LaserScan."""

    beams: int
    angle_min_rad: float  # of the first beam
    angle_increment_rad: float  # from beam to beam
    range_min_m: float
    range_max_m: float

    @property
    def angles_rad(self) -> np.ndarray:
        """Directions ``(beams,)`` of the beams in the robot's frame."""
        return self.angle_min_rad + self.angle_increment_rad * np.arange(self.beams)

    def readings(self, ranges: np.ndarray) -> np.ndarray:
        """Readings ``(beams,)`` float32 of ranges ``(beams,)`` that may be infinite or NaN, m."""
        low, high = np.float32(self.range_min_m), np.float32(self.range_max_m)
        values = np.clip(ranges.astype(np.float32), low, high)
        values[np.isnan(values)] = NO_MEASUREMENT
        return values

    def ranges(self, readings: np.ndarray) -> np.ndarray:
        """Ranges ``(beams,)`` float32 as a driver reports them; :meth:`readings` undoes it."""
        ranges = readings.copy()
        ranges[readings >= np.float32(self.range_max_m)] = math.inf
        ranges[readings <= np.float32(self.range_min_m)] = -math.inf
        ranges[readings == NO_MEASUREMENT] = math.nan
        return ranges


def parse_scan(part: Section) -> ScanGeometry:
    """The keys of a stream that are those of its scan.

    Raises:
        UserError: one is missing, the beams go round more than once, or the ranges are none.
    """
    scan = ScanGeometry(
        beams=part.count("beams"),
        angle_min_rad=part.number("angle_min_rad"),
        angle_increment_rad=part.positive("angle_increment_rad"),
        range_min_m=part.positive("range_min_m"),
        range_max_m=part.positive("range_max_m"),
    )
    if (scan.beams - 1) * scan.angle_increment_rad > math.tau * (1 + _TURN_TOLERANCE):
        widest = math.tau / max(scan.beams - 1, 1)
        part.fail(
            "angle_increment_rad",
            f"at most {widest:.6g} rad, for {scan.beams} beams to stay within a full circle",
            scan.angle_increment_rad,
        )
    if not 0 < np.float32(scan.range_min_m) < np.float32(scan.range_max_m):
        part.fail("range_min_m", f"a range below range_max_m = {scan.range_max_m:g}",
                  scan.range_min_m)  # fmt: skip
    return scan
