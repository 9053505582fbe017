"""One robot, one step, in numpy and float64: what the batched dynamics are checked against."""

from __future__ import annotations

import math

import numpy as np

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.sim.worlds.base import sim_worlds_file

REACH = Embodiment.load(sim_worlds_file("tabletop/ur5e_reach.yaml"))


def linear(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    return state + 0.5 * np.clip(action, -1, 1)


def unicycle(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    x, y, heading, v = state
    turn, push = np.clip(action, -1, 1)
    turned = heading + 0.5 * turn
    return np.array(
        [
            x + 0.5 * v * math.cos(heading),
            y + 0.5 * v * math.sin(heading),
            math.atan2(math.sin(turned), math.cos(turned)),
            min(max(v + 0.5 * push, -0.01), 2.0),
        ]
    )


def rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation about x, y or z."""
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def quadrotor(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """By rotation matrices; Euler rates solve ``w = e_x r. + R_x^T (e_y p. + R_y^T e_z y.)``."""
    p, v, angles, rates = np.split(state, 4)
    action = np.clip(action, -1, 1)
    rates = rates + (3.0 * action[1:] - rates) * 0.05 / 0.1
    roll, pitch, _ = angles
    undo_roll, undo_pitch = rotation(0, roll).T, rotation(1, pitch).T
    columns = [[1, 0, 0], undo_roll @ [0, 1, 0], undo_roll @ undo_pitch @ [0, 0, 1]]
    angles = angles + 0.05 * np.linalg.solve(np.column_stack(columns), rates)
    angles[:2] = np.clip(angles[:2], -1.0, 1.0)
    attitude = rotation(2, angles[2]) @ rotation(1, angles[1]) @ rotation(0, angles[0])
    push = attitude @ [0, 0, 9.81 * (1 + action[0])] - [0, 0, 9.81] - 0.1 * v
    v = v + 0.05 * push
    p = p + 0.05 * v
    p[2] = max(p[2], 0.0)
    return np.concatenate([p, v, angles, rates])


def arm(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """By the kinematics of ``core``; the first six commands are the arm's."""
    lower, upper, _ = REACH.limits()
    wanted = np.clip(state + 0.05 * np.clip(action, -1, 1), lower[:6], upper[:6])
    before, after = (outside(q) for q in (state, wanted))
    return state if after > 0 and after >= before else wanted


def outside(q: np.ndarray) -> float:
    """How far the tool is outside of the workspace, in m."""
    tool = REACH.chain.forward(q)[0]
    return float(np.linalg.norm(tool - np.clip(tool, REACH.workspace.lower, REACH.workspace.upper)))
