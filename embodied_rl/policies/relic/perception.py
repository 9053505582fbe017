"""From lidar and camera to the map crop that the network knows from its grid world.

Obstacles come from where the beams of a planar lidar end, free cells from those that beams cross,
objects from the pixels of a segmented depth image. What may show in the crop follows from the
grid's own rule of sight on these obstacles. A cell of which nothing is known stays UNSEEN.

All are measured at one instant, while the robot stands. Of earlier poses one thing is kept, where
the lidar has measured obstacles in this home: the grid's rule lets sight pass corners behind which
the lidar sees nothing, and such a cell is as it was measured before, if it ever was. What the rule
does not show stays UNSEEN, and objects are never kept: what was seen before is the network's to
remember.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.scan import NO_MEASUREMENT
from embodied_rl.sim.navigation.egocentric import FIRST_OBJECT, FREE, UNSEEN, WALL
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation as World
from embodied_rl.sim.navigation.grid import AHEAD, GridPose

SCAN, DEPTH, SEGMENTATION = "scan", "camera_front_depth", "camera_front_segmentation"
ENCODINGS = {DEPTH: "32FC1", SEGMENTATION: "mono16"}

SAMPLE_CELLS = 0.1  # distance of the points at which a beam is looked at
FREE_SAMPLES = 2  # of beams that have crossed a free cell
FACE_CELLS = 0.2  # an end point this near to a line of the grid is on the side of an obstacle
CORNER_CELLS = 0.12  # this near to two lines it may be on either obstacle, and counts for none
PIXELS = 2  # of an object in a cell; at the far end of the crop it has about seven
SHARE = 0.3  # of an object's pixels; those on its edge may show the depth of what is behind it


class Seen(NamedTuple):
    """What a robot sees where it stands."""

    at: GridPose
    cells: Tensor  # (1, C) int64, the crop in the grid's codes
    blocked: bool  # the cell ahead is taken, or outside the home


class CropPerception:
    """What ``world``, the grid twin, would show to a robot whose sensors saw this.

    Args:
        world: with cells and a home of the robot's; its map begins at the origin of ``odom``.
        embodiment: a robot with a lidar in its middle, and there a camera too, straight ahead, a
            pinhole of ``camera_rad`` from left to right that gives depth and segmentation: pixels
            of objects of type k are numbered ``k + 1``.

    Attributes:
        known: cells ``(W, H)`` that the lidar has measured in this home: WALL, FREE, or UNSEEN.

    Raises:
        UserError: the robot lacks a stream, or one is of another kind.
    """

    def __init__(self, world: World, embodiment: Embodiment, camera_rad: float) -> None:
        scan, *images = embodiment.require([SCAN, DEPTH, SEGMENTATION]).values()
        if scan.scan is None:
            raise UserError(
                f"{embodiment.origin}: streams.{SCAN}: expected a lidar, saw {scan.type}"
            )
        for image in images:
            expected = ENCODINGS[image.key], images[0].shape
            if (image.encoding, image.shape) != expected:
                raise UserError(
                    f"{embodiment.origin}: streams.{image.key}: expected {expected[0]} of shape "
                    f"{list(expected[1])}, saw {image.encoding or image.type} of shape "
                    f"{list(image.shape)}"
                )
        self._world = world
        settings = world.layout_settings
        self._cell_m = settings.cell_m
        self._shape = settings.width, settings.height  # of maps here, [x, y]
        self.known = np.full(self._shape, UNSEEN, dtype=np.int64)
        self._scan = scan.scan
        self._beams = self._scan.angles_rad
        furthest = float(world.sight.offsets.double().norm(dim=1).max())
        self._reach_m = self._cell_m * (furthest + 1.5)
        height, width = images[0].shape
        focal = width / 2 / math.tan(camera_rad / 2)
        self._left = np.tile(((width - 1) / 2 - np.arange(width)) / focal, (height, 1))

    @property
    def centre(self) -> np.ndarray:
        """A pose ``(3,)`` in the middle of the home."""
        return np.array([*(part * self._cell_m / 2 for part in self._shape), 0.0])

    def forget(self) -> None:
        """Another home begins."""
        self.known[:] = UNSEEN

    def locate(self, pose: np.ndarray) -> GridPose:
        """The cell and heading nearest to a pose ``(3,)``: x and y in m, yaw in rad.

        Raises:
            UserError: it lies outside the home.
        """
        at = GridPose.nearest(pose, self._cell_m)
        if not (0 <= at.x < self._shape[0] and 0 <= at.y < self._shape[1]):
            size = tuple(part * self._cell_m for part in self._shape)
            raise UserError(
                f"odometry: expected a position within the home of {size[0]:g} m by {size[1]:g} m, "
                f"saw ({pose[0]:.2f}, {pose[1]:.2f}) m"
            )
        return at

    def obstacles(self, pose: np.ndarray, readings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells ``(W, H)`` bool that are known to be taken, and such that are known to be free.

        Args:
            pose: ``(3,)``, as measured.
            readings: ``(beams,)`` of the lidar, in m.
        """
        angles = self._beams + pose[2]
        way = np.column_stack([np.cos(angles), np.sin(angles)])
        returned = (readings > self._scan.range_min_m) & (readings < self._scan.range_max_m)
        reached = np.where(readings == NO_MEASUREMENT, 0.0, readings)
        free = self._crossed(pose, way, np.minimum(reached, self._reach_m))
        ended = returned & (readings <= self._reach_m)
        ends = (pose[:2] + readings[:, None] * way) / self._cell_m
        hit, between = self._hit(pose[:2] / self._cell_m, ends, ended)
        taken = hit | (between & ~free)
        return taken, free & ~taken

    def _crossed(self, pose: np.ndarray, way: np.ndarray, length_m: np.ndarray) -> np.ndarray:
        """Cells ``(W, H)`` that enough beams have crossed on their way."""
        at = np.arange(0.0, self._reach_m, SAMPLE_CELLS * self._cell_m)
        inside = at < (length_m - SAMPLE_CELLS * self._cell_m)[:, None]
        points = pose[:2] + at[:, None] * way[:, None]
        return self._count(points[inside] / self._cell_m) >= FREE_SAMPLES

    def _hit(
        self, robot: np.ndarray, ends: np.ndarray, ended: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cells ``(W, H)`` that beams end in, and such that lie between two neighbouring ends on
        one straight face: a distant wall seen aslant is longer than the gap between two beams.

        Args:
            robot, ends: ``(2,)`` and ``(beams, 2)``, in cells.
            ended: ``(beams,)`` bool, which beams have an end.
        """
        line = np.round(ends)
        off = np.abs(ends - line)
        axis = off.argmin(axis=1)  # across the face
        row = np.arange(len(ends))
        on_face = ended & (off[row, axis] < FACE_CELLS)
        clear = on_face & (off[row, 1 - axis] > CORNER_CELLS)
        # the obstacle is on the far side of its face
        side = np.where(robot < line, line, line - 1)
        cell = np.floor(ends)
        cell[row, axis] = side[row, axis]
        within = ended & ~on_face  # of a piece much smaller than its cell
        hit = self._count(cell[clear | within]) > 0

        after = np.roll(row, -1)
        same = on_face & on_face[after] & (axis == axis[after])
        same &= side[row, axis] == side[after, axis]
        between = np.zeros(self._shape, dtype=bool)
        for first, last in np.unique(np.stack([cell[same], cell[after[same]]], axis=1), axis=0):
            low, high = np.minimum(first, last).astype(int), np.maximum(first, last).astype(int)
            between[low[0] : high[0] + 1, low[1] : high[1] + 1] = True
        return hit, between

    def _count(self, points: np.ndarray) -> np.ndarray:
        """How many of the points ``(n, 2)``, in cells, lie in each cell ``(W, H)``."""
        cells = np.floor(points).astype(np.int64)
        cells = cells[np.all((cells >= 0) & (cells < self._shape), axis=1)]
        index = np.ravel_multi_index((cells[:, 0], cells[:, 1]), self._shape)
        return np.bincount(index, minlength=math.prod(self._shape)).reshape(self._shape)

    def objects(self, pose: np.ndarray, depth: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Cells ``(W, H)`` int64: 1 + type of the object that is seen in it, 0 for none.

        Args:
            pose: ``(3,)``, as measured.
            depth: ``(h, w)`` float, along the view, in m.
            ids: ``(h, w)`` uint16.
        """
        seen = np.isfinite(depth) & (depth > 0) & (depth < self._reach_m)
        ahead, left = depth, self._left * depth
        cos, sin = math.cos(pose[2]), math.sin(pose[2])
        x = pose[0] + ahead * cos - left * sin
        y = pose[1] + ahead * sin + left * cos
        found = np.zeros(self._shape, dtype=np.int64)
        most = np.zeros(self._shape, dtype=np.int64)
        for number in range(1, self._world.layout_settings.types + 1):
            of_type = seen & (ids == number)
            count = self._count(np.column_stack([x[of_type], y[of_type]]) / self._cell_m)
            more = (count >= max(PIXELS, SHARE * count.sum())) & (count > most)
            found[more], most[more] = number, count[more]
        return found

    def look(
        self, pose: np.ndarray, readings: np.ndarray, depth: np.ndarray, ids: np.ndarray
    ) -> Seen:
        """All that is seen from a pose; arguments as above.

        Raises:
            UserError: the pose lies outside the home.
        """
        at = self.locate(pose)
        taken, free = self.obstacles(pose, readings)
        objects = self.objects(pose, depth, ids)
        ahead_x, ahead_y = np.array([at.x, at.y]) + AHEAD[at.heading].numpy()
        inside = 0 <= ahead_x < self._shape[0] and 0 <= ahead_y < self._shape[1]
        blocked = not inside or bool(taken[ahead_x, ahead_y])
        self.known[taken], self.known[free] = WALL, FREE
        taken |= ~free & _inner_corners(taken, at)
        hidden = ~taken & ~free
        taken |= hidden & (self.known == WALL)
        free |= hidden & (self.known == FREE)
        return Seen(at, self._crop(at, taken, free, objects), blocked)

    def _crop(
        self, at: GridPose, taken: np.ndarray, free: np.ndarray, objects: np.ndarray
    ) -> Tensor:
        """The crop ``(1, C)`` from what is known of the cells ``(W, H)``."""
        known = np.where(taken, WALL, np.where(free | (objects > 0), FREE, UNSEEN))
        sight = self._world.sight
        x, y, heading = (torch.tensor([part]) for part in at)
        opaque = torch.from_numpy(taken.T.copy())[None]
        seen = sight.look(opaque, torch.zeros_like(x), x, y, heading)[0].numpy()
        cell_x, cell_y = (part[0].numpy() for part in sight.cells(x, y, heading))
        width, height = self._shape
        seen &= (cell_x >= 0) & (cell_x < width) & (cell_y >= 0) & (cell_y < height)
        shown = np.full(len(seen), UNSEEN, dtype=np.int64)
        shown[seen] = known[cell_x[seen], cell_y[seen]]
        kind = np.zeros_like(shown)
        kind[seen] = objects[cell_x[seen], cell_y[seen]]
        pictured = (kind > 0) & (shown == FREE) & self._world.in_camera.numpy()
        return torch.from_numpy(np.where(pictured, FIRST_OBJECT - 1 + kind, shown))[None]


def _inner_corners(taken: np.ndarray, robot: GridPose) -> np.ndarray:
    """Cells ``(W, H)`` where two obstacles meet that are seen from within the corner: what is
    behind has no face that could be seen, and the grid's rule lets sight pass between the two."""
    toward_x = np.zeros_like(taken)
    toward_y = np.zeros_like(taken)
    toward_x[: robot.x] = taken[1 : robot.x + 1]
    toward_x[robot.x + 1 :] = taken[robot.x : -1]
    toward_y[:, : robot.y] = taken[:, 1 : robot.y + 1]
    toward_y[:, robot.y + 1 :] = taken[:, robot.y : -1]
    return toward_x & toward_y
