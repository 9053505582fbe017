"""Scans of a lidar in a bag: to rows, to the cache, and what is damaged."""

from __future__ import annotations

import math

import bag_maker as maker
import numpy as np

from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.core.embodiment import Embodiment

MS = maker.MS
ROBOT = """
name: rover
control_rate_hz: 10
streams:
  scan: {topic: scan, type: sensor_msgs/msg/LaserScan, beams: 4, angle_min_rad: -1.5,
         angle_increment_rad: 1.0, range_min_m: 0.1, range_max_m: 5.0, rate_hz: 10, max_age_s: 0.15}
commands:
  base: {topic: cmd_vel, type: geometry_msgs/msg/TwistStamped, dimensions: [linear_x, angular_z],
         lower: [-1, -1], upper: [1, 1], max_acceleration: [1, 1]}
"""
BODY = Embodiment.parse(ROBOT, "rover.yaml")


def scan(stamp_ns: int, ranges: list[float]):
    return maker.make(
        "sensor_msgs/msg/LaserScan",
        header=maker.header(stamp_ns, "base_link"),
        angle_min=-1.5, angle_max=1.5, angle_increment=1.0, time_increment=0.0, scan_time=0.1,
        range_min=0.1, range_max=5.0,
        ranges=np.array(ranges, dtype=np.float32), intensities=np.zeros(0, dtype=np.float32),
    )  # fmt: skip


def ranges(tick: int) -> list[float]:
    return [1.0 + tick / 7, math.inf, math.nan, -math.inf]


def record(folder, broken: tuple[int, ...] = ()):
    """Two seconds of a scan a tick, those of the ``broken`` ticks with a beam too few."""
    script = maker.Script()
    for tick in range(21):
        now = maker.START_NS + tick * 100 * MS
        values = ranges(tick)[:-1] if tick in broken else ranges(tick)
        script.add(now + 3 * MS, "/scan", scan(now, values))
    return maker.write(folder / "bag", script)


def test_a_scan_comes_out_of_a_bag_and_of_the_cache_as_its_readings(tmp_path):
    path = record(tmp_path)
    with Bag.open(path) as bag:
        episode = read_episode(bag, BODY)
    assert len(episode) == 21 and episode.valid["scan"].all()
    low = np.float32(0.1)
    wanted = [[np.float32(ranges(tick)[0]), 5, 0, low] for tick in range(21)]
    assert episode.values["scan"].dtype == np.float32
    np.testing.assert_array_equal(episode.values["scan"], np.array(wanted, dtype=np.float32))
    convert(path, tmp_path / "cache", embodiment=BODY, workers=1)
    (cached,) = EpisodeCache(tmp_path / "cache")
    assert cached.values("scan").dtype == np.float32
    np.testing.assert_array_equal(cached.values("scan"), episode.values["scan"])


def test_a_scan_of_another_lidar_is_reported_and_missing(tmp_path):
    with Bag.open(record(tmp_path, broken=(7, 8, 9))) as bag:
        episode = read_episode(bag, BODY)
    assert np.flatnonzero(~episode.valid["scan"]).tolist() == [8, 9]  # at 7 that of 6 still counts
    assert np.isnan(episode.values["scan"][8]).all()
    assert any("expected 4 beams, saw 3" in line for line in bag.report.lines())
