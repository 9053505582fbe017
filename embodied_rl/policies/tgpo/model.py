"""Policy and critic: two small networks on the augmented state."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from embodied_rl.training.ppo import Evaluation

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_ACTIVATIONS = {"tanh": nn.Tanh, "elu": nn.ELU}


def _mlp(inputs: int, width: int, outputs: int, activation: str, last_gain: float) -> nn.Sequential:
    """Two hidden layers, orthogonal weights; a small last layer begins near its constant."""
    layers: list[nn.Module] = []
    for size, following, gain in (
        (inputs, width, math.sqrt(2)),
        (width, width, math.sqrt(2)),
        (width, outputs, last_gain),
    ):
        linear = nn.Linear(size, following)
        nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class GaussianActorCritic(nn.Module):
    """A diagonal Gaussian policy with a deviation of its own per action, and a value."""

    def __init__(
        self, observation_dim: int, action_dim: int, width: int, activation: str, log_std: float
    ):
        super().__init__()
        self.actor = _mlp(observation_dim, width, action_dim, activation, 0.01)
        self.critic = _mlp(observation_dim, width, 1, activation, 1.0)
        self.log_std = nn.Parameter(torch.full((action_dim,), log_std))

    def value(self, observation: Tensor) -> Tensor:
        """``(B,)``."""
        return self.critic(observation)[..., 0]

    def act(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A drawn action ``(B, A)``, its log-probability and the value, ``(B,)`` each."""
        mean = self.actor(observation)
        noise = torch.randn(mean.shape, generator=generator)
        action = mean + noise * self.log_std.exp()
        return action, self._log_probability(noise), self.value(observation)

    def evaluate(self, observation: Tensor, action: Tensor) -> Evaluation:
        """Of actions that were taken, ``(B,)`` each."""
        noise = (action - self.actor(observation)) * (-self.log_std).exp()
        entropy = (self.log_std + 0.5 + _HALF_LOG_2PI).sum()
        log_probability = self._log_probability(noise)
        entropy = entropy.expand_as(log_probability)
        return Evaluation(log_probability, entropy, self.value(observation))

    def _log_probability(self, noise: Tensor) -> Tensor:
        """Of actions ``noise`` deviations away from the mean."""
        return -0.5 * noise.square().sum(-1) - (self.log_std + _HALF_LOG_2PI).sum()
