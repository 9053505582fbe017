"""A quadrotor behind a body-rate controller, as racing and inspection drones are flown."""

from __future__ import annotations

import torch
from torch import Tensor


class Quadrotor:
    """State (p, v, roll, pitch, yaw, body rates), action (thrust, three body-rate commands).

    Thrust ``F = m g (1 + a_0)`` lies in [0, 2 m g]; the rate controller follows commands of up to
    3 rad/s with a time constant of 0.1 s. With R and W the rotation and the Euler-rate matrix of
    (roll, pitch, yaw)::

        w' = (w_command - w) / 0.1 s      e' = W(e) w      v' = R(e) e3 F / m - g e3 - 0.1 v

    in semi-implicit Euler steps, in that order. Roll and pitch stop at 1 rad, away from the
    singularity at a right angle; position in z stops at the ground.
    """

    name = "quadrotor"
    dt_s = 0.05
    steps = 200
    arena_m = 5.0
    top_speed = 4.0
    state_dim = 12
    action_dim = 4
    position_dim = 3
    start_dim = 3
    feature_dim = 13
    gravity = 9.81
    drag = 0.1  # 1/s
    top_rate = 3.0  # rad/s
    rate_time_s = 0.1
    most_tilt = 1.0  # rad

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        p, v, angles, rates = state.split(3, dim=-1)
        action = action.clamp(-1.0, 1.0)
        rates = rates + (self.top_rate * action[:, 1:] - rates) * (self.dt_s / self.rate_time_s)
        angles = self._turned(angles, rates)
        thrust = self.gravity * (1.0 + action[:, :1])
        push = thrust * _upward(angles) - self.drag * v
        v = v + self.dt_s * (push - v.new_tensor([0.0, 0.0, self.gravity]))
        p = p + self.dt_s * v
        height = p[:, 2:].clamp(min=0.0)
        return torch.cat([p[:, :2], height, v, angles, rates], dim=-1)

    def _turned(self, angles: Tensor, rates: Tensor) -> Tensor:
        """Euler angles a step later."""
        roll, pitch, yaw = angles.unbind(-1)
        along, across, around = rates.unbind(-1)
        sine, cosine, slope = roll.sin(), roll.cos(), pitch.tan()
        sideways = across * sine + around * cosine
        return torch.stack(
            [
                (roll + self.dt_s * (along + slope * sideways)).clamp(
                    -self.most_tilt, self.most_tilt
                ),
                (pitch + self.dt_s * (across * cosine - around * sine)).clamp(
                    -self.most_tilt, self.most_tilt
                ),
                yaw + self.dt_s * sideways / pitch.cos(),
            ],
            dim=-1,
        )

    def position(self, state: Tensor) -> Tensor:
        return state[..., : self.position_dim]

    def features(self, state: Tensor) -> Tensor:
        p, v, angles, rates = state.split(3, dim=-1)
        yaw = angles[:, 2:]
        parts = [p / self.arena_m, v / self.top_speed, angles[:, :2], yaw.cos(), yaw.sin()]
        return torch.cat([*parts, rates / self.top_rate], dim=-1)

    def start(self, place: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([place, place.new_zeros(len(place), 9)], dim=-1)

    def toward(self, state: Tensor, target: Tensor) -> Tensor:
        p, v, angles, _ = state.split(3, dim=-1)
        away = target - p
        pull = 2.0 * away * (2.0 / away.norm(dim=-1, keepdim=True).clamp(min=2.0)) - 2.2 * v
        yaw = angles[:, 2]
        ahead = pull[:, 0] * yaw.cos() + pull[:, 1] * yaw.sin()
        left = pull[:, 1] * yaw.cos() - pull[:, 0] * yaw.sin()
        pitch = torch.atan2(ahead, torch.full_like(ahead, self.gravity))
        roll = torch.atan2(-left, torch.full_like(left, self.gravity))
        lift = (self.gravity + pull[:, 2]) / (angles[:, 0].cos() * angles[:, 1].cos())
        errors = torch.stack([roll - angles[:, 0], pitch - angles[:, 1], -yaw], dim=-1)
        command = torch.cat([(lift / self.gravity - 1.0)[:, None], 2.0 * errors], dim=-1)
        return command.clamp(-1.0, 1.0)


def _upward(angles: Tensor) -> Tensor:
    """The body's z axis in the world, ``R(roll, pitch, yaw) e3``."""
    sines, cosines = angles.sin().unbind(-1), angles.cos().unbind(-1)
    (sr, sp, sy), (cr, cp, cy) = sines, cosines
    return torch.stack([cy * sp * cr + sy * sr, sy * sp * cr - cy * sr, cp * cr], dim=-1)
