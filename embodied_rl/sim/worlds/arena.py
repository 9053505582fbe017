"""World ``arena``: a differential-drive robot on a flat floor of 10 m by 10 m.

The robot and the floor stand in ``sim_worlds/arena/arena.xml``, of the size and mass of an outdoor
base of half a metre. Two wheels are driven at velocities that a controller makes of the command;
a caster bears the rest. Regions of a task are discs drawn on the floor. World frame is ``odom``.

``odom`` carries the true pose and velocity with noise, as a localisation gives them, not the sum of
wheel turns: goals are places of the world, and what is lost to slip is then seen and corrected.
"""

from __future__ import annotations

import mujoco

from embodied_rl.sim.worlds.base import CameraSource, sim_worlds_file
from embodied_rl.sim.worlds.mobile import ODOMETRY_SOURCES, MobileWorld

WHEEL_RADIUS_M, TRACK_M = 0.1, 0.36


def build(visuals: str) -> mujoco.MjSpec:
    """The world without a task's regions; there is one set of ``visuals``."""
    return mujoco.MjSpec.from_file(str(sim_worlds_file("arena/arena.xml")))


ARENA = MobileWorld(
    name="arena",
    embodiment_file="arena/diff_drive.yaml",
    visuals=("primitives",),
    build=build,
    sources={
        **ODOMETRY_SOURCES,
        "camera_overhead": CameraSource("overhead", "rgb"),
    },
    instances={"robot": "base_link"},
    judge_period_ns=0,  # every step: the samples of a task must be met
    wheel_radius_m=WHEEL_RADIUS_M,
    track_m=TRACK_M,
)
