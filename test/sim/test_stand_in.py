"""The stand-in robot's controllers keep the rules of the real ones, by hand-made examples."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_rl.bringup.environment import share_file
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.sim.stand_in import (
    Faults,
    Refused,
    StandInRobot,
    Trajectory,
    TrajectoryController,
    VelocityController,
)

MS = 1_000_000
JOINTS = ("a", "b")
UR = Embodiment.load(share_file("sim_worlds/tabletop/ur5e_2f85.yaml"))


def arm() -> TrajectoryController:
    return TrajectoryController(JOINTS, np.zeros(2))


def one(stamp_ns: int, after_ms: int, *positions: float, names=JOINTS) -> Trajectory:
    return Trajectory(names, stamp_ns, [after_ms * MS], [positions])


@pytest.mark.parametrize(
    ("trajectory", "reason"),
    [
        (one(900 * MS, 50, 1, 1), "ends in the past"),
        (one(0, 50, 1, names=("a",)), "joints"),
        (one(0, 50, 1, 1, names=("a", "c")), "joints"),
        (Trajectory(JOINTS, 0, [], []), "empty"),
        (Trajectory(JOINTS, 0, [50 * MS, 50 * MS], [[0, 0], [1, 1]]), "increasing"),
        (one(0, 50, 1), "number of positions"),
        (one(0, 50, 1, float("nan")), "not finite"),
        (Trajectory(JOINTS, 0, [50 * MS], [[1, 1]], [0.1, 0]), "last point is not zero"),
    ],
)
def test_what_a_trajectory_controller_refuses(trajectory, reason):
    with pytest.raises(Refused, match=reason):
        arm().accept(trajectory, 1000 * MS)


def test_a_stamp_of_zero_is_now_on_every_clock():
    for clock_ns in (1, 10**18):
        controller = arm()
        controller.accept(one(0, 100, 1.0, -1.0), clock_ns)
        begin = controller.update(clock_ns, np.array([0.2, 0.0]))
        assert begin.tolist() == [0.2, 0.0]  # from where the joints are
        middle = controller.update(clock_ns + 50 * MS, np.zeros(2))
        np.testing.assert_allclose(middle, [0.6, -0.5], atol=1e-6)
        assert controller.update(clock_ns + 300 * MS, np.zeros(2)).tolist() == [1.0, -1.0]


def test_a_point_that_has_passed_is_left_out_and_an_inactive_controller_ignores_all():
    controller = arm()
    controller.accept(
        Trajectory(JOINTS, 900 * MS, [50 * MS, 150 * MS], [[5, 5], [1, 1]]), 1000 * MS
    )
    np.testing.assert_allclose(controller.update(1000 * MS, np.zeros(2)), [3, 3])
    controller.active = False
    with pytest.raises(Refused, match="not active"):
        controller.accept(one(0, 100, 1, 1), 1000 * MS)


def test_a_base_ignores_old_velocities_and_stops_in_silence():
    base = VelocityController(2)
    with pytest.raises(Refused, match="older"):
        base.accept(np.ones(2), 400 * MS, 1000 * MS)
    base.accept(np.array([0.5, 0.1]), 0, 1000 * MS)
    assert base.update(1500 * MS).tolist() == [0.5, 0.1]
    assert base.update(1501 * MS).tolist() == [0.0, 0.0]


def test_a_robot_stops_at_the_pendant_and_is_led_by_hand():
    robot = StandInRobot(UR)
    arm_joints = UR.commands["arm"].names
    robot.command_trajectory("arm", Trajectory(arm_joints, 0, [500 * MS], [[0.4] * 6]), 0)
    for i in range(100):
        robot.advance(i * 10 * MS, 0.01)
    np.testing.assert_allclose(robot.state[:6], 0.4, atol=1e-3)
    robot.set_faults(Faults(pendant_stop=True))
    robot.command_trajectory("arm", Trajectory(arm_joints, 0, [500 * MS], [[0.0] * 6]), 10**9)
    robot.advance(2 * 10**9, 0.5)
    np.testing.assert_allclose(robot.state[:6], 0.4, atol=1e-3)
    robot.set_faults(Faults(freedrive={"elbow_joint": 1.0}, inactive=["arm"]))
    robot.advance(2 * 10**9, 0.5)
    np.testing.assert_allclose(robot.state[2], 0.9, atol=1e-3)
    robot.command_trajectory("arm", Trajectory(arm_joints, 0, [500 * MS], [[0.0] * 6]), 10**9)
    assert robot.refused == {("arm", "the controller is not active"): 1}
    robot.set_faults(Faults())
    robot.advance(3 * 10**9, 0.5)  # active again: it holds where it was led
    np.testing.assert_allclose(robot.state[2], 0.9, atol=1e-3)


def test_a_robot_with_a_prefix_is_commanded_by_the_names_in_its_messages():
    robot = StandInRobot(Embodiment.parse(f"prefix: left_\n{UR.text}", "left.yaml"))
    names = [f"left_{joint}" for joint in UR.commands["arm"].names]
    robot.command_trajectory("arm", Trajectory(names, 0, [100 * MS], [[0.1] * 6]), 0)
    assert robot.accepted["arm"] == 1 and not robot.refused
