"""How well the last action alone predicts the next one in what a policy did: the copycat measure.

arXiv 2505.09561, section on action predictability: a small network predicts a_t from a_(t-1); the
error on expert data over the error on the policy's rollouts is 1 when the policy's actions hang
together like the expert's, above 1 for a copycat, and far below 1 for a policy that jitters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from embodied_rl.core.embodiment import Embodiment

HIDDEN, EPOCHS, BATCH, LEARNING_RATE = 64, 20, 256, 1e-3
HELD_OUT = 0.1  # of the trajectories


def tool_paths(embodiment: Embodiment, commands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Commanded tool positions ``(K, 3)`` in metres of each episode's commands ``(K, A)``."""
    chain = embodiment.chain
    if chain is None:
        raise ValueError(f"{embodiment.name}: needs a kinematic chain")
    arm = [embodiment.action_names.index(joint) for joint in chain.joints]
    return [np.array([chain.forward(row[arm])[0] for row in episode]) for episode in commands]


def path_range(paths: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value ``(3,)`` of each dimension over all trajectories."""
    together = np.concatenate(paths)
    return together.min(0), together.max(0)


def prediction_error(paths: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray) -> float:
    """Mean squared error, on held-out trajectories, of predicting a_t from a_(t-1).

    Args:
        paths: ``(K, 3)`` actions of each trajectory; those shorter than two are left out.
        low, high: ``(3,)`` range that is mapped to [-1, 1], the same for all that are compared.

    Raises:
        ValueError: fewer than two trajectories: one to learn from, one to test on.
    """
    scaled = [2 * (path - low) / (high - low) - 1 for path in paths if len(path) > 1]
    if len(scaled) < 2:
        raise ValueError(f"expected two trajectories or more, saw {len(scaled)}")
    held = max(1, round(HELD_OUT * len(scaled)))
    test, train = _pairs(scaled[:held]), _pairs(scaled[held:])
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3))
    optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser)
    for _ in range(EPOCHS):
        order = torch.randperm(len(train[0]), generator=generator)
        for rows in order.split(BATCH):
            loss = nn.functional.mse_loss(net(train[0][rows]), train[1][rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            schedule.step(nn.functional.mse_loss(net(train[0]), train[1]))
    with torch.no_grad():
        return float(nn.functional.mse_loss(net(test[0]), test[1]))


def _pairs(paths: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    before = np.concatenate([path[:-1] for path in paths])
    after = np.concatenate([path[1:] for path in paths])
    return torch.from_numpy(before).float(), torch.from_numpy(after).float()
