"""Is a task feasible? A search for one trace that satisfies it.

The cross-entropy method moves the knots of a reference path; the robot follows it by its plain
feedback law, through its own dynamics. What counts is the exact robustness of the resulting trace.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embodied_rl.sim.dynamics.base import Dynamics, uniform
from embodied_rl.sim.stl_tasks.task import StlTask, Witness
from embodied_rl.training.cem import CemSettings, maximise

KNOTS = 16
RESTARTS = 5
METHOD = "cross-entropy over the knots of a path, followed by feedback"


def follow(dynamics: Dynamics, state: Tensor, path: Tensor) -> Tensor:
    """Positions ``(N, T + 1, d)`` of robots ``(N, n)`` that follow moving targets ``(N, T, d)``."""
    positions = [dynamics.position(state)]
    for target in path.unbind(dim=1):
        state = dynamics.step(state, dynamics.toward(state, target))
        positions.append(dynamics.position(state))
    return torch.stack(positions, dim=1)


def interpolated(knots: Tensor, steps: int) -> Tensor:
    """Points ``(N, steps, d)`` on the lines between knots ``(N, K, d)``, evenly spaced in time."""
    place = torch.linspace(0.0, knots.shape[1] - 1.0, steps)
    before = place.floor().long().clamp(max=knots.shape[1] - 2)
    share = (place - before)[:, None]
    return (1 - share) * knots[:, before] + share * knots[:, before + 1]


def find_witness(
    task: StlTask, seed: int = 0, settings: CemSettings | None = None, enough: float = 0.15
) -> Witness | None:
    """A trace from the middle of the start box with robustness above 0, the best of five searches.

    Args:
        enough: metres of robustness at which a search stops.
    """
    settings = settings or CemSettings()
    dynamics = task.dynamics
    generator = torch.Generator().manual_seed(seed)
    middle = (torch.tensor(task.start_low) + torch.tensor(task.start_high)) / 2
    state = dynamics.start(middle[None], torch.Generator().manual_seed(seed))
    origin, near = dynamics.position(state)[0], 0.2 * dynamics.arena_m
    shape = (KNOTS, dynamics.position_dim)

    def score(samples: Tensor) -> Tensor:
        count = len(samples)
        path = interpolated(samples.reshape(count, *shape), dynamics.steps)
        return task.robustness(follow(dynamics, state.expand(count, -1), path)).float()

    best = -float("inf")
    for _ in range(RESTARTS):
        mean = origin + uniform(shape, -near, near, generator)
        deviation = torch.full((mean.numel(),), 0.6 * dynamics.arena_m)
        _, found = maximise(score, mean.flatten(), deviation, settings, generator, enough)
        best = max(best, found)
        if best >= enough:
            break
    return Witness(round(best, 4), METHOD) if best > 0 else None
