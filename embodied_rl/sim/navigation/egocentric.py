"""Object search in a small home from a robot's own view (after ExtObjNav, arXiv 2410.02751).

The home and its objects stay the same over a trial; every episode asks for another type of object
from another pose, and leaves hardly more time than the shortest way takes. The robot sees a few
cells ahead, so what it saw in earlier episodes decides whether it can go straight to the target.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_rl.sim.base import choose
from embodied_rl.sim.navigation.base import HELD_OUT, TRAIN, Place, Transition, View
from embodied_rl.sim.navigation.grid import (
    AHEAD,
    FORWARD,
    TURN_LEFT,
    TURN_RIGHT,
    Sight,
    actions_to_go,
    best_action,
    crop_offsets,
    geodesic,
    near_offsets,
    placed_from,
    poses_that_see,
    seen_from,
)
from embodied_rl.sim.navigation.layout import Layout, LayoutSettings, generate_layout

FREE, WALL, UNSEEN, FIRST_OBJECT = range(4)  # codes of a crop's cells; object type k is 3 + k
STOP = 3
WORLDS = {TRAIN: (0, 4096), HELD_OUT: (4096, 4352)}  # seeds of layouts
SUCCESS_CELLS = 2
DEPTH, HALF_WIDTH = 6, 3
PROGRESS, ARRIVAL, STEP_COST = 0.1, 1.0, 0.005


class _Episode(NamedTuple):
    """The running episode of each trial, ``(N,)`` each."""

    x: Tensor
    y: Tensor
    heading: Tensor
    wanted: Tensor  # type of object
    time: Tensor  # actions so far
    away: Tensor  # geodesic distance to the wanted object, cells
    shortest: Tensor  # fewest actions to success from the start, the stop included
    familiar: Tensor  # the wanted object was in view in an earlier episode


class EgocentricNavigation:
    """Actions: forward, turn left, turn right (90 degrees), stop, which ends the episode.

    Success is to stop with the object of the wanted type in view within a Manhattan distance of two
    cells. The reward is 0.1 for each cell of geodesic distance to that object gained,
    1 for success, and -0.005 a step. Efficiency is ``shortest / max(shortest, used)`` of a success,
    both counted in actions, the stop included. Objects do not stand in the way.

    A view has a crop of 7 x 7 cells (row by row from the robot's own, each from left to right;
    cells behind walls are UNSEEN) and one-hot features: wanted type, x, y, heading in the world's
    frame; then for each type x and y of the object of that type, all 0 unless it is in the crop:
    the same that crop and pose say, in the frame in which it can be remembered. A world is named by
    its layout's seed. Furniture is as good as a wall.

    Args:
        camera_rad: angle of view of the camera that shows the objects; None: they show in all cells
            of the crop that are seen, as walls do.
        relative_pose: poses and objects are told in the frame of the episode's start (x ahead, y to
            the left, heading 0), as odometry that is set to zero there has them. Episodes of a
            trial then share no frame: what was seen before must be found again by what it looks
            like.
    """

    action_count = 4

    def __init__(
        self,
        name: str = "egocentric",
        *,
        layout: LayoutSettings | None = None,
        camera_rad: float | None = None,
        relative_pose: bool = False,
        horizon: int = 25,
    ) -> None:
        self.name, self.horizon, self.relative_pose = name, horizon, relative_pose
        self.layout_settings = settings = layout or LayoutSettings()
        self.sight = Sight(crop_offsets(DEPTH, HALF_WIDTH))
        ahead, left = self.sight.offsets.T
        self.in_camera = torch.ones(len(ahead), dtype=torch.bool)
        if camera_rad is not None:
            # the middle of the cell must be in the picture; the robot's own cell never is
            reach = ahead * math.tan(camera_rad / 2) + 1e-9
            self.in_camera = (ahead > 0) & (left.abs() <= reach)
        self.near = Sight(near_offsets(SUCCESS_CELLS))
        self.cell_count = len(self.sight.offsets)
        self.code_count = FIRST_OBJECT + settings.types
        # what is told of a place: x and y of so many cells
        self._told_cells = (settings.width, settings.height)
        if relative_pose:  # the start may lie at any edge, and either axis ahead of it
            self._told_cells = (2 * max(self._told_cells) - 1,) * 2
        self._told_sizes = [settings.types, *self._told_cells, 4]
        self.feature_count = sum(self._told_sizes) + settings.types * sum(self._told_cells)
        # where each of these begins among the features: wanted, x, y, heading; all types' x, y
        each = [*self._told_sizes, *self._told_cells * settings.types]
        self._columns = torch.tensor([0, *each]).cumsum(dim=0)[:-1]

    def worlds(self, split: str) -> Tensor:
        return torch.arange(*WORLDS[choose("split", split, WORLDS)])

    def layout(self, world: int) -> Layout:
        return generate_layout(world, self.layout_settings)

    def walls(self, world: int) -> Tensor:
        return torch.from_numpy(self.layout(world).obstacles)

    def objects(self, world: int) -> Tensor:
        return torch.from_numpy(self.layout(world).object_map())

    def reset(self, worlds: Tensor, steps: int, generator: torch.Generator) -> View:
        layouts = [self.layout(int(world)) for world in worlds]
        return self._begin(layouts, *_drawn(layouts, steps, generator))

    def begin(self, worlds: Tensor, starts: Tensor, wanted: Tensor) -> View:
        """As `reset`, with episodes that are given.

        Args:
            starts: x, y and heading of each ``(N, E, 3)``.
            wanted: types of objects ``(N, E)``.
        """
        return self._begin([self.layout(int(world)) for world in worlds], starts, wanted)

    def _begin(self, layouts: list[Layout], starts: Tensor, wanted: Tensor) -> View:
        self._row = torch.arange(len(layouts))
        self._walls = torch.stack([torch.from_numpy(layout.obstacles) for layout in layouts])
        self._objects = torch.stack([torch.from_numpy(layout.object_map()) for layout in layouts])
        codes = torch.where(self._objects > 0, FIRST_OBJECT - 1 + self._objects, FREE)
        codes = torch.where(self._walls, WALL, codes)
        self._codes = F.pad(codes, (DEPTH,) * 4, value=UNSEEN)  # a crop may reach over the edge
        self._starts, self._targets = starts, wanted
        self._measure()
        self._shortest = self.fewest_actions(starts, wanted)
        self._number = torch.zeros_like(self._row)
        self._met = torch.zeros(len(layouts), self.layout_settings.types, dtype=torch.bool)
        self._episode = self._next_episode()
        return self._look()

    def step(self, action: Tensor) -> Transition:
        x, y, heading = self._moved(action)
        before = self._episode
        time = before.time + 1
        stopped = action == STOP
        success = stopped & self._succeeds[self._row, before.wanted, heading, y, x]
        away = self._distance[self._row, before.wanted, y, x]
        reward = PROGRESS * (before.away - away) + ARRIVAL * success - STEP_COST
        ended = stopped | (time == self.horizon)
        efficiency = success * before.shortest / torch.maximum(before.shortest, time)
        same = before._replace(x=x, y=y, heading=heading, time=time, away=away)
        self._number = self._number + ended
        pairs = zip(self._next_episode(), same)
        self._episode = _Episode(*(torch.where(ended, new, old) for new, old in pairs))
        return Transition(self._look(), reward, ended, success, efficiency, before.familiar)

    def place(self) -> Place:
        position = torch.stack([self._episode.x, self._episode.y], dim=-1)
        return Place(position, self._objects == self._episode.wanted[:, None, None] + 1)

    def expert_action(self) -> Tensor:
        """By the fewest actions."""
        to_go = self._to_go[self._row, self._episode.wanted]
        x, y, heading = self.pose
        arrived = to_go[self._row, heading, y, x] == 0
        return torch.where(arrived, STOP, best_action(to_go, x, y, heading))

    @property
    def pose(self) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and heading, ``(N,)`` each."""
        return self._episode[:3]

    @property
    def _running(self) -> tuple[Tensor, Tensor]:
        """Trial and number ``(N,)`` of the running episodes."""
        # the trial's last episode may end with its last step; what follows is never acted in
        return self._row, self._number.clamp(max=self._starts.shape[1] - 1)

    def _measure(self) -> None:
        """Where stopping succeeds and how far that is, for every type of object."""
        shape = (len(self._row), self.layout_settings.types)
        of_type = self._objects[:, None] == torch.arange(1, shape[1] + 1)[:, None, None]
        targets = of_type.flatten(0, 1)
        walls = self._walls.repeat_interleave(shape[1], dim=0)
        succeeds = poses_that_see(self.near, walls, targets)
        self._succeeds = succeeds.unflatten(0, shape)
        self._to_go = actions_to_go(~walls, succeeds).unflatten(0, shape)
        self._distance = geodesic(~walls, targets).unflatten(0, shape)

    def _next_episode(self) -> _Episode:
        """Episode ``self._number`` of every trial at its start."""
        x, y, heading = self._starts[self._running].unbind(-1)
        wanted = self._targets[self._running]
        away = self._distance[self._row, wanted, y, x]
        shortest = self._shortest[self._running]
        familiar = self._met[self._row, wanted]
        return _Episode(x, y, heading, wanted, torch.zeros_like(x), away, shortest, familiar)

    def _moved(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pose after a move or a turn; walls hold the robot where it is."""
        x, y, heading = self.pose
        heading = (heading + (action == TURN_LEFT).long() - (action == TURN_RIGHT).long()) % 4
        to_x, to_y = (AHEAD[heading] * (action == FORWARD)[:, None]).T + torch.stack([x, y])
        stuck = self._walls[self._row, to_y, to_x]
        return torch.where(stuck, x, to_x), torch.where(stuck, y, to_y), heading

    def _look(self) -> View:
        """What is seen now, and the note that these types of object were met."""
        cells = self.crop(self._row, *self.pose)
        self._met = self._met | self.types_in(cells)
        return self.view(cells, self._episode.wanted, *self.pose)

    def crop(self, trial: Tensor, x: Tensor, y: Tensor, heading: Tensor) -> Tensor:
        """Codes ``(P, C)`` of what is seen from poses ``(P,)`` in the worlds of trials ``(P,)``."""
        seen = self.sight.look(self._walls, trial, x, y, heading)
        cell_x, cell_y = self.sight.cells(x, y, heading)
        cells = self._codes[trial[:, None], cell_y + DEPTH, cell_x + DEPTH]
        cells = torch.where(seen, cells, UNSEEN)
        return torch.where((cells >= FIRST_OBJECT) & ~self.in_camera, FREE, cells)

    def types_in(self, cells: Tensor) -> Tensor:
        """Which types of object show in crops ``(P, C)``: ``(P, types)`` bool."""
        return self._shown(cells).any(dim=1)

    def _shown(self, cells: Tensor) -> Tensor:
        """``(P, C, types)`` bool."""
        return cells[..., None] == torch.arange(FIRST_OBJECT, self.code_count)

    def fewest_actions(self, starts: Tensor, wanted: Tensor) -> Tensor:
        """To success in the worlds of the trials, the stop included: ``(N, E)``.

        Args:
            starts, wanted: as of :meth:`begin`.
        """
        x, y, heading = starts.unbind(-1)
        return 1 + self._to_go[self._row[:, None], wanted, heading, y, x]

    def view(self, cells: Tensor, wanted: Tensor, x: Tensor, y: Tensor, heading: Tensor) -> View:
        """Codes ``(N, C)``, wanted types and poses ``(N,)`` as the network is told them.

        With ``relative_pose`` the poses are of the running episodes.
        """
        if self.relative_pose:
            middle = self._told_cells[0] // 2
            x, y, heading = seen_from(self._starts[self._running], x, y, heading)
            x, y = x + middle, y + middle
        found, place = self._shown(cells).max(dim=1)  # (N, types)
        # unseen cells may lie outside the map; they are not shown
        axes = zip(self.sight.cells(x, y, heading), self._told_cells)
        at = torch.stack([axis.gather(1, place).clamp(0, size - 1) for axis, size in axes], dim=-1)
        told = torch.stack([wanted, x, y, heading], dim=1)
        columns = torch.cat([told, at.flatten(1)], dim=1) + self._columns
        ones = torch.cat([torch.ones_like(told), found.repeat_interleave(2, dim=1)], dim=1)
        blank = torch.zeros(len(cells), self.feature_count)
        return View(cells, blank.scatter_(1, columns, ones.float()))

    def told(self, view: View) -> tuple[Tensor, ...]:
        """Wanted type, x, y and heading ``(N,)`` on the map, as a view says them.

        With ``relative_pose`` the view must be of the running episodes: where they began is added,
        which the view does not say.
        """
        told = view.features[:, : sum(self._told_sizes)].split(self._told_sizes, dim=-1)
        wanted, x, y, heading = (part.argmax(dim=-1) for part in told)
        if self.relative_pose:
            middle = self._told_cells[0] // 2
            start = self._starts[self._running]
            x, y, heading = placed_from(start, x - middle, y - middle, heading)
        return wanted, x, y, heading


def _drawn(layouts: list[Layout], steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Start poses ``(N, steps, 3)`` and wanted types ``(N, steps)`` of all that can come."""
    starts, wanted = [], []
    for layout in layouts:
        free = torch.from_numpy(~layout.obstacles).nonzero().flip(-1)
        cell = free[torch.randint(len(free), (steps,), generator=generator)]
        heading = torch.randint(4, (steps, 1), generator=generator)
        starts.append(torch.cat([cell, heading], dim=-1))
        present = torch.from_numpy(layout.object_types)
        wanted.append(present[torch.randint(len(present), (steps,), generator=generator)])
    return torch.stack(starts), torch.stack(wanted)
