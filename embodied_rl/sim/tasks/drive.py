"""Tasks in signal temporal logic for a mobile base: drive so that the trace satisfies a formula.

The task comes from a file of ``sim_worlds/stl_tasks``. Its regions are discs on the floor, drawn
only: they are predicates, not walls. The base starts at rest in the task's start box, at any
heading. The episode takes all steps of the task, since success is of the whole trace: the true
positions every ``dt`` must satisfy the formula with robustness above 0.
"""

from __future__ import annotations

import mujoco
import numpy as np
import torch

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.sim.stl_tasks.task import StlTask
from embodied_rl.sim.tasks.base import RUNNING, add_disc
from embodied_rl.stl import expression
from embodied_rl.stl.formula import negation_normal_form, predicates

DYNAMICS = "unicycle"
AVOIDED_RGBA = (0.80, 0.27, 0.24, 1.0)
UNUSED_RGBA = (0.70, 0.70, 0.70, 1.0)
GOAL_RGBA = (
    (0.22, 0.62, 0.36, 1.0),
    (0.22, 0.45, 0.80, 1.0),
    (0.55, 0.33, 0.75, 1.0),
    (0.13, 0.62, 0.66, 1.0),
)


class DriveTask:
    """See the module's docstring.

    Attributes:
        positions: the base's place ``(2,)`` in m every ``dt`` of this episode so far.

    Raises:
        UserError: the task is for other dynamics than a base's.
    """

    world = "arena"

    def __init__(self, task: StlTask):
        if task.dynamics.name != DYNAMICS:
            raise UserError(
                f"task {task.name}: world '{self.world}' expects dynamics {DYNAMICS}, "
                f"saw {task.dynamics.name}"
            )
        self.task, self.name, self.instruction = task, task.name, task.text
        self.time_limit_s = task.dynamics.steps * task.dynamics.dt_s
        self.sample_period_ns = round(task.dynamics.dt_s * NANOSECONDS)
        self.instances = {name: _body(name) for name in task.regions}
        self.positions: list[np.ndarray] = []
        self._outcome = RUNNING

    def build(self, spec: mujoco.MjSpec) -> None:
        colours = region_colours(self.task)
        for name, region in self.task.regions.items():
            add_disc(spec, _body(name), region.centre, region.radius, colours[name])

    def start(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """As the task draws it for its dynamics; the speed is left out, a base starts at rest."""
        self.positions, self._outcome = [], RUNNING
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        x, y, heading, _ = self.task.start(1, generator)[0].tolist()
        return x, y, heading

    def update(self, elapsed_ns: int, position: np.ndarray) -> Outcome:
        if not self._outcome.done:
            self.positions.append(position[:2].copy())
            if elapsed_ns >= self.task.dynamics.steps * self.sample_period_ns:
                self._outcome = self._judge()
        return self._outcome

    def _judge(self) -> Outcome:
        """``score`` is 0.5 at robustness 0, and 0 and 1 a metre below and above."""
        robustness = float(self.task.robustness(torch.tensor(np.array(self.positions))))
        score = min(1.0, max(0.0, 0.5 + robustness / 2))
        return Outcome(True, robustness > 0, f"robustness {robustness:+.3f} m", score)


def region_colours(task: StlTask) -> dict[str, tuple[float, float, float, float]]:
    """A colour for each region: red where the formula only ever asks to be outside."""
    asked: dict[str, bool] = {}  # whether the formula also asks to be inside
    for predicate in predicates(negation_normal_form(task.formula)):
        for name in expression.signal_names(predicate.margin):
            asked[name] = asked.get(name, False) or predicate.greater
    goals = [name for name in task.regions if asked.get(name)]
    return {
        name: GOAL_RGBA[goals.index(name) % len(GOAL_RGBA)]
        if name in goals
        else AVOIDED_RGBA
        if name in asked
        else UNUSED_RGBA
        for name in task.regions
    }


def _body(region: str) -> str:
    return f"region_{region}"
