"""A car-like robot: turn rate and acceleration."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from embodied_rl.sim.dynamics.base import uniform


class Unicycle:
    """State (x, y, heading, v), action (turn rate / 1 rad/s, acceleration / 1 m/s^2).

    Explicit Euler: position moves with the old heading and speed. The heading stays in
    [-pi, pi), the speed in [-0.01, 2] m/s.
    """

    name = "unicycle"
    dt_s = 0.5
    steps = 64
    arena_m = 5.0
    top_speed = 2.0
    least_speed = -0.01
    state_dim = 4
    action_dim = 2
    position_dim = 2
    start_dim = 2
    feature_dim = 5

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        x, y, heading, v = state.unbind(-1)
        turn, push = action.clamp(-1.0, 1.0).unbind(-1)
        return torch.stack(
            [
                x + v * heading.cos() * self.dt_s,
                y + v * heading.sin() * self.dt_s,
                _wrapped(heading + turn * self.dt_s),
                (v + push * self.dt_s).clamp(self.least_speed, self.top_speed),
            ],
            dim=-1,
        )

    def position(self, state: Tensor) -> Tensor:
        return state[..., : self.position_dim]

    def features(self, state: Tensor) -> Tensor:
        x, y, heading, v = state.unbind(-1)
        scaled = [x / self.arena_m, y / self.arena_m, heading.cos(), heading.sin()]
        return torch.stack([*scaled, v / self.top_speed], dim=-1)

    def start(self, place: Tensor, generator: torch.Generator) -> Tensor:
        heading = uniform((len(place), 1), -math.pi, math.pi, generator)
        v = uniform((len(place), 1), 0.0, 1.0, generator)
        return torch.cat([place, heading, v], dim=-1)

    def toward(self, state: Tensor, target: Tensor) -> Tensor:
        away = target - state[:, :2]
        distance = away.norm(dim=-1)
        error = _wrapped(torch.atan2(away[:, 1], away[:, 0]) - state[:, 2])
        wanted = (0.8 * distance).clamp(max=self.top_speed) * error.cos().clamp(min=0.0)
        turn = torch.where(distance > 0.05, 1.5 * error, torch.zeros_like(error))
        push = (wanted - state[:, 3]) / self.dt_s
        return torch.stack([turn, push], dim=-1).clamp(-1.0, 1.0)


def _wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi
