"""Batched geometry on grids of cells: what a pose sees, and how far things are.

A *pose* is a cell (x, y) and a heading: 0 along +x, 1 along +y, 2 along -x, 3 along -y; turning
left adds one. Maps are ``(B, H, W)``, maps over poses ``(B, 4, H, W)``. Every map has walls all
around, so that no step leaves it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

AHEAD = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]])  # heading -> (dx, dy)
LEFT = AHEAD[[1, 2, 3, 0]]
FORWARD, TURN_LEFT, TURN_RIGHT = range(3)
UNREACHABLE = 10_000


class GridPose(NamedTuple):
    """A cell and a heading; cell (x, y) covers ``[x, x + 1) * cell_m`` by ``[y, y + 1) * cell_m``.

    Places are ``(3,)``: x and y in m, yaw in rad.
    """

    x: int
    y: int
    heading: int

    @classmethod
    def nearest(cls, place: np.ndarray, cell_m: float) -> GridPose:
        """The cell that holds a place, and its yaw's nearest quarter turn."""
        x, y = np.floor(place[:2] / cell_m).astype(int).tolist()
        return cls(x, y, round(place[2] / (math.pi / 2)) % 4)

    def centre(self, cell_m: float) -> np.ndarray:
        """The place in the middle of the cell."""
        x, y = (self.x + 0.5) * cell_m, (self.y + 0.5) * cell_m
        return np.array([x, y, self.heading * math.pi / 2])


class Sight:
    """Which of some cells around a robot can be seen past walls.

    A cell is seen when no cell strictly between it and the robot's blocks the view: with ``n`` the
    larger of the two offsets, those are the roundings of ``k / n`` of the way, halves rounded
    towards the robot's axis. Walls themselves can be seen.

    Args:
        offsets: ``(C, 2)`` int64: cells ahead, cells to the left.
    """

    def __init__(self, offsets: Tensor) -> None:
        self.offsets = offsets
        self._reach = int(offsets.abs().max())
        length = offsets.abs().amax(dim=-1).clamp(min=1)
        share = torch.arange(1, max(self._reach, 2))[:, None, None]
        doubled = 2 * offsets.abs() * share  # in halves of 1 / n
        steps = torch.div(doubled + length[:, None] - 1, 2 * length[:, None], rounding_mode="floor")
        between = steps * offsets.sign()
        # (R, C, 2); for a cell nearer than R the own one stands in, which never blocks the view
        between = torch.where(share < length[:, None], between, torch.zeros_like(between))
        self._blocking = (between != 0).any(dim=-1)
        self._between = _headed(between.flatten(0, 1))
        self._cells = _headed(offsets)

    def cells(self, x: Tensor, y: Tensor, heading: Tensor) -> tuple[Tensor, Tensor]:
        """Map cells x and y ``(P, C)`` of the offsets from poses ``(P,)``; some lie outside."""
        dx, dy = self._cells[:, heading]
        return dx + x[:, None], dy + y[:, None]

    def look(self, opaque: Tensor, row: Tensor, x: Tensor, y: Tensor, heading: Tensor) -> Tensor:
        """Which cells are seen, ``(P, C)`` bool, on maps ``opaque[row]``.

        Args:
            opaque: ``(B, H, W)`` bool.
            row, x, y, heading: ``(P,)``.
        """
        height, width = opaque.shape[1:]
        edge = self._reach
        padded = F.pad(opaque, (edge, edge, edge, edge), value=True).flatten()
        across, down = width + 2 * edge, height + 2 * edge
        own = (row * down + y + edge) * across + x + edge
        dx, dy = self._between
        blocked = padded[own[:, None] + (dy * across + dx)[heading]]
        return ~(blocked.unflatten(-1, self._blocking.shape) & self._blocking).any(dim=1)


def _headed(offsets: Tensor) -> Tensor:
    """Offsets (ahead, left) ``(C, 2)`` as dx and dy for each heading ``(2, 4, C)``."""
    found = AHEAD[:, None] * offsets[:, :1] + LEFT[:, None] * offsets[:, 1:]
    return found.permute(2, 0, 1).contiguous()


def seen_from(start: Tensor, x: Tensor, y: Tensor, heading: Tensor) -> tuple[Tensor, ...]:
    """Map poses in the frame of others: x ahead of them, y to their left.

    Args:
        start: x, y and heading of each ``(P, 3)``.
        x, y, heading: ``(P,)``.
    """
    way, turn = torch.stack([x, y], dim=-1) - start[:, :2], start[:, 2]
    ahead, left = (way * AHEAD[turn]).sum(dim=-1), (way * LEFT[turn]).sum(dim=-1)
    return ahead, left, (heading - turn) % 4


