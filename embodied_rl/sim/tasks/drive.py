"""Tasks in signal temporal logic for a mobile base: drive so that the trace satisfies a formula."""

from __future__ import annotations

import mujoco
import numpy as np

from embodied_rl.sim.stl_tasks.task import Region
from embodied_rl.sim.tasks.base import add_disc
from embodied_rl.sim.tasks.formula import FormulaTask, Rgba


class DriveTask(FormulaTask):
    """Regions are discs on the floor. The base starts at rest in the task's start box, at any
    heading."""

    world = "arena"
    dynamics = "unicycle"

    def draw(self, spec: mujoco.MjSpec, body: str, region: Region, rgba: Rgba) -> None:
        add_disc(spec, body, region.centre, region.radius, rgba)

    def start(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """As the task draws it for its dynamics; the speed is left out, a base starts at rest."""
        x, y, heading, _ = self.draw_start(rng)
        return x, y, heading
