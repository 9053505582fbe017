"""Task ``find_object``: go to an object of the home and stand still there; eight episodes a home.

What must be remembered is the home: where rooms, doors and objects are stays the same over a trial,
while every episode asks for another object from another pose. The camera sees a room at most, so
the way to an object that was met in an earlier episode is known only to a memory of that episode;
without one it has to be searched anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.policy import Outcome
from embodied_rl.sim.navigation.base import HELD_OUT
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.sim.navigation.grid import GridPose, actions_to_go, poses_that_see
from embodied_rl.sim.navigation.instructions import instruction_for
from embodied_rl.sim.navigation.layout import OBJECT_NAMES, Layout
from embodied_rl.sim.navigation.registry import apartment
from embodied_rl.sim.tasks.base import RUNNING, Stillness

STOP_S = 1.5  # of standing still are a stop
FIRST_STOP_S = 3.0  # before the first motion, while the policy starts up
STILL_M = 0.02
TURN_ARM_M = 0.2  # a turn counts as a motion of what is so far from the axis
NO_ACTION_LEFT = "no action left"


@dataclass(frozen=True)
class Search:
    """A type of object in a home. Poses are ``[heading, y, x]``, as in `sim.navigation.grid`."""

    succeeds: np.ndarray  # (4, H, W) bool: a stop there is a success
    to_go: np.ndarray  # (4, H, W) int64: fewest moves and turns to such a pose


def home_of(grid: EgocentricNavigation, trial: int) -> Layout:
    """The home of a trial: one that no training has seen."""
    homes = grid.worlds(HELD_OUT)
    return grid.layout(int(homes[trial % len(homes)]))


def search_for(grid: EgocentricNavigation, layout: Layout, wanted: int) -> Search:
    """Where the search for a type of object ends, by the rule of the grid, and how far that is."""
    obstacles = torch.from_numpy(layout.obstacles)[None]
    target = torch.from_numpy(layout.object_map() == wanted + 1)[None]
    succeeds = poses_that_see(grid.near, obstacles, target)
    to_go = actions_to_go(~obstacles, succeeds)
    return Search(succeeds[0].numpy(), to_go[0].numpy())


class FindObject:
    """Success is to stand still within a Manhattan distance of two cells of the wanted object with
    it in view, both by the rule of the grid twin on the nearest cell and quarter turn. Standing
    still anywhere else ends the episode too, and so does a robot that goes on without the action
    left that its stop would need: as in the twin, an episode has ``horizon`` of them.

    Actions used are cells entered, quarter turns made, and the stop; ``score`` of a success is the
    fewest on the grid over those. A step that the robot wanted and did not make is none of them.

    Attributes:
        layout: the home.
        start: cell x, y and heading in which the episode began.
        wanted: type of the object.
        shortest: fewest actions from the start, the stop included.
    """

    name = "find_object"
    world = "apartment"
    time_limit_s = 90.0
    episodes_per_trial = 8
    instances: dict[str, str] = {}  # the objects belong to the home

    def __init__(self) -> None:
        self._grid = apartment()
        self.layout = home_of(self._grid, 0)
        self.start = GridPose(0, 0, 0)
        self.wanted = int(self.layout.object_types[0])
        self.shortest = 0

    def build(self, spec: mujoco.MjSpec) -> None:
        """The world has all that the task needs."""

    @property
    def instruction(self) -> str:
        return instruction_for(self.wanted)

    @property
    def start_pose(self) -> tuple[float, float, float]:
        x, y, yaw = self.start.centre(self.layout.settings.cell_m).tolist()
        return x, y, yaw

    def begin(self, rng: np.random.Generator, trial: int) -> None:
        self.layout = home_of(self._grid, trial)
        free = np.argwhere(~self.layout.obstacles)[:, ::-1]
        x, y = free[rng.integers(len(free))]
        self.start = GridPose(int(x), int(y), int(rng.integers(4)))
        self.wanted = int(rng.choice(self.layout.object_types))
        search = search_for(self._grid, self.layout, self.wanted)
        self._succeeds = search.succeeds
        self.shortest = 1 + int(search.to_go[self.start.heading, y, x])
        self._stillness = Stillness(STILL_M)
        self._used, self._pose, self._outcome = 1, self.start, RUNNING
        self._stillness.update(0.0, _point(self.start_pose))

    def update(self, elapsed_ns: int, pose: np.ndarray) -> Outcome:
        if self._outcome.done:
            return self._outcome
        time_s = elapsed_ns / NANOSECONDS
        at, before = GridPose.nearest(pose, self.layout.settings.cell_m), self._pose
        turned = (at.heading - before.heading) % 4
        self._used += abs(at.x - before.x) + abs(at.y - before.y) + min(turned, 4 - turned)
        self._pose = at
        still_s = self._stillness.update(time_s, _point(pose))
        if still_s >= (FIRST_STOP_S if still_s == time_s else STOP_S):
            self._outcome = self._stopped()
        elif self._used > self._grid.horizon:
            # a policy that counts its actions would stand still from here on, which is no stop
            self._outcome = Outcome(True, False, NO_ACTION_LEFT, 0.0)
        elif time_s >= self.time_limit_s:
            self._outcome = Outcome(True, False, "time_limit", 0.0)
        return self._outcome

    def _stopped(self) -> Outcome:
        name = OBJECT_NAMES[self.wanted]
        x, y, heading = self._pose
        if not self._succeeds[heading, y, x]:
            return Outcome(True, False, f"stopped away from the {name}", 0.0)
        score = self.shortest / max(self.shortest, self._used)
        return Outcome(True, True, f"found the {name}", score)


def _point(pose: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """What moves when the base drives or turns, in m."""
    x, y, yaw = pose
    return float(x), float(y), TURN_ARM_M * math.cos(yaw), TURN_ARM_M * math.sin(yaw)
