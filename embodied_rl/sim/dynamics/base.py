"""The interface of batched dynamics: what a task, a trainer and a scripted controller need."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Dynamics(Protocol):
    """A robot whose next state is a differentiable function of state and action.

    States are ``(N, state_dim)``, actions ``(N, action_dim)`` in [-1, 1]; what lies outside is
    clipped. The unit of positions is the metre.
    """

    name: str
    dt_s: float
    steps: int  # of an episode
    arena_m: float  # regions lie within this of the origin, in x and y
    top_speed: float  # m/s, the scale of what is reachable in a given time
    state_dim: int
    action_dim: int
    position_dim: int  # the first entries of the state
    feature_dim: int

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """State ``dt_s`` later."""

    def features(self, state: Tensor) -> Tensor:
        """What a network sees of the state, ``(N, feature_dim)``, about within [-1, 1]."""

    def start(self, position: Tensor, generator: torch.Generator) -> Tensor:
        """States ``(N, state_dim)`` at rest or nearly so at positions ``(N, position_dim)``."""

    def toward(self, state: Tensor, target: Tensor) -> Tensor:
        """A plain feedback law: actions that bring the robot near targets ``(N, position_dim)``."""


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
