"""Task ``replace_object``: carry a cube to a hub, wait, and put it back on its own pad.

What must be remembered: which of the two pads the cube came from.

Why one frame cannot tell: at the end of the wait the arm holds the cube over the hub in the same
pose whichever pad it came from; both pads lie empty, look alike and mirror each other about the
hub. The wait, the start pose, the way and the speed of the expert are random, so neither the clock
nor the grasp tells either. A policy without memory is right half of the time. With a row every
three control ticks (0.3 s), 16 rows still reach back to the pad: from leaving it to the
decision less than 4 s pass.

Traps this task is built against: success is latched and ends the episode at once (after the cube
is back, the scene looks like the beginning, and a policy could set off again); the hub counts only
after the cube has been held over it for a while, so brushing past it does not.
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
    uniform_in_disc,
)

PADS = ((0.42, 0.17, 0.0), (0.42, -0.17, 0.0))  # metres; mirrored about y = 0
HUB = (0.58, 0.0, 0.0)
PAD_RADIUS_M = 0.055
HUB_RADIUS_M = 0.065
PAD_RGBA = (0.16, 0.60, 0.58, 1.0)
HUB_RGBA = (0.52, 0.38, 0.72, 1.0)
HOME_TOOL = np.array([0.46, 0.0, 0.20])


class ReplaceObject:
    """See the module's docstring."""

    name = "replace_object"
    world = "tabletop"
    instruction = "carry the cube to the purple hub, wait, and put it back on the pad it came from"
    time_limit_s = 16.0
    episodes_per_trial = 1
    object_body = "cube"
    instances = {"cube": "cube", "hub": "hub", "pad_left": "pad_left", "pad_right": "pad_right"}

    start_jitter_m = 0.018
    yaw_jitter_rad = 0.3
    place_radius_m = 0.05  # of its own pad's centre
    hub_radius_m = 0.06
    hub_height_m = 0.03  # above the table, so that dragging is not carrying
    hub_hold_s = 0.3

    def __init__(self) -> None:
        self.own_pad = 0
        self._outcome = RUNNING
        self._over_hub_since_s: float | None = None
        self._visited = False
        self._lifted = False

    def build(self, spec: mujoco.MjSpec) -> None:
        add_cube(spec)
        add_disc(spec, "pad_left", PADS[0], PAD_RADIUS_M, PAD_RGBA)
        add_disc(spec, "pad_right", PADS[1], PAD_RADIUS_M, PAD_RGBA)
        add_disc(spec, "hub", HUB, HUB_RADIUS_M, HUB_RGBA)

    def start(self, rng: np.random.Generator) -> Start:
        self._outcome, self._over_hub_since_s = RUNNING, None
        self._visited = self._lifted = False
        self.own_pad = int(rng.integers(2))
        offset = uniform_in_disc(rng, self.start_jitter_m)
        spot = np.array(PADS[self.own_pad]) + [*offset, CUBE_HALF_M]
        tool = HOME_TOOL + rng.uniform([-0.05, -0.06, -0.03], [0.05, 0.06, 0.05])
        return Start(tool, spot, rng.uniform(-self.yaw_jitter_rad, self.yaw_jitter_rad))

    def update(self, state: ObjectState) -> Outcome:
        if not self._outcome.done:
            self._track_hub(state)
            self._outcome = self._judge(state)
        return self._outcome

    def _track_hub(self, state: ObjectState) -> None:
        height = state.position[2] - CUBE_HALF_M
        self._lifted |= height > self.hub_height_m
        if height > self.hub_height_m and state.distance(HUB) < self.hub_radius_m:
            if self._over_hub_since_s is None:
                self._over_hub_since_s = state.time_s
            self._visited |= state.time_s - self._over_hub_since_s >= self.hub_hold_s
        else:
            self._over_hub_since_s = None

    def _judge(self, state: ObjectState) -> Outcome:
        if fell(state):
            return self._ended(False, "dropped")
        if self._lifted and state.rests():
            to_own = state.distance(PADS[self.own_pad])
            to_other = state.distance(PADS[1 - self.own_pad])
            if self._visited and to_own < self.place_radius_m:
                return self._ended(True, "success")
            if self._visited and to_other < self.place_radius_m:
                return self._ended(False, "wrong_pad")
            if self._visited or to_own > self.place_radius_m:
                return self._ended(False, "dropped")
        if state.time_s >= self.time_limit_s:
            return self._ended(False, "time_limit")
        return self._running()

    def _running(self) -> Outcome:
        return Outcome(False, False, "running", 0.5 if self._visited else 0.0)

    def _ended(self, success: bool, reason: str) -> Outcome:
        score = 1.0 if success else 0.5 if self._visited else 0.0
        return Outcome(True, success, reason, score)
