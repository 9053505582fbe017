"""Tasks in signal temporal logic for an arm: move the tool so that its trace meets a formula."""

from __future__ import annotations

import mujoco
import numpy as np

from embodied_rl.sim.stl_tasks.task import Region
from embodied_rl.sim.tasks.base import add_ball
from embodied_rl.sim.tasks.formula import FormulaTask, Rgba

_CLEAR = 0.35  # opacity: the arm must be seen inside a region


class ReachTask(FormulaTask):
    """Regions are balls in the air. The arm starts at rest with its joints in the start box.

    Attributes:
        joints: with which this episode began ``(n,)``, in rad.
    """

    world = "reach"
    dynamics = "arm"
    joints: np.ndarray

    def draw(self, spec: mujoco.MjSpec, body: str, region: Region, rgba: Rgba) -> None:
        add_ball(spec, body, region.centre, region.radius, (*rgba[:3], _CLEAR))

    def start(self, rng: np.random.Generator) -> np.ndarray:
        self.joints = np.array(self.draw_start(rng))
        return self.joints
