"""The primitives that the cameras of a MuJoCo scene see, body by body.

What a robot description and a viewer's markers draw is taken from here, so that both show what the
images do.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import mujoco
import numpy as np

from embodied_rl.core.frames import Pose

BOX, CYLINDER, SPHERE = "box", "cylinder", "sphere"
SHEET_M = 0.002


@dataclass(frozen=True)
class Shape:
    """One coloured primitive; cylinders stand along their own z axis.

    ``size`` in m: full lengths x, y, z of a box; radius and length of a cylinder; radius of a
    sphere.
    """

    kind: str
    size: tuple[float, ...]
    pose: Pose  # in the frame of the body
    rgba: tuple[float, float, float, float]


def pose_of(position: np.ndarray, quaternion: np.ndarray) -> Pose:
    """A pose from MuJoCo's position ``(3,)`` m and quaternion w, x, y, z ``(4,)``."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, dtype=np.float64))
    return Pose(matrix.reshape(3, 3), np.array(position, dtype=np.float64))


def shapes(model: mujoco.MjModel, body: int) -> list[Shape]:
    """The geoms of one body (by number) that images show.

    A capsule becomes a cylinder and two balls; what is no primitive (meshes, ellipsoids) the box of
    its bounds. A plane becomes a thin sheet of its size; one without end is left out.
    """
    shown = mujoco.MjvOption().geomgroup  # as in the renderer
    found: list[Shape] = []
    first = int(model.body_geomadr[body])
    for geom in range(first, first + int(model.body_geomnum[body])):
        material = int(model.geom_matid[geom])
        rgba = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
        if shown[model.geom_group[geom]] and rgba[3] > 0:
            found += _primitives(model, geom, tuple(round(float(v), 4) for v in rgba))
    return found


def surroundings(
    model: mujoco.MjModel, data: mujoco.MjData, without: Collection[int], moving: bool
) -> list[tuple[str, Shape]]:
    """What images show beside the bodies ``without``, in the world's frame, with its body's name.

    Either what stands still during an episode or, with ``moving``, what can be pushed about.
    """
    found = []
    for body in range(model.nbody):
        free = bool(model.body_dofnum[model.body_rootid[body]])
        if body in without or free != moving:
            continue
        here = Pose(data.xmat[body].reshape(3, 3).copy(), data.xpos[body].copy())
        for shape in shapes(model, body):
            placed = Shape(shape.kind, shape.size, here.after(shape.pose), shape.rgba)
            found.append((model.body(body).name, placed))
    return found


def _primitives(model: mujoco.MjModel, geom: int, rgba: tuple[float, ...]) -> list[Shape]:
    kinds = mujoco.mjtGeom
    kind, size = kinds(int(model.geom_type[geom])), model.geom_size[geom].tolist()
    pose = pose_of(model.geom_pos[geom], model.geom_quat[geom])
    colour = (rgba[0], rgba[1], rgba[2], rgba[3])
    if kind == kinds.mjGEOM_PLANE:
        below = pose.after(Pose(np.eye(3), np.array([0.0, 0.0, -SHEET_M / 2])))
        sheet = Shape(BOX, (2 * size[0], 2 * size[1], SHEET_M), below, colour)
        return [sheet] if size[0] and size[1] else []
    if kind == kinds.mjGEOM_BOX:
        return [Shape(BOX, tuple(2 * half for half in size), pose, colour)]
    if kind == kinds.mjGEOM_SPHERE:
        return [Shape(SPHERE, (size[0],), pose, colour)]
    if kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
        radius, half = size[:2]
        found = [Shape(CYLINDER, (radius, 2 * half), pose, colour)]
        if kind == kinds.mjGEOM_CAPSULE:
            for end in (-half, half):
                centre = pose.after(Pose(np.eye(3), np.array([0.0, 0.0, end])))
                found.append(Shape(SPHERE, (radius,), centre, colour))
        return found
    centre, half_sizes = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    bounds = pose.after(Pose(np.eye(3), centre.copy()))
    return [Shape(BOX, tuple((2 * half_sizes).tolist()), bounds, colour)]
