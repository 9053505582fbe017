"""The actions of a mobile base, from the velocity commands of a bag that somebody else recorded."""

from __future__ import annotations

import bag_maker as maker
import numpy as np
import pytest

from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.core.embodiment import Embodiment

MS = maker.MS
ODOM = "topic: odom, type: nav_msgs/msg/Odometry, rate_hz: 50, max_age_s: 0.1"
ROBOT = f"""
name: rover
control_rate_hz: 10
streams:
  place: {{{ODOM}, field: position, unit: m}}
  yaw: {{{ODOM}, field: yaw, unit: rad}}
commands:
  base: {{topic: cmd_vel, type: geometry_msgs/msg/KIND, dimensions: [linear_x, angular_z],
         lower: [-1, -1], upper: [2, 1], max_acceleration: [1, 1]}}
"""


def vector(x=0.0, y=0.0, z=0.0):
    return maker.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def odometry(stamp_ns: int):
    point = maker.make("geometry_msgs/msg/Point", x=stamp_ns / 1e9, y=0.0, z=0.0)
    turn = maker.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.6, w=0.8)
    pose = maker.make("geometry_msgs/msg/Pose", position=point, orientation=turn)
    twist = maker.make("geometry_msgs/msg/Twist", linear=vector(), angular=vector())
    unknown = np.zeros(36)
    return maker.make(
        "nav_msgs/msg/Odometry",
        header=maker.header(stamp_ns, "odom"),
        child_frame_id="base_link",
        pose=maker.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=unknown),
        twist=maker.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=unknown),
    )


def twist(kind: str, stamp_ns: int, v: float, w: float):
    plain = maker.make("geometry_msgs/msg/Twist", linear=vector(v), angular=vector(z=w))
    if kind == "Twist":
        return plain
    stamped = maker.header(stamp_ns, "base_link")
    return maker.make("geometry_msgs/msg/TwistStamped", header=stamped, twist=plain)


def episode(folder, kind: str, commands: dict[int, tuple[float, float]], stamped: bool = True):
    """Two seconds; commands by their ms after the start. Stamped ones arrive 30 ms late."""
    script = maker.Script()
    for now in range(maker.START_NS, maker.START_NS + 2000 * MS + 1, 20 * MS):
        script.add(now + 3 * MS, "/odom", odometry(now))
    late = 30 * MS if kind == "TwistStamped" and stamped else 0
    for at_ms, (v, w) in commands.items():
        now = maker.START_NS + at_ms * MS
        script.add(now + late, "/cmd_vel", twist(kind, now if stamped else 0, v, w))
    script.entries.sort(key=lambda entry: entry.log_ns)
    path = maker.write(folder / "bag", script)
    body = Embodiment.parse(ROBOT.replace("KIND", kind), "rover.yaml")
    with Bag.open(path) as bag:
        return read_episode(bag, body)


@pytest.mark.parametrize(
    ("kind", "stamped"), [("TwistStamped", True), ("TwistStamped", False), ("Twist", True)]
)
def test_the_action_of_a_tick_is_the_velocity_of_its_period(tmp_path, kind, stamped):
    found = episode(
        tmp_path, kind, {0: (0.1, 0.0), 100: (0.2, -0.5), 290: (0.3, 0.0), 400: (0.0, 0.0)}, stamped
    )
    assert found.values["yaw"][0] == pytest.approx(2 * np.arctan2(0.6, 0.8))
    first = int((found.stamps_ns[0] - maker.START_NS) // (100 * MS))
    wanted = [[0.1, 0], [0.2, -0.5], [0.3, 0], [0.3, 0], [0, 0], [0, 0]][first:]
    np.testing.assert_array_equal(found.actions[: len(wanted)], wanted)
    assert found.action_valid.all()  # rest lasts


def test_a_velocity_that_nobody_repeats_is_unknown_after_half_a_second(tmp_path):
    found = episode(tmp_path, "TwistStamped", {0: (1.0, 0.0), 1200: (0.0, 0.0)})
    at_ms = (found.stamps_ns - maker.START_NS) // MS
    known = (at_ms <= 500) | (at_ms >= 1200)
    np.testing.assert_array_equal(found.action_valid, known)
    assert np.isnan(found.actions[~known]).all() and (found.actions[at_ms <= 500, 0] == 1).all()


def test_a_velocity_along_no_dimension_of_the_robot_is_a_finding(tmp_path):
    body = Embodiment.parse(ROBOT.replace("KIND", "Twist"), "rover.yaml")
    script = maker.Script()
    for now in range(maker.START_NS, maker.START_NS + 1000 * MS, 20 * MS):
        script.add(now, "/odom", odometry(now))
    sideways = maker.make("geometry_msgs/msg/Twist", linear=vector(y=0.2), angular=vector())
    script.add(maker.START_NS + 1000 * MS, "/cmd_vel", sideways)
    with Bag.open(maker.write(tmp_path / "bag", script)) as bag:
        found = read_episode(bag, body)
    assert "linear_y" in " ".join(map(str, found.report.findings))
