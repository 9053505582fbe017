"""PPO in the structure of CleanRL's single file, on the environment of the throughput benchmark.

What is taken over is the structure: gymnasium environments one by one in a `SyncVectorEnv`, a
Python loop over steps that fills preallocated storage, an advantage loop, shuffled flat indices, a
loss of policy, clipped value and entropy, and torch's plain Adam. The network is ours.
"""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from _sb3_ppo import EPISODE, Single
from _tgpo_episodes import CONFIG
from torch import Tensor, nn

from embodied_rl.policies.tgpo.model import GaussianActorCritic
from embodied_rl.policies.tgpo.runtime import make_model
from embodied_rl.training.ppo import PpoSettings


def cleanrl(count: int, settings: PpoSettings) -> Callable[[], int]:
    """One iteration, an episode of every environment; answers its transitions."""
    environments = gymnasium.vector.SyncVectorEnv(
        [Single] * count, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )
    torch.manual_seed(0)
    model = make_model(CONFIG)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, eps=1e-5)
    return _Loop(environments, model, optimizer, settings).iterate


class _Loop:
    def __init__(
        self,
        environments: gymnasium.vector.VectorEnv,
        model: GaussianActorCritic,
        optimizer: torch.optim.Optimizer,
        settings: PpoSettings,
    ):
        self._environments, self._model, self._optimizer = environments, model, optimizer
        self._settings, self._generator = settings, torch.Generator().manual_seed(0)
        self._steps, count = EPISODE, environments.num_envs
        shape = (self._steps, count)
        self._seen = torch.zeros(*shape, *environments.single_observation_space.shape)
        self._taken = torch.zeros(*shape, *environments.single_action_space.shape)
        self._log_probability, self._reward, self._done, self._value = torch.zeros(4, *shape)
        self._next = torch.as_tensor(environments.reset(seed=0)[0])
        self._next_done = torch.zeros(count)

    def iterate(self) -> int:
        for t in range(self._steps):
            self._seen[t], self._done[t] = self._next, self._next_done
            with torch.no_grad():
                action, self._log_probability[t], self._value[t] = self._model.act(
                    self._next, self._generator
                )
            self._taken[t] = action
            seen, reward, ended, truncated, _ = self._environments.step(action.numpy())
            self._reward[t] = torch.as_tensor(reward)
            self._next = torch.as_tensor(seen, dtype=torch.float32)
            self._next_done = torch.as_tensor(np.logical_or(ended, truncated), dtype=torch.float32)
        self._learn(*self._advantages())
        return self._reward.numel()

    @torch.no_grad()
    def _advantages(self) -> tuple[Tensor, Tensor]:
        settings, following = self._settings, self._model.value(self._next)
        found, running = torch.zeros_like(self._reward), torch.zeros(self._reward.shape[1])
        alive = 1.0 - self._next_done
        for t in reversed(range(self._steps)):
            delta = self._reward[t] + settings.gamma * following * alive - self._value[t]
            running = delta + settings.gamma * settings.gae_lambda * alive * running
            found[t], following, alive = running, self._value[t], 1.0 - self._done[t]
        return found, found + self._value

    def _learn(self, advantages: Tensor, returns: Tensor) -> None:
        seen, taken = self._seen.flatten(0, 1), self._taken.flatten(0, 1)
        parts = (self._log_probability, advantages, returns, self._value)
        old, gain, target, value = (part.flatten() for part in parts)
        order, settings = np.arange(len(seen)), self._settings
        size = len(order) // settings.minibatches
        for _ in range(settings.epochs):
            np.random.shuffle(order)
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                log_probability, entropy, now, _ = self._model.evaluate(seen[rows], taken[rows])
                ratio = (log_probability - old[rows]).exp()
                scaled = (gain[rows] - gain[rows].mean()) / (gain[rows].std() + 1e-8)
                limited = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                policy_loss = torch.max(-scaled * ratio, -scaled * limited).mean()
                near = value[rows] + (now - value[rows]).clamp(-settings.clip, settings.clip)
                errors = ((now - target[rows]).square(), (near - target[rows]).square())
                loss = policy_loss + settings.value_coefficient * 0.5 * torch.max(*errors).mean()
                loss = loss - settings.entropy_coefficient * entropy.mean()
                self._optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self._model.parameters(), settings.grad_clip)
                self._optimizer.step()
