"""Tasks in signal temporal logic, whatever the robot: judged by where it truly was every ``dt``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import mujoco
import numpy as np
import torch

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.sim.stl_tasks.task import Region, StlTask
from embodied_rl.sim.tasks.base import RUNNING
from embodied_rl.stl import expression
from embodied_rl.stl.formula import negation_normal_form, predicates

Rgba = tuple[float, float, float, float]
AVOIDED_RGBA = (0.80, 0.27, 0.24, 1.0)
UNUSED_RGBA = (0.70, 0.70, 0.70, 1.0)
GOAL_RGBA = (
    (0.22, 0.62, 0.36, 1.0),
    (0.22, 0.45, 0.80, 1.0),
    (0.55, 0.33, 0.75, 1.0),
    (0.13, 0.62, 0.66, 1.0),
)


class FormulaTask(ABC):
    """A task from a file of ``sim_worlds/stl_tasks``.

    Its regions are drawn only: they are predicates, not walls. The episode takes all steps of the
    task, since success is of the whole trace: the true positions every ``dt`` must satisfy the
    formula with robustness above 0.

    Attributes:
        positions: the robot's place ``(d,)`` in m every ``dt`` of this episode so far.

    Raises:
        UserError: the task is for other dynamics than those of the world's robot.
    """

    world: str
    dynamics: str
    episodes_per_trial = 1

    def __init__(self, task: StlTask):
        if task.dynamics.name != self.dynamics:
            raise UserError(
                f"task {task.name}: world '{self.world}' expects dynamics {self.dynamics}, "
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
            self.draw(spec, _body(name), region, colours[name])

    @abstractmethod
    def draw(self, spec: mujoco.MjSpec, body: str, region: Region, rgba: Rgba) -> None:
        """Add a region to the world as a body that touches nothing."""

    def draw_start(self, rng: np.random.Generator) -> list[float]:
        """A state of the dynamics in which an episode begins; forgets the last one."""
        self.positions, self._outcome = [], RUNNING
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return self.task.start(1, generator)[0].tolist()

    def update(self, elapsed_ns: int, position: np.ndarray) -> Outcome:
        if not self._outcome.done:
            self.positions.append(position[: self.task.dynamics.position_dim].copy())
            if elapsed_ns >= self.task.dynamics.steps * self.sample_period_ns:
                self._outcome = self._judge()
        return self._outcome

    def _judge(self) -> Outcome:
        """``score`` is 0.5 at robustness 0, and 0 and 1 a fifth of the arena below and above."""
        robustness = float(self.task.robustness(torch.tensor(np.array(self.positions))))
        share = robustness / (0.2 * self.task.dynamics.arena_m)
        score = min(1.0, max(0.0, 0.5 + share / 2))
        return Outcome(True, robustness > 0, f"robustness {robustness:+.3f} m", score)


def region_colours(task: StlTask) -> dict[str, Rgba]:
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
