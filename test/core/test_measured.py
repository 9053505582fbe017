"""What the gate takes for the state of the robot: samples that agree, and nothing that leaps."""

from __future__ import annotations

import numpy as np
import pytest
from base_cases import rover
from core_cases import MS, robot, sample

from embodied_rl.core.errors import MessageError
from embodied_rl.core.heartbeat import Heartbeat
from embodied_rl.core.measured import AgreedState
from embodied_rl.core.policy_link import PolicyLink
from embodied_rl.core.publishers import Series
from embodied_rl.core.stillness import PATIENCE_S, Stillness

ARM = robot(workspace=False)  # shoulder 2 rad/s, elbow 3 rad/s, finger 4 rad/s, each at 50 Hz


def watched(*joints: tuple[float, float], finger: float = 0.1) -> AgreedState:
    """An arm whose joints were measured every 20 ms."""
    watch = AgreedState(ARM)
    for i, pair in enumerate(joints):
        watch.add("arm", sample((i + 1) * 20 * MS, *pair))
        watch.add("grip", sample((i + 1) * 20 * MS, finger))
    return watch


def test_one_sample_is_nothing_and_two_that_agree_are_the_state():
    assert watched((0.5, 0.5)).newest() is None
    assert watched((0.5, 0.5), (0.52, 0.5)).newest().tolist() == [0.52, 0.5, 0.1]
    assert watched((0.5, 0.5), (2.5, 0.5)).newest() is None


@pytest.mark.parametrize("wrong", [2.0, -1e300, 1e300])
def test_a_glitch_is_passed_over(wrong):
    watch = watched((0, 0), (0.01, 0), (wrong, 0), (0.03, 0))
    assert watch.newest().tolist() == [0.03, 0, 0.1] and watch.doubted == 1
    assert not watch.leapt


def test_a_joint_that_tells_another_place_is_not_believed_until_it_is_back_or_said_to_be_true():
    watch = watched((0, 0), (0, 0), (2, 0), (2, 0), (2, 0))
    assert watch.leapt == {"arm"} and watch.newest()[0] == 0
    watch.add("arm", sample(120 * MS, 0.02, 0))
    assert not watch.leapt and watch.newest()[0] == 0.02
    watch = watched((0, 0), (0, 0), (2, 0), (2, 0))
    watch.reset(90 * MS)
    for i in (5, 6):
        watch.add("arm", sample(i * 20 * MS, 2, 0))
        watch.add("grip", sample(i * 20 * MS, 0.1))
    assert watch.newest()[0] == 2 and not watch.leapt


def test_a_robot_that_was_away_is_believed_elsewhere_when_it_goes_on_saying_so():
    watch = watched((0, 0), (0, 0))
    for stamp_ms in range(2_000, 3_000, 20):  # a driver that starts: zeros before it has read
        watch.add("arm", sample(stamp_ms * MS, 1.5, 0))
        assert watch.newest()[0] == 0 and not watch.leapt
    watch.add("arm", sample(3_000 * MS, 1.5, 0))
    assert watch.newest()[0] == 1.5
    watch = watched((0, 0), (0, 0))
    for stamp_ms in (2_000, 2_020):
        watch.add("arm", sample(stamp_ms * MS, 0.05, 0))
    assert watch.newest()[0] == 0.05  # near where it was: at once


@pytest.mark.parametrize("absurd", [50.0, 1e10, -1e300])
def test_a_joint_far_outside_its_range_is_not_believed(absurd):
    assert watched((absurd, 0), (absurd, 0), (absurd, 0)).newest() is None


def test_a_driver_that_publishes_faster_than_it_measures_is_believed():
    watch = AgreedState(ARM)
    for i in range(200):  # 500 Hz, a new value every 16 ms, at 2 rad/s
        watch.add("arm", sample(i * 2 * MS, 2.0 * (i // 8 * 8) * 0.002, 0))
        watch.add("grip", sample(i * 2 * MS, 0.1))
    assert not watch.leapt and watch.newest()[0] == 2.0 * 192 * 0.002


def test_a_blow_changes_the_velocity_of_a_base_and_is_believed():
    watch = AgreedState(rover())
    for i, speed in enumerate((1.0, 1.0, 0.0, 0.0)):
        watch.add("base_linear_velocity", sample((i + 1) * 20 * MS, speed, 0, 0))
        watch.add("base_angular_velocity", sample((i + 1) * 20 * MS, 0, 0, 0))
    assert watch.newest().tolist()[0] == 0.0 and not watch.leapt


# Who is obeyed


def test_one_policy_is_obeyed_until_it_is_silent_and_gone():
    link = PolicyLink(silence_s=0.2)
    link.check("a1", 0.0, alone=True)  # a chunk may come before the first heartbeat
    link.hear(Heartbeat("a1", 5, "camera late"), 7, 0.1, alone=True)
    assert (link.tick_ns, link.chunk_ns, link.refusal) == (7, 5, "camera late")
    for alone, now_s in ((True, 0.2), (False, 99.0)):
        with pytest.raises(MessageError, match="session 'a1', saw another one, 'b2'"):
            link.check("b2", now_s, alone)
        with pytest.raises(MessageError, match="policy/heartbeat"):
            link.hear(Heartbeat("b2", 9), 9, now_s, alone)
    link.hear(Heartbeat("b2", 9), 9, 99.0, alone=True)  # started again
    assert link.session == "b2" and link.chunk_ns == 9 and not link.refusal
    link.forget()
    link.check("", 99.0, alone=False)
    assert link.session == ""


def test_numbers_that_fall_again_and_again_are_of_two_publishers():
    one, two, again = Series(), Series(), Series()
    for i in range(20):
        one.saw(i, i / 50)
        two.saw(i if i % 2 else 100 + i, i / 50)
    for number in (7, 8, 9, 1, 2, 3):  # a driver that was started again
        again.saw(number, 0.1)
    assert not one.mixed(0.4) and two.mixed(0.4) and not again.mixed(0.4)
    assert not two.mixed(10.0), "the second one has gone"


# Whether it stands


def test_a_robot_stands_when_its_joints_do_and_an_alarm_is_raised_when_they_go_on():
    still = Stillness(ARM)
    still.begin(0.0)
    for i in range(100):
        still.saw(i / 50, np.array([0.3 + 0.5 * i / 50, 0.0, 0.0]))
    assert not still.confirmed and still.alarm(0.5) == ""
    assert still.alarm(PATIENCE_S + 0.1).startswith("shoulder goes on moving")
    for i in range(100, 130):
        still.saw(i / 50, np.array([1.3, 0.001 * (i % 2), 0.0]))
    assert still.confirmed and still.alarm(9.0) == ""
