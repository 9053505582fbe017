"""Task ``pick_place``: take a cube that lies anywhere in a region and put it on the hub.

What must be remembered: nothing. This is the control case: every frame shows the cube, the gripper
and the hub, and with them what to do next. Memory cannot help here and must not hurt.
"""

from __future__ import annotations

import mujoco
import numpy as np

from embodied_rl.core.policy import Outcome
from embodied_rl.sim.tasks.base import (
    CUBE_HALF_M,
    RUNNING,
    ObjectState,
    Start,
    add_cube,
    add_disc,
    fell,
)
from embodied_rl.sim.tasks.replace_object import HOME_TOOL, HUB, HUB_RADIUS_M, HUB_RGBA

REGION_LOWER, REGION_UPPER = (0.34, -0.22), (0.48, 0.22)  # x, y in metres
REACH_LOWER, REACH_UPPER = (0.25, -0.40), (0.75, 0.40)  # a cube pushed out of here is lost


class PickPlace:
    """See the module's docstring."""

    name = "pick_place"
    world = "tabletop"
    instruction = "put the cube on the purple hub"
    time_limit_s = 14.0
    episodes_per_trial = 1
    object_body = "cube"
    instances = {"cube": "cube", "hub": "hub"}

    yaw_jitter_rad = 0.3
    place_radius_m = 0.045
    lift_height_m = 0.03

    def __init__(self) -> None:
        self._outcome = RUNNING
        self._lifted = False

    def build(self, spec: mujoco.MjSpec) -> None:
        add_cube(spec)
        add_disc(spec, "hub", HUB, HUB_RADIUS_M, HUB_RGBA)

    def start(self, rng: np.random.Generator) -> Start:
        self._outcome, self._lifted = RUNNING, False
        spot = np.array([*rng.uniform(REGION_LOWER, REGION_UPPER), CUBE_HALF_M])
        tool = HOME_TOOL + rng.uniform([-0.05, -0.06, -0.03], [0.05, 0.06, 0.05])
        return Start(tool, spot, rng.uniform(-self.yaw_jitter_rad, self.yaw_jitter_rad))

    def update(self, state: ObjectState) -> Outcome:
        if not self._outcome.done:
            self._lifted |= state.position[2] - CUBE_HALF_M > self.lift_height_m
            self._outcome = self._judge(state)
        return self._outcome

    def _judge(self, state: ObjectState) -> Outcome:
        place = zip(REACH_LOWER, state.position, REACH_UPPER)
        if fell(state) or not all(low <= value <= high for low, value, high in place):
            return Outcome(True, False, "dropped", 0.0)
        if self._lifted and state.distance(HUB) < self.place_radius_m and state.rests():
            return Outcome(True, True, "success", 1.0)
        if state.time_s >= self.time_limit_s:
            return Outcome(True, False, "time_limit", 0.5 if self._lifted else 0.0)
        return Outcome(False, False, "running", 0.5 if self._lifted else 0.0)
