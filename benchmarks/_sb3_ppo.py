"""stable-baselines3's PPO on the environment of the throughput benchmark, batched and single."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from _tgpo_episodes import CONFIG, Episodes
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from embodied_rl.policies.tgpo.mdp import observation_dim
from embodied_rl.sim.dynamics.registry import make_dynamics
from embodied_rl.training.ppo import PpoSettings

_DYNAMICS = make_dynamics(CONFIG.dynamics)
EPISODE = _DYNAMICS.steps
SEEN = gymnasium.spaces.Box(-3.0, 3.0, (observation_dim(_DYNAMICS, CONFIG.shape),), np.float32)
ACTED = gymnasium.spaces.Box(-1.0, 1.0, (_DYNAMICS.action_dim,), np.float32)


class Batched(VecEnv):
    """All robots in one batch, behind the interface that stable-baselines3 steps."""

    def __init__(self, count: int):
        super().__init__(count, SEEN, ACTED)
        self._episodes = Episodes(count)

    def reset(self) -> np.ndarray:
        return self._episodes.reset().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = torch.from_numpy(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        observation, reward, ended = self._episodes.step(self._actions)
        done = np.full(self.num_envs, ended)
        return observation.numpy(), reward.numpy(), done, [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        return None

    def get_attr(self, name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs  # asked for the render mode: there is none

    def set_attr(self, name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError(name)

    def env_method(self, name: str, *arguments: Any, indices: Any = None, **named: Any) -> list:
        raise NotImplementedError(name)

    def env_is_wrapped(self, kind: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Single(gymnasium.Env):
    """One robot, as gymnasium has environments."""

    observation_space, action_space = SEEN, ACTED

    def __init__(self) -> None:
        self._episodes = Episodes(1)

    def reset(self, **_: Any) -> tuple[np.ndarray, dict]:
        return self._episodes.reset()[0].numpy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, ended = self._episodes.step(torch.from_numpy(action)[None])
        return observation[0].numpy(), float(reward[0]), ended, False, {}


def singles(count: int) -> VecEnv:
    return DummyVecEnv([Single for _ in range(count)])


def rival(environments: VecEnv, settings: PpoSettings) -> Callable[[], int]:
    """One iteration of PPO, an episode of every environment; answers its transitions."""
    steps, count = EPISODE, environments.num_envs
    sizes = [CONFIG.width, CONFIG.width]
    model = PPO(
        "MlpPolicy",
        environments,
        learning_rate=settings.learning_rate,
        n_steps=steps,
        batch_size=steps * count // settings.minibatches,
        n_epochs=settings.epochs,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        max_grad_norm=settings.grad_clip,
        ent_coef=settings.entropy_coefficient,
        policy_kwargs={"net_arch": {"pi": sizes, "vf": sizes}},
        device="cpu",
        seed=0,
    )

    def iterate() -> int:
        model.learn(steps * count, reset_num_timesteps=False)
        return steps * count

    return iterate
