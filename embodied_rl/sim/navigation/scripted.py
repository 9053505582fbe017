"""A scripted searcher for the egocentric task: what can be had with and without a memory.

It draws every cell that it sees on a map. A wanted object on the map is gone to by the fewest
actions; else the robot goes to the nearest pose that faces an unknown cell. With the map kept over
the episodes of a trial it bounds what memory can bring, with the map cleared at each episode it
shows what search alone brings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embodied_rl.sim.navigation.base import View
from embodied_rl.sim.navigation.egocentric import (
    FIRST_OBJECT,
    STOP,
    UNSEEN,
    WALL,
    EgocentricNavigation,
)
from embodied_rl.sim.navigation.grid import (
    AHEAD,
    UNREACHABLE,
    actions_to_go,
    best_action,
    poses_that_see,
)


class MapSearcher:
    """Acts on views alone, for ``count`` trials side by side.

    Args:
        keep: whether the map outlives an episode.
    """

    def __init__(self, world: EgocentricNavigation, count: int, *, keep: bool) -> None:
        self._world, self._keep = world, keep
        settings = world.layout_settings
        self._row = torch.arange(count)
        self._map = torch.full((count, settings.height, settings.width), UNSEEN)

    def act(self, view: View, first: Tensor) -> Tensor:
        """Actions ``(N,)``; ``first`` ``(N,)`` says where an episode begins with this view."""
        if not self._keep:
            self._map[first] = UNSEEN
        parts = view.features.split(list(self._world.feature_sizes), dim=-1)
        wanted, x, y, heading = (part.argmax(dim=-1) for part in parts)
        self._note(view.cells, x, y, heading)
        free = (self._map != WALL) & (self._map != UNSEEN)
        targets = self._map == (wanted + FIRST_OBJECT)[:, None, None]
        arrived = poses_that_see(self._world.near, ~free, targets)
        to_go = actions_to_go(free, arrived)
        here = to_go[self._row, heading, y, x]
        search = actions_to_go(free, self._facing_unknown())
        to_go = torch.where((here < UNREACHABLE)[:, None, None, None], to_go, search)
        action = best_action(to_go, x, y, heading)
        return torch.where(here == 0, STOP, action)

    def _note(self, cells: Tensor, x: Tensor, y: Tensor, heading: Tensor) -> None:
        """Draws the seen cells of the crops ``(N, C)``."""
        cell_x, cell_y = self._world.sight.cells(x, y, heading)
        row, place = (cells != UNSEEN).nonzero(as_tuple=True)
        self._map[row, cell_y[row, place], cell_x[row, place]] = cells[row, place]

    def _facing_unknown(self) -> Tensor:
        """Poses whose next cell ahead is unknown, ``(N, 4, H, W)``."""
        unknown = self._map == UNSEEN
        ways = [unknown.roll((-dy, -dx), dims=(-2, -1)) for dx, dy in AHEAD.tolist()]
        return torch.stack(ways, dim=1)
