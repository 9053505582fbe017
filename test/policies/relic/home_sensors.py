"""What a robot's lidar and camera would see in a home of the grid, by casting rays in numpy.

Obstacles fill their cells up to the ceiling; objects are spheres that hang above the robot.
"""

from __future__ import annotations

import math

import numpy as np

from embodied_rl.core.embodiment import Stream
from embodied_rl.sim.navigation.layout import Layout

CAMERA_M, OBJECT_M, RADIUS_M = 0.25, 0.65, 0.125


def cast(layout: Layout, origin: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Ranges ``(n,)`` m from a position to the nearest obstacle, from crossing to crossing of the
    grid's lines; the walls around end every ray."""
    way = np.column_stack([np.cos(angles), np.sin(angles)])
    at = origin / layout.settings.cell_m
    cell = np.tile(np.floor(at).astype(int), (len(angles), 1))
    step = np.where(way > 0, 1, -1)
    pitch = 1 / np.maximum(np.abs(way), 1e-12)
    crossing = np.where(way > 0, cell + 1 - at, at - cell) * pitch  # where each ray leaves its cell
    length = np.zeros(len(angles))
    while (going := ~layout.obstacles[cell[:, 1], cell[:, 0]]).any():
        ray = np.flatnonzero(going)
        axis = crossing[ray].argmin(axis=1)
        length[ray] = crossing[ray, axis]
        crossing[ray, axis] += pitch[ray, axis]
        cell[ray, axis] += step[ray, axis]
    return length * layout.settings.cell_m


def scan_from(layout: Layout, pose: np.ndarray, stream: Stream) -> np.ndarray:
    """Readings of a lidar in the middle of the robot."""
    assert stream.scan is not None
    ranges = cast(layout, pose[:2], stream.scan.angles_rad + pose[2])
    return stream.scan.readings(ranges)


def images_from(
    layout: Layout, pose: np.ndarray, shape: tuple[int, ...], camera_rad: float
) -> tuple[np.ndarray, np.ndarray]:
    """Depth (m, along the view) and segmentation ``(h, w)`` of a pinhole camera looking ahead."""
    height, width = shape
    focal = width / 2 / math.tan(camera_rad / 2)
    left = ((width - 1) / 2 - np.arange(width)) / focal
    up = ((height - 1) / 2 - np.arange(height)) / focal
    bearing = np.arctan2(left, 1.0)
    walls = cast(layout, pose[:2], pose[2] + bearing) * np.cos(bearing)
    floor = np.where(up < 0, -CAMERA_M / np.minimum(up, -1e-9), np.inf)
    depth = np.minimum(walls[None], floor[:, None])
    ids = np.zeros(shape, dtype=np.uint16)
    rays = np.stack(np.broadcast_arrays(np.ones(shape), left[None], up[:, None]), axis=-1)
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    for cell, kind in zip(layout.object_cells, layout.object_types):
        away = layout.centre_m(cell) - pose[:2]
        centre = np.array([away @ [cos, sin], away @ [-sin, cos], OBJECT_M - CAMERA_M])
        a, b = (rays**2).sum(-1), rays @ centre
        inside = b**2 - a * (centre @ centre - RADIUS_M**2)
        near = np.where(inside >= 0, (b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
        hit = (near > 0.01) & (near < depth)
        depth = np.where(hit, near, depth)
        ids[hit] = kind + 1
    return depth.astype(np.float32), ids
