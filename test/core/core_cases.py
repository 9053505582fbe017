"""A two-link planar arm with a gripper: every number of it can be checked by hand.

Both links are 1 m long and turn about z, so the tool stands at
``(cos a + cos(a + b), sin a + sin(a + b), 0)``.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import yaml

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import PolicySpec
from embodied_rl.core.window import Sample

PERIOD_NS = 100_000_000
MS = 1_000_000

ROBOT = """
name: planar
control_rate_hz: 10
base_frame: base
description: two links and a gripper
streams:
  arm: {topic: joint_states, type: sensor_msgs/msg/JointState, field: position,
        joints: [shoulder, elbow], unit: rad, rate_hz: 50, max_age_s: 0.1}
  speed: {topic: joint_states, type: sensor_msgs/msg/JointState, field: velocity,
          joints: [elbow, shoulder], unit: rad/s, rate_hz: 50, max_age_s: 0.1}
  grip: {topic: joint_states, type: sensor_msgs/msg/JointState, field: position,
         joints: [finger], unit: rad, rate_hz: 50, max_age_s: 0.1}
  thing: {topic: thing, type: geometry_msgs/msg/PoseStamped, field: position, unit: m,
          rate_hz: 20, max_age_s: 0.2}
  turn: {topic: thing, type: geometry_msgs/msg/PoseStamped, field: orientation, rate_hz: 20,
         max_age_s: 0.2}
  camera: {topic: camera/fixed/image_raw, type: sensor_msgs/msg/Image, encoding: rgb8,
           shape: [2, 3, 3], rate_hz: 10, max_age_s: 0.3}
  labels: {topic: camera/fixed/segmentation, type: sensor_msgs/msg/Image, encoding: mono16,
           shape: [2, 3], rate_hz: 10, max_age_s: 0.3}
  depth: {topic: camera/fixed/depth, type: sensor_msgs/msg/Image, encoding: 32FC1,
          shape: [2, 3], rate_hz: 10, max_age_s: 0.3}
commands:
  links: {topic: arm/joint_trajectory, type: trajectory_msgs/msg/JointTrajectory,
          joints: [shoulder, elbow], unit: rad, lower: [-3, -2.5], upper: [3, 2.5],
          max_velocity: [2, 3]}
  fingers: {topic: gripper/commands, type: std_msgs/msg/Float64MultiArray, joints: [finger],
            unit: rad, lower: [0], upper: [0.8], max_velocity: [4]}
kinematics:
  joints:
    shoulder: {xyz: [0, 0, 0], rpy: [0, 0, 0], axis: [0, 0, 1]}
    elbow: {xyz: [1, 0, 0], rpy: [0, 0, 0], axis: [0, 0, 2]}
  tool: {xyz: [1, 0, 0], rpy: [0, 0, 0]}
workspace: {lower: [-5, -1.5, -1], upper: [1.8, 1.5, 1]}
"""

ABSENT = object()
_DATA = yaml.safe_load(ROBOT)


def robot_data() -> dict[str, Any]:
    return copy.deepcopy(_DATA)


def changed(path: str, value: Any) -> str:
    """The robot's file with one key set, or taken out when ``value`` is ABSENT."""
    data = robot_data()
    *parents, last = path.split(".")
    part = data
    for name in parents:
        part = part[name]
    if value is ABSENT:
        del part[last]
    else:
        part[last] = value
    return yaml.safe_dump(data, sort_keys=False)


def robot(workspace: bool = True) -> Embodiment:
    return Embodiment.parse(ROBOT if workspace else changed("workspace", ABSENT), "planar.yaml")


def tip(q: np.ndarray) -> np.ndarray:
    """Tool position of the planar arm from school geometry."""
    a, b = q[0], q[0] + q[1]
    return np.array([np.cos(a) + np.cos(b), np.sin(a) + np.sin(b), 0.0])


def sample(stamp_ns: int, *value: float) -> Sample:
    return Sample(stamp_ns, np.array(value, dtype=np.float64))


def spec(streams: dict[str, tuple[int, ...]], execute: int = 2, chunk: int = 4) -> PolicySpec:
    return PolicySpec(
        name="probe",
        streams=streams,
        action_dim=3,
        chunk=chunk,
        execute=execute,
        rate_hz=10.0,
        history=2,
        stride=1,
        embodiment="planar",
        embodiment_hash="",
    )
