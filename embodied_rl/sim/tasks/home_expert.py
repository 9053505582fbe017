"""The expert of ``find_object``: it knows every home and drives the fewest actions of the grid.

It shows that world and task can be solved, and what a robot scores that has nothing to search. Of
the world it is told what any policy is told: the trial, the instruction, the odometry.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from embodied_rl.core.discrete_motion import STREAMS, TARGETS, DiscreteMotion
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec
from embodied_rl.core.window import Observation
from embodied_rl.sim.navigation.grid import AHEAD, FORWARD, TURN_LEFT, GridPose, best_action
from embodied_rl.sim.navigation.instructions import wanted_type
from embodied_rl.sim.navigation.registry import apartment
from embodied_rl.sim.tasks.find_object import FindObject, home_of, search_for

STEPS_PER_CELL, STEPS_PER_TURN = 2, 3  # discrete motions of an action of the grid


class FindObjectExpert:
    """Drives straight runs without a stop, and stands still at the goal.

    Args:
        chunk: targets of a plan, at most as many as `DiscreteMotion` plans.

    Raises:
        UserError: another length of plan, or a robot without odometry or velocity commands.
    """

    def __init__(self, embodiment: Embodiment, chunk: int = TARGETS):
        if not 1 <= chunk <= TARGETS:
            raise UserError(f"expert: chunk: expected 1 to {TARGETS}, saw {chunk}")
        name = f"expert_{FindObject.name}"
        self.spec = PolicySpec.on(embodiment, name, STREAMS, chunk=chunk, execute=1)
        self._grid = apartment()
        self._cell_m = self._grid.layout_settings.cell_m
        self._motion = DiscreteMotion(embodiment)
        self._begin(0, "")

    # ---------------------------------------------------------------------- policy interface
    def reset(self, episode: EpisodeInfo) -> None:
        """Raises UserError for an instruction that asks for no object of the home."""
        self._motion.reset()
        self._begin(episode.trial, episode.instruction)

    def observe(self, observation: Observation) -> None:
        self._ready = not observation.missing
        if observation.missing:
            return
        position, yaw, linear, angular = (observation.values[key] for key in STREAMS)
        pose = np.array([position[0], position[1], yaw[0]])
        if not self._placed:
            self._motion.place(GridPose.nearest(pose, self._cell_m).centre(self._cell_m))
            self._placed = True
        self._motion.observe(observation.stamp_ns, pose, np.array([linear[0], angular[2]]))

    def act(self) -> ActionChunk:
        if not self._ready:
            raise RuntimeError("act() needs a complete row first")
        if not self._motion.busy:
            self._set_off()
        chunk = self._motion.chunk()
        return ActionChunk(chunk.stamp_ns, chunk.period_ns, chunk.values[: self.spec.chunk])

    def executed(self, chunk: ActionChunk) -> None:
        self._motion.executed(chunk)

    def save_memory(self) -> bytes:
        memory = {
            "policy": self.spec.name,
            "trial": self._trial,
            "instruction": self._instruction,
            "placed": self._placed,
            "motion": self._motion.state(),
        }
        return json.dumps(memory).encode()

    def load_memory(self, blob: bytes) -> None:
        try:
            memory = json.loads(blob)
            seen = memory["policy"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"memory: expected that of {self.spec.name}, saw no memory") from error
        if seen != self.spec.name:
            raise UserError(f"memory: expected that of {self.spec.name}, saw {seen}")
        self._begin(memory["trial"], memory["instruction"])
        self._motion.restore(memory["motion"])
        self._placed = memory["placed"]

    # ------------------------------------------------------------------------------- the way
    def _begin(self, trial: int, instruction: str) -> None:
        self._trial, self._instruction = trial, instruction
        self._ready = self._placed = False
        if instruction:
            self._layout = home_of(self._grid, trial)
            self._to_go = search_for(self._grid, self._layout, wanted_type(instruction)).to_go

    def _set_off(self) -> None:
        """Begin the next motion from where the base ought to be, if it is not at the goal."""
        x, y, heading = GridPose.nearest(self._motion.goal, self._cell_m)
        if self._to_go[heading, y, x] == 0:
            return
        action = self._best(x, y, heading)
        if action != FORWARD:
            self._motion.turn(STEPS_PER_TURN if action == TURN_LEFT else -STEPS_PER_TURN)
            return
        cells, (dx, dy) = 0, AHEAD[heading].tolist()
        while self._to_go[heading, y, x] > 0 and self._best(x, y, heading) == FORWARD:
            x, y, cells = x + dx, y + dy, cells + 1
        self._motion.forward(cells * STEPS_PER_CELL)

    def _best(self, x: int, y: int, heading: int) -> int:
        pose = (torch.tensor([part]) for part in (x, y, heading))
        return int(best_action(torch.from_numpy(self._to_go)[None], *pose))
