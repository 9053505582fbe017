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
    FREE,
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
    """Acts on views alone, for ``count`` trials side by side; where poses are relative to the start
    of the episode it is told that start as well (`EgocentricNavigation.told`).

    Args:
        keep: whether the map outlives an episode.
    """

    def __init__(self, world: EgocentricNavigation, count: int, *, keep: bool) -> None:
        self._world, self._keep = world, keep
        settings = world.layout_settings
        self._row = torch.arange(count)
        shape = (count, settings.height, settings.width)
        self._map = torch.full(shape, UNSEEN)
        self._inspected = torch.zeros(shape, dtype=torch.bool)  # an object there would be known

    def act(self, view: View, first: Tensor) -> Tensor:
        """Actions ``(N,)``; ``first`` ``(N,)`` says where an episode begins with this view."""
        if not self._keep:
            self._map[first] = UNSEEN
            self._inspected[first] = False
        wanted, x, y, heading = self._world.told(view)
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
        seen, shown = cells != UNSEEN, self._world.in_camera
        row, place = (seen & (shown | (cells == WALL))).nonzero(as_tuple=True)
        self._inspected[row, cell_y[row, place], cell_x[row, place]] = True
        row, place = seen.nonzero(as_tuple=True)
        at = (row, cell_y[row, place], cell_x[row, place])
        # aside of the camera an object looks like a free cell; what was once seen there stays
        drawn = cells[row, place]
        self._map[at] = torch.where(shown[place], drawn, torch.maximum(drawn, self._known(at)))

    def _known(self, at: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Codes of the map at cells, FREE where nothing is known yet."""
        return torch.where(self._map[at] == UNSEEN, FREE, self._map[at])

    def _facing_unknown(self) -> Tensor:
        """Poses whose next cell ahead was not inspected yet, ``(N, 4, H, W)``."""
        unknown = ~self._inspected
        ways = [unknown.roll((-dy, -dx), dims=(-2, -1)) for dx, dy in AHEAD.tolist()]
        return torch.stack(ways, dim=1)
