"""Small tasks that the tests of TGPO share."""

from __future__ import annotations

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.sim.stl_tasks.task import StlTask, task_from

REGIONS = {
    "A": {"centre": [2.0, 0.0], "radius": 0.8},
    "B": {"centre": [-2.0, 0.0], "radius": 0.8},
    "C": {"centre": [0.0, 2.0], "radius": 0.8},
    "O": {"centre": [0.0, -2.0], "radius": 1.0},
}


def make_task(formula: str, dynamics: str = "linear", name: str = "case") -> StlTask:
    return task_from(
        {
            "name": name, "dynamics": dynamics, "layers": "two_layer", "formula": formula,
            "regions": REGIONS, "start": {"low": [-0.5, -0.5], "high": [0.5, 0.5]},
        },
        name,
    )  # fmt: skip


ODOM = "topic: odom, type: nav_msgs/msg/Odometry, rate_hz: 50, max_age_s: 0.1"


def rover(limits: str) -> Embodiment:
    """A wheeled base; ``limits`` are the keys of its command group."""
    text = f"""
name: rover
control_rate_hz: 10
base_frame: odom
streams:
  base_position: {{{ODOM}, field: position, unit: m}}
  base_yaw: {{{ODOM}, field: yaw, unit: rad}}
  base_linear_velocity: {{{ODOM}, field: linear_velocity, unit: m/s}}
commands:
  base: {{topic: cmd_vel, type: geometry_msgs/msg/TwistStamped,
         dimensions: [linear_x, angular_z], {limits}}}
"""
    return Embodiment.parse(text, "rover.yaml")
