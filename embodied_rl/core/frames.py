"""Fixed frames of a robot and what brings a pose or a vector from one into another.

The section ``frames`` of an embodiment file lists them as a URDF lists fixed joints: where each
stands in its parent. A frame that is not connected to the wanted one is refused, never guessed.
Positions in metres, rotations as unit quaternions x, y, z, w and fixed-axis roll, pitch, yaw in
rad (REP 103).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodied_rl.core.kinematics import transform
from embodied_rl.core.schema import Section

UNIT_TOLERANCE = 1e-3  # by which the norm of a unit quaternion may be off


@dataclass(frozen=True)
class Pose:
    """A frame in another: ``p_there = rotation @ p_here + translation``."""

    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,) m

    def point(self, point: np.ndarray) -> np.ndarray:
        """A place ``(3,)`` of the inner frame, in the outer one."""
        return np.asarray(self.rotation @ point + self.translation)

    def vector(self, vector: np.ndarray) -> np.ndarray:
        """A direction ``(3,)``: turned, not shifted."""
        return np.asarray(self.rotation @ vector)

    def turn(self, quaternion: np.ndarray) -> np.ndarray:
        """An orientation x, y, z, w ``(4,)`` of the inner frame, in the outer one."""
        return multiplied(quaternion_from(self.rotation), quaternion)

    def after(self, inner: Pose) -> Pose:
        """First ``inner``, then this one."""
        return Pose(self.rotation @ inner.rotation, self.point(inner.translation))

    def inverse(self) -> Pose:
        return Pose(self.rotation.T, -(self.rotation.T @ self.translation))


@dataclass(frozen=True)
class Transform:
    """One edge of a tree of frames: where ``child`` stands in ``parent``."""

    parent: str
    child: str
    pose: Pose


# REP 103: the body of a camera looks along its x axis, its optical frame along z, x to the right.
OPTICAL = Pose(
    np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    np.zeros(3),
)


@dataclass(frozen=True)
class Frames:
    """Fixed frames by name: each with its parent and its pose in it."""

    parents: Mapping[str, tuple[str, Pose]]

    def to(self, target: str) -> dict[str, Pose]:
        """Every frame that is connected to ``target``, with its pose in it; not itself."""
        found = {target: Pose(np.eye(3), np.zeros(3))}
        links = [(name, parent, pose) for name, (parent, pose) in self.parents.items()]
        grown = True
        while grown:
            grown = False
            for name, parent, pose in links:
                if parent in found and name not in found:
                    found[name], grown = found[parent].after(pose), True
                elif name in found and parent not in found:
                    found[parent], grown = found[name].after(pose.inverse()), True
        del found[target]
        return found


def parse_frames(root: Section) -> Frames:
    """The section ``frames: {name: {parent, xyz, rpy}}``; none of it means no frames.

    Raises:
        UserError: a key is missing or unknown, or the frames go round in a circle.
    """
    if root.optional_child("frames") is None:
        return Frames({})
    parents: dict[str, tuple[str, Pose]] = {}
    for name, part in root.children("frames"):
        matrix = transform(part.vector("xyz", 3), part.vector("rpy", 3))
        parents[name] = (part.text("parent"), Pose(matrix[:3, :3], matrix[:3, 3]))
        part.done()
    for name in parents:
        above, seen = name, [name]
        while above in parents:
            above = parents[above][0]
            if above in seen:
                root.fail(f"frames.{name}.parent", "frames that lead to a root", [*seen, above])
            seen.append(above)
    return Frames(parents)


def quaternion_from(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion x, y, z, w ``(4,)`` with w >= 0 of a rotation matrix ``(3, 3)``.

    The matrix of ``q`` is linear in ``q q^T``; of its four rows the longest is divided by.
    """
    m = rotation
    outer = np.empty((4, 4))  # 4 q q^T
    trace = float(np.trace(m))
    for i in range(3):
        outer[i, i] = 1.0 + 2.0 * m[i, i] - trace
        j, k = (i + 1) % 3, (i + 2) % 3
        outer[i, j] = outer[j, i] = m[i, j] + m[j, i]
        outer[i, 3] = outer[3, i] = m[k, j] - m[j, k]
    outer[3, 3] = 1.0 + trace
    row = outer[int(np.argmax(np.diag(outer)))]
    quaternion = row / np.linalg.norm(row)
    return np.asarray(quaternion if quaternion[3] >= 0 else -quaternion)


def rotation_from(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix ``(3, 3)`` of a unit quaternion x, y, z, w ``(4,)``."""
    x, y, z, w = (float(value) for value in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def multiplied(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Hamilton product ``(4,)`` of quaternions x, y, z, w: ``second`` is applied first."""
    a, b = first[:3], second[:3]
    vector = first[3] * b + second[3] * a + np.cross(a, b)
    return np.append(vector, first[3] * second[3] - a @ b)
