"""A point with a velocity command."""

from __future__ import annotations

import torch
from torch import Tensor


class Linear:
    """State (x, y), action velocity / (1 m/s): ``p' = p + u dt``."""

    name = "linear"
    dt_s = 0.5
    steps = 64
    arena_m = 5.0
    top_speed = 1.0
    state_dim = 2
    action_dim = 2
    position_dim = 2
    start_dim = 2
    feature_dim = 2

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return state + self.dt_s * action.clamp(-1.0, 1.0)

    def position(self, state: Tensor) -> Tensor:
        return state

    def features(self, state: Tensor) -> Tensor:
        return state / self.arena_m

    def start(self, place: Tensor, generator: torch.Generator) -> Tensor:
        return place.clone()

    def toward(self, state: Tensor, target: Tensor) -> Tensor:
        return ((target - state) / self.dt_s).clamp(-1.0, 1.0)
