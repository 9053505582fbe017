"""Forward and inverse kinematics of one serial arm, from the embodiment file, in numpy.

The chain is a list of joints, each with the fixed transform from its parent and a rotation axis,
and a fixed transform from the last joint to the tool centre point. Units: metres and radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section


@dataclass(frozen=True)
class Chain:
    """Serial chain of ``n`` revolute joints: ``T = prod_i(origin_i * Rot(axis_i, q_i)) * tool``."""

    joints: tuple[str, ...]
    origins: np.ndarray  # (n, 4, 4) parent -> joint frame at q = 0
    axes: np.ndarray  # (n, 3) unit axis in the joint frame
    tool: np.ndarray  # (4, 4) last joint frame -> tool centre point

    def _frames(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World positions ``(n, 3)`` and axes ``(n, 3)`` of the joints, and the tool ``(4, 4)``."""
        frame = np.eye(4)
        positions, axes = np.empty((len(q), 3)), np.empty((len(q), 3))
        for i, angle in enumerate(q):
            frame = frame @ self.origins[i]
            positions[i], axes[i] = frame[:3, 3], frame[:3, :3] @ self.axes[i]
            turned = np.eye(4)
            turned[:3, :3] = _rotation(self.axes[i], angle)
            frame = frame @ turned
        return positions, axes, frame @ self.tool

    def forward(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position ``(3,)`` in metres and rotation ``(3, 3)`` for joint angles ``(n,)``."""
        tool = self._frames(np.asarray(q, dtype=np.float64))[2]
        return tool[:3, 3], tool[:3, :3]

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """Geometric Jacobian ``(6, n)``: linear rows first, then angular."""
        positions, axes, tool = self._frames(np.asarray(q, dtype=np.float64))
        return np.vstack([np.cross(axes, tool[:3, 3] - positions).T, axes.T])

    def inverse(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        start: np.ndarray,
        tolerance: float = 1e-6,
        iterations: int = 50,
        damping: float = 1e-3,
    ) -> np.ndarray:
        """Joint angles ``(n,)`` near ``start`` that put the tool at a pose: damped least squares.

        Warm-started from the last solution it stays on one branch, which is what a demonstrator
        needs: equal tool poses then have equal joint angles.

        Raises:
            UserError: no convergence; names the pose and the error left.
        """
        q = np.array(start, dtype=np.float64)
        for _ in range(iterations):
            positions, axes, tool = self._frames(q)
            error = np.concatenate(
                [position - tool[:3, 3], _rotation_vector(rotation @ tool[:3, :3].T)]
            )
            if float(np.abs(error).max()) < tolerance:
                return q
            jacobian = np.vstack([np.cross(axes, tool[:3, 3] - positions).T, axes.T])
            square = jacobian @ jacobian.T + damping**2 * np.eye(6)
            step = jacobian.T @ np.linalg.solve(square, error)
            q += step * min(1.0, 0.5 / max(float(np.abs(step).max()), 1e-12))
        raise UserError(
            f"inverse kinematics: tool pose {np.round(position, 4).tolist()} m not reached from "
            f"{np.round(start, 3).tolist()} rad; error left {np.abs(error).max():.2e}"
        )


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula, ``(3, 3)``."""
    cross = _skew(axis)
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def _skew(v: np.ndarray) -> np.ndarray:
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle ``(3,)`` of a rotation matrix."""
    cosine = np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0)
    angle = float(np.arccos(cosine))
    vector = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    if angle < 1e-6:
        return vector / 2.0
    sine = np.sin(angle)
    if sine < 1e-6:  # half a turn: the axis stands in the symmetric part, (1 - cos) * axis axis^T
        outer = (rotation + rotation.T) / 2.0 - cosine * np.eye(3)
        axis = outer[:, int(np.argmax(np.diag(outer)))]
        axis = axis / np.linalg.norm(axis)
        return angle * (axis if axis @ vector >= 0 else -axis)
    return vector * (angle / (2.0 * sine))


def transform(position: np.ndarray, rpy: np.ndarray) -> np.ndarray:
    """``(4, 4)`` from a translation in metres and fixed-axis roll, pitch, yaw (REP-103)."""
    matrix = np.eye(4)
    x, y, z = np.eye(3)
    matrix[:3, :3] = _rotation(z, rpy[2]) @ _rotation(y, rpy[1]) @ _rotation(x, rpy[0])
    matrix[:3, 3] = position
    return matrix


def parse_chain(part: Section) -> Chain:
    """The ``kinematics`` section: ``joints: {name: {xyz, rpy, axis}}`` and ``tool: {xyz, rpy}``."""
    names, origins, axes = [], [], []
    for name, joint in part.children("joints"):
        axis = joint.vector("axis", 3)
        length = float(np.linalg.norm(axis))
        if length < 1e-9:
            joint.fail("axis", "a direction", axis.tolist())
        names.append(name)
        origins.append(transform(joint.vector("xyz", 3), joint.vector("rpy", 3)))
        axes.append(axis / length)
        joint.done()
    tool = part.optional_child("tool")
    tool_frame = np.eye(4)
    if tool is not None:
        tool_frame = transform(tool.vector("xyz", 3), tool.vector("rpy", 3))
        tool.done()
    part.done()
    return Chain(tuple(names), np.array(origins), np.array(axes), tool_frame)
