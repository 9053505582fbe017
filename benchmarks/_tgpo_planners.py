"""Open-loop planning with the true model: a sequence of actions for every start anew."""

from __future__ import annotations

import torch
from _tgpo_rivals import (
    ARENA_M,
    BaselineRun,
    CemSettings,
    GradSettings,
)
from torch import Tensor

from embodied_rl.sim.stl_tasks.task import StlTask
from embodied_rl.training.cem import maximise


def simulate(task: StlTask, state: Tensor, actions: Tensor) -> Tensor:
    """Positions ``(N, T + 1, d)`` under actions ``(N, T, A)`` from states ``(N, n)``."""
    positions = [task.dynamics.position(state)]
    for action in actions.unbind(dim=1):
        state = task.dynamics.step(state, action)
        positions.append(task.dynamics.position(state))
    return torch.stack(positions, dim=1)


def plan(
    task: StlTask, run: BaselineRun, state: Tensor, transitions: int, generator: torch.Generator
) -> Tensor:
    """Robustness ``(N,)`` of the plans found from states ``(N, n)``.

    Args:
        transitions: calls of the model that the plan of one start may use.
    """
    if run.method == "grad":
        return _grad(task, run.grad, state, transitions, generator)
    return torch.stack([_cem(task, run.cem, row, transitions, generator) for row in state])


@torch.no_grad()
def _cem(
    task: StlTask,
    settings: CemSettings,
    start: Tensor,
    transitions: int,
    generator: torch.Generator,
) -> Tensor:
    shape = (task.dynamics.steps, task.dynamics.action_dim)
    rounds = transitions // (settings.population * task.dynamics.steps)
    if rounds < 1:
        raise ValueError(f"transitions: expected one round of CEM at least, saw {transitions}")
    limited = CemSettings(
        settings.population, settings.elite, min(rounds, settings.iterations), settings.smoothing
    )

    def score(samples: Tensor) -> Tensor:
        state = start.expand(len(samples), -1)
        return task.robustness(simulate(task, state, samples.reshape(-1, *shape))).float()

    size, enough = shape[0] * shape[1], 0.05 * task.dynamics.arena_m / ARENA_M
    best, _ = maximise(score, torch.zeros(size), torch.ones(size), limited, generator, enough)
    return task.robustness(simulate(task, start[None], best.reshape(1, *shape)))[0]


def _grad(
    task: StlTask,
    settings: GradSettings,
    state: Tensor,
    transitions: int,
    generator: torch.Generator,
) -> Tensor:
    steps = task.dynamics.steps
    iterations = min(settings.iterations, transitions // (settings.restarts * steps))
    if iterations < 1:
        raise ValueError(f"transitions: expected one iteration at least, saw {transitions}")
    many = state.repeat_interleave(settings.restarts, dim=0)
    shape = (len(many), steps, task.dynamics.action_dim)
    free = torch.randn(shape, generator=generator).requires_grad_(True)
    optimizer = torch.optim.Adam([free], lr=settings.learning_rate)
    temperature = settings.temperature * task.dynamics.arena_m / ARENA_M
    for _ in range(iterations):
        positions = simulate(task, many, free.tanh())
        loss = -task.robustness(positions, temperature).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = task.robustness(simulate(task, many, free.tanh()))
    return found.view(len(state), settings.restarts).amax(dim=1)
