"""The environment of the throughput benchmark: episodes of one task that follow each other."""

from __future__ import annotations

import torch

from embodied_rl.policies.tgpo.allocate import uniform
from embodied_rl.policies.tgpo.config import TgpoConfig
from embodied_rl.policies.tgpo.groundings import Groundings
from embodied_rl.policies.tgpo.mdp import AugmentedMdp, RewardWeights
from embodied_rl.sim.stl_tasks.task import load_task

TASK, CONFIG = "linear_02", TgpoConfig("linear", width=64)


class Episodes:
    """Whole episodes of many robots, with uniform times, that begin anew at their end."""

    def __init__(self, count: int):
        self.task, self.count = load_task(TASK), count
        self.groundings = Groundings([self.task], CONFIG.shape)
        self.mdp = AugmentedMdp(self.task.dynamics, RewardWeights())
        self._generator = torch.Generator().manual_seed(0)

    def reset(self) -> torch.Tensor:
        task = torch.zeros(self.count, dtype=torch.long)
        chosen, times, _ = uniform(self.groundings, task, self._generator)
        state = self.task.start(self.count, self._generator)
        return self.mdp.reset(state, self.groundings.schedule(chosen, times))

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
        observation, reward = self.mdp.step(action)
        ended = self.mdp.t == self.task.dynamics.steps
        return (self.reset() if ended else observation), reward, ended
