"""The open-loop check against errors that are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_rl.bags.episode import Episode
from embodied_rl.bags.report import Report
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk, PolicySpec
from embodied_rl.policies.open_loop import OpenLoopMeter

ROBOT = Embodiment.parse(
    """
name: cart
control_rate_hz: 5
streams:
  place: {topic: js, type: sensor_msgs/msg/JointState, field: position, joints: [slide], unit: m,
          rate_hz: 20, max_age_s: 0.5}
  pace: {topic: odom, type: nav_msgs/msg/Odometry, field: linear_velocity, unit: m/s,
         rate_hz: 20, max_age_s: 0.5}
  turn: {topic: odom, type: nav_msgs/msg/Odometry, field: angular_velocity, unit: rad/s,
         rate_hz: 20, max_age_s: 0.5}
commands:
  slide: {topic: slide, type: std_msgs/msg/Float64MultiArray, joints: [slide], unit: m,
          lower: [-9], upper: [9], max_velocity: [1]}
  base: {topic: cmd_vel, type: geometry_msgs/msg/Twist, dimensions: [linear_x],
         lower: [-1], upper: [1], max_acceleration: [1]}
""",
    "cart.yaml",
)
PERIOD_NS = 200_000_000
SLOPE, SPEED = 0.01, 0.25  # recorded: a slide that moves on by SLOPE a tick, a base at SPEED


def recorded(rows: int, holes: tuple[int, ...] = ()) -> Episode:
    stamps = 10 * PERIOD_NS + PERIOD_NS * np.arange(rows)
    actions = np.stack([SLOPE * np.arange(1.0, rows + 1), np.full(rows, SPEED)], axis=1)
    valid = np.ones(rows, dtype=bool)
    valid[list(holes)] = False
    place = SLOPE * np.arange(float(rows))[:, None]
    return Episode(
        "bag", ROBOT, stamps, {"place": place}, {"place": valid}, actions, np.ones(rows, bool),
        None, None, "", Report("bag"),
    )  # fmt: skip


class Ahead:
    """Knows the slope, and is wrong by ``off`` a tick ahead; thinks that the base stands."""

    def __init__(self, off: float):
        self.spec = PolicySpec.on(ROBOT, "ahead", ["place"], chunk=5, execute=2)
        self._off, self.seen, self.told = off, [], []

    def reset(self, episode) -> None:
        self.seen = []

    def observe(self, row) -> None:
        self.seen.append(row)

    def act(self) -> ActionChunk:
        row, ahead = self.seen[-1], np.arange(1.0, 6)
        slide = row.values["place"][0] + (SLOPE + self._off) * ahead
        return ActionChunk(row.stamp_ns, PERIOD_NS, np.stack([slide, 0 * ahead], axis=1))

    def executed(self, chunk: ActionChunk) -> None:
        self.told.append(chunk)


def test_errors_of_plans_and_of_holding_still():
    policy = Ahead(0.003)
    meter = OpenLoopMeter(policy)
    meter.add(recorded(12, holes=(3,)))
    found = meter.result()
    assert found.horizons == (1, 2, 5)
    # plans at rows 1, 4 (row 3 lacks its stream), 6, 8, 10; only the first targets of the last two
    # lie within the episode
    assert meter.plans == 5 and found.counts.tolist() == [5, 5, 3]
    assert [row.stamp_ns // PERIOD_NS - 10 for row in policy.seen] == list(range(12))
    np.testing.assert_allclose(found.policy[:, 0], 0.003 * np.array([1, 2, 5]), atol=1e-12)
    np.testing.assert_allclose(found.hold_still[:, 0], SLOPE * np.array([1, 2, 5]), atol=1e-12)
    # a base that holds still stands, it does not go on as before
    np.testing.assert_allclose(found.policy[:, 1], SPEED)
    np.testing.assert_allclose(found.hold_still[:, 1], SPEED)
    # it is told what the recording says was done
    np.testing.assert_allclose(policy.told[0].values[:, 0], [0.02, 0.03])


def test_another_robot_is_refused_and_nothing_recorded_is_no_error():
    policy = Ahead(0.0)
    meter = OpenLoopMeter(policy)
    meter.add(recorded(0))
    assert meter.plans == 0 and np.isnan(meter.result().policy).all()
    text = ROBOT.text.replace("control_rate_hz: 5", "control_rate_hz: 10")
    other = Embodiment.parse(text, "other.yaml")
    episode = recorded(4)
    with pytest.raises(UserError, match="control rate 5 Hz instead of 10 Hz"):
        meter.add(Episode(**{**vars(episode), "embodiment": other}))
    assert meter.result().counts.tolist() == [0, 0, 0]
