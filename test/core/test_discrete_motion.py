"""Discrete motions on a base that follows its commands with a lag and is seen through noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from base_cases import PERIOD_NS, rover, rover_with_lift

from embodied_rl.core.discrete_motion import (
    TOLERANCE_M,
    TOLERANCE_RAD,
    DiscreteMotion,
)
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk

BODY = rover(lower=[-0.2, -1.5], upper=[0.6, 1.5], max_acceleration=[1.0, 6.0])
SUBSTEPS = 20
PERIOD_S = PERIOD_NS / 1e9
EXECUTE = 2


class Base:
    """A unicycle whose velocities follow the targets with a first-order lag."""

    def __init__(self, pose, lag_s: float = 0.08, noise: bool = True, seed: int = 0):
        self.pose, self.velocity = np.array(pose, dtype=float), np.zeros(2)
        self.lag_s = lag_s
        self.noise = np.array([0.005, 0.005, 0.005, 0.01, 0.01]) * noise
        self.random = np.random.default_rng(seed)
        self.blocked = False

    def drive(self, target) -> None:
        dt = PERIOD_S / SUBSTEPS
        for _ in range(SUBSTEPS):
            self.velocity += (np.asarray(target) - self.velocity) * min(dt / self.lag_s, 1.0)
            if self.blocked:
                self.velocity[0] = 0.0
            v, w = self.velocity
            middle = self.pose[2] + w * dt / 2
            self.pose += [v * dt * math.cos(middle), v * dt * math.sin(middle), w * dt]

    def measured(self) -> tuple[np.ndarray, np.ndarray]:
        seen = np.concatenate([self.pose, self.velocity]) + self.noise * self.random.normal(size=5)
        return seen[:3], seen[3:]


class Drive:
    """The control loop around one base: a look each tick, a plan every other one."""

    def __init__(self, base: Base, motion: DiscreteMotion):
        self.base, self.motion, self.tick = base, motion, 0
        self.sent: list[np.ndarray] = []
        self.path = [base.pose.copy()]
        self.motion.observe(0, *base.measured())

    def until_done(self, most_s: float = 20.0) -> float:
        """Seconds until the motion was over."""
        begin = self.tick
        while self.motion.busy:
            assert (self.tick - begin) * PERIOD_S < most_s
            if (self.tick - begin) % EXECUTE == 0:
                chunk = self.motion.chunk()
                assert chunk.stamp_ns == self.tick * PERIOD_NS and chunk.values.shape[1] == 2
                place = 0
            self.sent.append(chunk.values[place])
            place += 1
            self.base.drive(self.sent[-1])
            self.path.append(self.base.pose.copy())
            self.tick += 1
            self.motion.observe(self.tick * PERIOD_NS, *self.base.measured())
        return (self.tick - begin) * PERIOD_S


def standing(pose=(0.0, 0.0, 0.0), **options) -> Drive:
    motion = DiscreteMotion(BODY)
    drive = Drive(Base(pose, **options), motion)
    motion.place(np.array(pose))
    return drive


def assert_within_limits(sent) -> None:
    sent = np.array(sent)
    assert np.all(sent >= [-0.2, -1.5]) and np.all(sent <= [0.6, 1.5])
    change = np.abs(np.diff(np.vstack([np.zeros(2), sent]), axis=0))
    assert np.all(change <= np.array([1.0, 6.0]) * PERIOD_S + 1e-9)


@pytest.mark.parametrize("lag_s", [0.005, 0.08, 0.15])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_forward_stops_at_the_goal_and_not_behind_it(steps, lag_s):
    drive = standing((1.0, 2.0, math.pi / 2), lag_s=lag_s, noise=False)
    drive.motion.forward(steps)
    seconds = drive.until_done()
    goal = np.array([1.0, 2.0 + 0.25 * steps])
    assert np.linalg.norm(drive.base.pose[:2] - goal) <= TOLERANCE_M
    assert abs(drive.base.pose[2] - math.pi / 2) <= TOLERANCE_RAD
    assert max(pose[1] for pose in drive.path) <= goal[1] + 0.005
    assert seconds <= 0.25 * steps / 0.54 + 2.2
    assert drive.motion.gave_up == 0
    assert_within_limits(drive.sent)


@pytest.mark.parametrize("lag_s", [0.005, 0.08, 0.15])
@pytest.mark.parametrize("steps", [1, 3, 5, -3])
def test_a_turn_ends_at_its_angle_without_going_past_it(steps, lag_s):
    drive = standing((0.5, 0.5, 3.0), lag_s=lag_s, noise=False)  # past pi for those to the left
    drive.motion.turn(steps)
    drive.until_done()
    turned = drive.base.pose[2] - 3.0
    assert abs(turned - steps * math.pi / 6) <= TOLERANCE_RAD
    furthest = max(abs(pose[2] - 3.0) for pose in drive.path)
    assert furthest <= abs(steps) * math.pi / 6 + math.radians(1.5)
    assert np.linalg.norm(drive.base.pose[:2] - 0.5) < 1e-6
    assert_within_limits(drive.sent)


def test_errors_do_not_add_up_over_many_motions():
    drive = standing((0.25, 0.25, 0.0), seed=3)
    random = np.random.default_rng(1)
    cell, heading = np.array([0, 0]), 0
    ahead = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    for _ in range(60):
        action = random.integers(3)
        if action == 0:
            drive.motion.forward(2)
            cell = cell + ahead[heading]
        else:
            drive.motion.turn(3 if action == 1 else -3)
            heading = (heading + (1 if action == 1 else -1)) % 4
        drive.until_done()
        away = drive.base.pose[:2] - (0.25 + 0.5 * cell)
        assert np.linalg.norm(away) < 0.04
        off = drive.base.pose[2] - heading * math.pi / 2
        assert abs(math.atan2(math.sin(off), math.cos(off))) < math.radians(4)
    assert drive.motion.gave_up == 0
    assert_within_limits(drive.sent)


def test_it_comes_back_to_the_line_from_beside_it():
    drive = standing((0.0, 0.06, 0.1), noise=False)
    drive.motion.place(np.zeros(3))
    drive.motion.forward(4)
    drive.until_done()
    assert np.linalg.norm(drive.base.pose[:2] - [1.0, 0.0]) <= TOLERANCE_M
    assert drive.motion.gave_up == 0


def test_it_faces_the_way_before_it_drives():
    drive = standing((0.0, 0.0, 1.2), noise=False)
    drive.motion.place(np.zeros(3))
    drive.motion.forward(2)
    drive.until_done()
    turning = [velocity for velocity, pose in zip(drive.sent, drive.path) if abs(pose[2]) > 0.6]
    assert turning and all(velocity[0] == 0 for velocity in turning)
    assert np.linalg.norm(drive.base.pose[:2] - [0.5, 0.0]) <= TOLERANCE_M


def test_a_motion_that_is_held_up_is_given_up_and_counted():
    drive = standing(noise=False)
    drive.base.blocked = True
    drive.motion.forward(2)
    seconds = drive.until_done()
    assert drive.motion.gave_up == 1 and 2.0 < seconds < 10.0
    # what it was last told leads to rest within the limits
    values = np.vstack([drive.sent[-1], drive.motion.chunk().values])
    assert np.all(np.abs(np.diff(values[:, 0])) <= 0.1 + 1e-9) and values[-1, 0] < values[0, 0]


def test_without_a_motion_it_asks_for_rest():
    drive = standing()
    assert not drive.motion.busy and not drive.motion.chunk().values.any()


def test_it_goes_on_from_what_the_limits_let_through():
    drive = standing(noise=False)
    drive.motion.forward(8)
    drive.motion.chunk()
    drive.motion.executed(ActionChunk(0, PERIOD_NS, np.array([[0.02, 0.0], [0.04, 0.0]])))
    drive.motion.observe(2 * PERIOD_NS, np.array([0.01, 0.0, 0.0]), np.zeros(2))
    assert drive.motion.chunk().values[0, 0] == pytest.approx(0.14)


def test_a_restored_motion_goes_on_the_same_way():
    drive = standing(seed=5)
    drive.motion.turn(2)
    drive.until_done()
    drive.motion.forward(3)
    drive.motion.chunk()
    pose, velocity = drive.base.measured()
    again = DiscreteMotion(BODY)
    again.restore(json.loads(json.dumps(drive.motion.state())))
    for motion in (drive.motion, again):
        motion.observe((drive.tick + 1) * PERIOD_NS, pose, velocity)
    assert again.busy and again.goal.tolist() == drive.motion.goal.tolist()
    assert again.chunk().values.tolist() == drive.motion.chunk().values.tolist()
    assert again.state() == drive.motion.state()


def test_time_in_which_nobody_drove_does_not_count():
    drive = standing(noise=False)
    drive.motion.forward(2)
    again = DiscreteMotion(BODY)
    again.restore(drive.motion.state())
    hour = 36_000 * PERIOD_NS
    again.observe(hour, np.zeros(3), np.zeros(2))
    assert again.busy and again.gave_up == 0
    again.observe(hour + 200 * PERIOD_NS, np.zeros(3), np.zeros(2))
    assert not again.busy and again.gave_up == 1


def test_half_a_turn_and_more_is_refused():
    for steps in (0, 6, -6):
        with pytest.raises(ValueError, match="1 to 5"):
            standing().motion.turn(steps)


def test_a_robot_without_the_two_velocities_is_refused():
    with pytest.raises(UserError, match=r"commands: .*linear_x.*saw .*lift"):
        DiscreteMotion(rover_with_lift())
