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
    arena_m: float  # the scale of positions; regions lie within this of the middle
    top_speed: float  # m/s, the scale of what is reachable in a given time
    state_dim: int
    action_dim: int
    position_dim: int
    start_dim: int  # of what says where an episode begins: a position, or joint angles
    feature_dim: int

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """State ``dt_s`` later."""

    def position(self, state: Tensor) -> Tensor:
        """What regions are about, ``(..., position_dim)`` of states ``(..., state_dim)``, in m."""

    def features(self, state: Tensor) -> Tensor:
        """What a network sees of the state, ``(N, feature_dim)``, about within [-1, 1]."""

    def start(self, place: Tensor, generator: torch.Generator) -> Tensor:
        """States ``(N, state_dim)`` at rest or nearly so at places ``(N, start_dim)``."""

    def toward(self, state: Tensor, target: Tensor) -> Tensor:
        """A plain feedback law: actions that bring the robot near targets ``(N, position_dim)``."""


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
