"""A differential-drive base with a lift: velocities, a plain array and a trajectory in one."""

from __future__ import annotations

from types import SimpleNamespace as Msg

import yaml

from embodied_rl.core.embodiment import Embodiment

PERIOD_NS = 100_000_000
MS = 1_000_000

ODOM = "topic: odom, type: nav_msgs/msg/Odometry, rate_hz: 50, max_age_s: 0.1"
ROBOT = f"""
name: rover
control_rate_hz: 10
base_frame: odom
streams:
  base_position: {{{ODOM}, field: position, unit: m}}
  base_orientation: {{{ODOM}, field: orientation}}
  base_yaw: {{{ODOM}, field: yaw, unit: rad}}
  base_linear_velocity: {{{ODOM}, field: linear_velocity, unit: m/s}}
  base_angular_velocity: {{{ODOM}, field: angular_velocity, unit: rad/s}}
commands:
  base: {{topic: cmd_vel, type: geometry_msgs/msg/TwistStamped,
         dimensions: [linear_x, angular_z], lower: [-0.5, -1], upper: [2, 1],
         max_acceleration: [1, 5]}}
"""
JOINT = "topic: joint_states, type: sensor_msgs/msg/JointState, rate_hz: 50, max_age_s: 0.1"
LIFT = f"""
streams:
  lift: {{{JOINT}, field: position, joints: [lift, claw], unit: m}}
commands:
  lift: {{topic: lift/joint_trajectory, type: trajectory_msgs/msg/JointTrajectory, joints: [lift],
         unit: m, lower: [0], upper: [1], max_velocity: [0.5]}}
  claw: {{topic: claw/commands, type: std_msgs/msg/Float64MultiArray, joints: [claw],
         unit: m, lower: [0], upper: [0.1], max_velocity: [1]}}
"""


def text(**changes: object) -> str:
    """The base's file with keys of its command group set, or taken out with None."""
    data = yaml.safe_load(ROBOT)
    for key, value in changes.items():
        if value is None:
            del data["commands"]["base"][key]
        else:
            data["commands"]["base"][key] = value
    return yaml.safe_dump(data, sort_keys=False)


def rover(**changes: object) -> Embodiment:
    return Embodiment.parse(text(**changes), "rover.yaml")


def rover_with_lift() -> Embodiment:
    """Actions: linear_x, angular_z, lift, claw."""
    data, more = yaml.safe_load(ROBOT), yaml.safe_load(LIFT)
    for key in ("streams", "commands"):
        data[key] |= more[key]
    return Embodiment.parse(yaml.safe_dump(data, sort_keys=False), "rover.yaml")


def xyz(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Msg:
    return Msg(x=x, y=y, z=z)


def odometry(sec: int = 12, **changes: object) -> Msg:
    parts = {
        "position": xyz(1.0, 2.0, 3.0),
        "orientation": Msg(x=0.0, y=0.0, z=0.6, w=0.8),
        "linear": xyz(0.4, 0.5, 0.6),
        "angular": xyz(0.7, 0.8, 0.9),
    } | changes
    return Msg(
        header=Msg(stamp=Msg(sec=sec, nanosec=345), frame_id="odom"),
        child_frame_id="base_link",
        pose=Msg(pose=Msg(position=parts["position"], orientation=parts["orientation"])),
        twist=Msg(twist=Msg(linear=parts["linear"], angular=parts["angular"])),
    )


def twist(linear: Msg | None = None, angular: Msg | None = None) -> Msg:
    return Msg(linear=linear or xyz(), angular=angular or xyz())
