"""Task ``return_home``: go to the hub, wait, and come back to where the tool started.

What must be remembered: the start, a point in space. Nothing marks it.

Why one frame cannot tell: at the end of the wait the tool is over the hub in a pose that does not
depend on the start, and nothing but the hub is on the table. Starts are spread evenly over half a
ring around the hub, so the best blind guess hits with less than 15 %. The wait is longer than an
open-loop chunk of 8 control ticks and the 3 ticks between two rows together: a plan made while the
way in is still in sight must have run out before the way back. With a row every three control
ticks (0.3 s), 16 rows reach back to the start when the wait ends: less than 4.5 s have passed.

The tracked object is the hub itself: nothing else is there to track, and the hub lies a little
elsewhere in every episode, independently of the start.

Traps this task is built against: a verdict falls only when the tool rests, so crossing the start on
a way to somewhere else is no success, and pausing over the hub is no failure; the hub counts only
after the tool has rested there; success ends the episode at once (at rest on its start, the scene
looks like the beginning, and a policy could set off again).
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from embodied_rl.core.policy import Outcome
from embodied_rl.sim.tasks.base import (
    RUNNING,
    ObjectState,
    Start,
    Stillness,
    add_disc,
    uniform_in_disc,
)
from embodied_rl.sim.tasks.replace_object import HUB, HUB_RADIUS_M, HUB_RGBA

RING_M = (0.16, 0.28)  # inner and outer radius of the half ring of starts around HUB
START_HEIGHT_M = (0.11, 0.17)  # of the tool above the table


class ReturnHome:
    """See the module's docstring."""

    name = "return_home"
    world = "tabletop"
    instruction = "move over the purple hub, wait, and return to where you started"
    time_limit_s = 12.0
    episodes_per_trial = 1
    object_body = "hub"
    instances = {"hub": "hub"}

    hub_jitter_m = 0.02
    home_radius_m = 0.05
    hub_radius_m = 0.07
    hub_hold_s = 0.3  # at rest over the hub, before it counts as visited
    rest_s = 0.4  # at rest anywhere else, before it is judged

    def __init__(self) -> None:
        self.home = np.zeros(3)
        self._hub_held = False
        self._stillness = Stillness()
        self._outcome = RUNNING

    @property
    def start_sector(self) -> int:
        """Which quarter of the half ring (45 degrees each, equally likely) the start lies in."""
        angle = math.atan2(self.home[1] - HUB[1], HUB[0] - self.home[0])  # -pi/2 .. pi/2
        return min(3, int((angle + math.pi / 2) / (math.pi / 4)))

    def build(self, spec: mujoco.MjSpec) -> None:
        add_disc(spec, "hub", HUB, HUB_RADIUS_M, HUB_RGBA)

    def start(self, rng: np.random.Generator) -> Start:
        self._hub_held, self._stillness, self._outcome = False, Stillness(), RUNNING
        angle = rng.uniform(-math.pi / 2, math.pi / 2)
        radius = math.sqrt(rng.uniform(RING_M[0] ** 2, RING_M[1] ** 2))  # even over the area
        x, y = HUB[0] - radius * math.cos(angle), HUB[1] + radius * math.sin(angle)
        self.home = np.array([x, y, rng.uniform(*START_HEIGHT_M)])
        hub = np.array(HUB[:2]) + uniform_in_disc(rng, self.hub_jitter_m)
        return Start(self.home.copy(), np.array([*hub, 0.0]), 0.0)

    def update(self, state: ObjectState) -> Outcome:
        if not self._outcome.done:
            self._outcome = self._judge(state)
        return self._outcome

    def _judge(self, state: ObjectState) -> Outcome:
        still_s = self._stillness.update(state.time_s, state.tool)
        if state.distance(state.tool) < self.hub_radius_m:
            self._hub_held |= still_s >= self.hub_hold_s
        elif self._hub_held and still_s >= self.rest_s:
            if math.dist(state.tool, self.home) < self.home_radius_m:
                return self._ended(True, "success")
            return self._ended(False, "wrong_place")
        if state.time_s >= self.time_limit_s:
            return self._ended(False, "time_limit")
        return Outcome(False, False, "running", 0.5 if self._hub_held else 0.0)

    def _ended(self, success: bool, reason: str) -> Outcome:
        return Outcome(True, success, reason, 1.0 if success else 0.5 * self._hub_held)
