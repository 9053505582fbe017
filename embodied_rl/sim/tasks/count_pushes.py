"""Task ``count_pushes``: push a button exactly three times, then bring the tool to the hub.

What must be remembered: how many pushes are done.

Why one frame cannot tell: the button springs back and looks as before, and nothing in the scene
counts. Before the first push, between the pushes and after the last one the tool waits above the
button at heights drawn from one distribution, so a row there says nothing of the count. Speed,
heights, waits and offsets are random, and those of one push are independent of the next, so
neither the clock nor the pose counts. A policy that leaves with probability ``p`` whenever it waits
after a push is right with ``p (1 - p)^2``, at most 4/27. From one push to the next pass more than
11 control ticks, so an open-loop chunk of 8 targets cannot carry the count from push to push.
From the first push to leaving after the third pass less than 4.5 s: 16 rows, three control ticks
(0.3 s) apart, still show the first push.

Traps this task is built against: one push is a whole cycle (full stroke, release, tool clear), so
trembling on the button is one push and not many; a press too many fails at its full stroke, before
it can be taken for a way out; the hub is judged when the tool rests there, so passing over it is
nothing, and the verdict is latched.
"""

from __future__ import annotations

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
from embodied_rl.sim.tasks.replace_object import HOME_TOOL, HUB, HUB_RADIUS_M, HUB_RGBA

PUSHES = 3
BUTTON = (0.42, 0.0)  # metres
BUTTON_TOP_M = 0.045  # above the table, at rest
STROKE_M = 0.016
CAP_RADIUS_M, CAP_HALF_M = 0.032, 0.012
HOUSING_RADIUS_M, HOUSING_HALF_M = 0.046, 0.012
CAP_RGBA = (0.86, 0.20, 0.18, 1.0)
HOUSING_RGBA = (0.35, 0.36, 0.38, 1.0)
SPRING_N_PER_M, DAMPING_NS_PER_M, PRELOAD_M = 300.0, 3.0, 0.010  # 3 N to move it, 7.8 N at the end
CAP_MASS_KG = 0.03
FINGERTIP_M = 0.0176  # the closed fingers reach this far below the tool centre point


def add_button(spec: mujoco.MjSpec) -> None:
    """A sprung cap, body ``button`` with its origin on the top face, in a housing."""
    housing = spec.worldbody.add_body(name="button_housing", pos=[*BUTTON, 0.0])
    cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
    housing.add_geom(
        type=cylinder,
        size=[HOUSING_RADIUS_M, HOUSING_HALF_M, 0],
        pos=[0, 0, HOUSING_HALF_M],
        rgba=HOUSING_RGBA,
        contype=0,
        conaffinity=0,
        group=1,
    )
    cap = housing.add_body(name="button", pos=[0, 0, BUTTON_TOP_M])
    cap.gravcomp = 1.0
    cap.add_joint(
        name="button_slide",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, 0, 1],
        limited=True,
        range=[-STROKE_M, 0],
        solref_limit=[0.004, 1],
        solimp_limit=[0.99, 0.999, 0.001, 0.5, 2],
        springref=PRELOAD_M,
        stiffness=SPRING_N_PER_M,
        damping=DAMPING_NS_PER_M,
    )
    cap.add_geom(
        name="button",
        type=cylinder,
        size=[CAP_RADIUS_M, CAP_HALF_M, 0],
        pos=[0, 0, -CAP_HALF_M],
        mass=CAP_MASS_KG,
        rgba=CAP_RGBA,
        contype=1,
        conaffinity=3,
        group=1,
    )


class CountPushes:
    """See the module's docstring."""

    name = "count_pushes"
    world = "tabletop"
    instruction = "push the red button exactly three times, then move over the purple hub"
    time_limit_s = 14.0
    episodes_per_trial = 1
    object_body = "button"
    instances = {"button": "button_housing", "hub": "hub"}

    button_jitter_m = 0.02
    full_stroke_m = 0.009  # pressed at least this far
    released_m = 0.003  # pressed at most this far
    clear_m = 0.012  # of the fingertips above the resting cap
    hub_radius_m = 0.06
    rest_s = 0.3

    def __init__(self) -> None:
        self.pushes = 0  # whole cycles
        self._pressed = False
        self._stillness = Stillness()
        self._outcome = RUNNING

    def build(self, spec: mujoco.MjSpec) -> None:
        add_button(spec)
        add_disc(spec, "hub", HUB, HUB_RADIUS_M, HUB_RGBA)

    def start(self, rng: np.random.Generator) -> Start:
        self.pushes, self._pressed, self._outcome = 0, False, RUNNING
        self._stillness = Stillness()
        spot = np.array(BUTTON) + uniform_in_disc(rng, self.button_jitter_m)
        tool = HOME_TOOL + rng.uniform([-0.05, -0.06, -0.03], [0.05, 0.06, 0.05])
        return Start(tool, np.array([*spot, BUTTON_TOP_M]), 0.0)

    def update(self, state: ObjectState) -> Outcome:
        if not self._outcome.done:
            self._count(state)
            self._outcome = self._judge(state)
        return self._outcome

    def _count(self, state: ObjectState) -> None:
        depth = BUTTON_TOP_M - state.position[2]
        if depth > self.full_stroke_m:
            self._pressed = True
        clear = state.tool[2] - FINGERTIP_M > BUTTON_TOP_M + self.clear_m
        if self._pressed and depth < self.released_m and clear:
            self._pressed, self.pushes = False, self.pushes + 1

    def _judge(self, state: ObjectState) -> Outcome:
        still_s = self._stillness.update(state.time_s, state.tool)
        if self.pushes + self._pressed > PUSHES:
            return self._ended(False, "too_many_pushes")
        away = float(np.hypot(state.tool[0] - HUB[0], state.tool[1] - HUB[1]))
        if away < self.hub_radius_m and still_s >= self.rest_s:
            if self.pushes == PUSHES:
                return self._ended(True, "success")
            return self._ended(False, "too_few_pushes")
        if state.time_s >= self.time_limit_s:
            return self._ended(False, "time_limit")
        return Outcome(False, False, "running", self._share())

    def _share(self) -> float:
        return 0.5 * min(self.pushes, PUSHES) / PUSHES

    def _ended(self, success: bool, reason: str) -> Outcome:
        return Outcome(True, success, reason, 1.0 if success else self._share())