def placed_from(start: Tensor, ahead: Tensor, left: Tensor, heading: Tensor) -> tuple[Tensor, ...]:
    """The inverse of :func:`seen_from`."""
    turn = start[:, 2]
    way = ahead[:, None] * AHEAD[turn] + left[:, None] * LEFT[turn]
    x, y = (start[:, :2] + way).unbind(-1)
    return x, y, (turn + heading) % 4


def crop_offsets(depth: int, half_width: int) -> Tensor:
    """A rectangle ahead, from the robot's own row on: ``((depth + 1) * (2 half_width + 1), 2)``."""
    return torch.cartesian_prod(
        torch.arange(depth + 1), torch.arange(half_width, -half_width - 1, -1)
    )


def near_offsets(distance: int) -> Tensor:
    """What lies ahead or beside within a Manhattan distance."""
    offsets = crop_offsets(distance, distance)
    return offsets[offsets.abs().sum(dim=-1) <= distance]


def all_poses(maps: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Map row, x, y and heading of every pose of every map, in the order of ``(B, 4, H, W)``."""
    found = torch.cartesian_prod(*(torch.arange(n) for n in (maps, 4, height, width)))
    row, heading, y, x = found.unbind(-1)
    return row, x, y, heading


def poses_that_see(sight: Sight, opaque: Tensor, targets: Tensor) -> Tensor:
    """Poses in cells that are not opaque from which a target cell is seen: ``(B, 4, H, W)``.

    Args:
        opaque, targets: ``(B, H, W)`` bool.
    """
    maps, height, width = opaque.shape
    row, x, y, heading = all_poses(maps, height, width)
    edge = int(sight.offsets.abs().max())
    near = F.max_pool2d(targets[:, None].float(), 2 * edge + 1, stride=1, padding=edge)[:, 0] > 0
    inside = (near & ~opaque)[row, y, x]
    row, x, y, heading = (part[inside] for part in (row, x, y, heading))
    seen = sight.look(opaque, row, x, y, heading)
    padded = F.pad(targets, (edge, edge, edge, edge))
    cell_x, cell_y = sight.cells(x, y, heading)
    found = (seen & padded[row[:, None], cell_y + edge, cell_x + edge]).any(dim=-1)
    result = torch.zeros(maps * 4 * height * width, dtype=torch.bool)
    result[inside] = found
    return result.view(maps, 4, height, width)


def geodesic(free: Tensor, sources: Tensor) -> Tensor:
    """Cells to the nearest source over free cells, ``(B, H, W)`` int64; by breadth-first search.

    Args:
        free, sources: ``(B, H, W)`` bool.
    """
    front = sources & free
    distance = torch.where(front, 0, UNREACHABLE)
    step = 0
    while front.any():
        step += 1
        around = torch.zeros_like(front)
        for way in AHEAD.tolist():
            around |= _shifted(front, way)
        front = around & free & (distance == UNREACHABLE)
        distance = torch.where(front, step, distance)
    return distance


def actions_to_go(free: Tensor, goals: Tensor) -> Tensor:
    """Fewest moves and turns from each pose to a goal pose, ``(B, 4, H, W)`` int64.

    Args:
        free: ``(B, H, W)`` bool.
        goals: ``(B, 4, H, W)`` bool.
    """
    open_poses = free[:, None].expand_as(goals)
    front = goals & open_poses
    distance = torch.where(front, 0, UNREACHABLE)
    step = 0
    while front.any():
        step += 1
        before = front.roll(1, dims=1) | front.roll(-1, dims=1)
        for heading, (dx, dy) in enumerate(AHEAD.tolist()):
            before[:, heading] |= _shifted(front[:, heading], (-dx, -dy))
        front = before & open_poses & (distance == UNREACHABLE)
        distance = torch.where(front, step, distance)
    return distance


def best_action(to_go: Tensor, x: Tensor, y: Tensor, heading: Tensor) -> Tensor:
    """The move or turn ``(B,)`` that comes nearest to a goal; forward where all are equal.

    Args:
        to_go: ``(B, 4, H, W)`` of :func:`actions_to_go`.
        x, y, heading: poses ``(B,)``, one a map.
    """
    row = torch.arange(len(x))
    ahead = to_go[row, heading, y + AHEAD[heading, 1], x + AHEAD[heading, 0]]
    left, right = (to_go[row, (heading + turn) % 4, y, x] for turn in (1, -1))
    return torch.stack([ahead, left, right]).argmin(dim=0)


def _shifted(cells: Tensor, way: tuple[int, int] | list[int]) -> Tensor:
    """Each map moved by ``(dx, dy)``; the walls around make that a roll loses nothing."""
    return cells.roll((way[1], way[0]), dims=(-2, -1))
