"""Environment transitions a second of our PPO and of stable-baselines3's, training included.

Both run the augmented MDP of ``linear_02`` with the same batched dynamics, networks of the same
sizes, batch, epochs and minibatches, on one thread, in turns; times are of this process on the CPU,
so that a busy machine does not decide. stable-baselines3 gets the environment in two ways: batched
through its ``VecEnv`` interface, as ours does (``batched``), and as single gymnasium environments
in its ``DummyVecEnv``, the ordinary way (``single``). What differs in ``batched`` is the trainer
alone.

    python -m venv --system-site-packages VENV && VENV/bin/pip install stable-baselines3
    VENV/bin/python -m embodied_rl.cli.main bench tgpo_speed
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _report import report

from embodied_rl.core.errors import UserError
from embodied_rl.policies.tgpo.allocate import uniform
from embodied_rl.policies.tgpo.config import TgpoConfig
from embodied_rl.policies.tgpo.groundings import Groundings
from embodied_rl.policies.tgpo.mdp import AugmentedMdp, RewardWeights, observation_dim
from embodied_rl.policies.tgpo.runtime import make_model
from embodied_rl.sim.stl_tasks.task import load_task
from embodied_rl.training.ppo import PpoSettings, Rollout, update

TASK, CONFIG = "linear_02", TgpoConfig("linear", width=64)
SETTINGS = PpoSettings(epochs=4, minibatches=8)
TARGETS = {"batched.ratio": (">=", 5.0), "single.ratio": (">=", 5.0)}


@dataclass(frozen=True)
class Arguments:
    """Transitions a second of CPU time, best of the repeats."""

    environments: int = 256
    repeats: int = 5
    single_environments: int = 8
    """Environments of the ordinary way; more do not make it faster."""
    json: Path | None = None


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


def ours(count: int) -> Callable[[], int]:
    """One iteration of our PPO; answers its transitions."""
    torch.manual_seed(0)
    model, episodes = make_model(CONFIG), Episodes(count)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-5, fused=True)
    generator, steps = torch.Generator().manual_seed(0), episodes.task.dynamics.steps

    def iterate() -> int:
        observation, kept = episodes.reset(), []
        with torch.no_grad():
            for _ in range(steps):
                action, log_probability, value = model.act(observation, generator)
                following, reward, _ = episodes.step(action)
                kept.append((observation, action, log_probability, value, reward))
                observation = following
        ended = torch.zeros(steps, count, dtype=torch.bool)
        ended[-1] = True
        rollout = Rollout(*(torch.stack(part) for part in zip(*kept)), ended)
        update(model, optimizer, rollout, torch.zeros(count), SETTINGS, generator)
        return rollout.transitions

    return iterate


def rival(count: int, single: bool) -> Callable[[], int]:
    """One iteration of stable-baselines3's PPO on the same problem."""
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

    size = observation_dim(load_task(TASK).dynamics, CONFIG.shape)
    seen = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    acted = gymnasium.spaces.Box(-1.0, 1.0, (load_task(TASK).dynamics.action_dim,), np.float32)

    class Batched(VecEnv):
        def __init__(self) -> None:
            super().__init__(count, seen, acted)
            self._episodes = Episodes(count)

        def reset(self) -> np.ndarray:
            return self._episodes.reset().numpy()

        def step_async(self, actions: np.ndarray) -> None:
            self._actions = torch.from_numpy(actions)

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
            observation, reward, ended = self._episodes.step(self._actions)
            done = np.full(count, ended)
            return observation.numpy(), reward.numpy(), done, [{} for _ in range(count)]

        def close(self) -> None: ...
        def get_attr(self, name: str, indices: Any = None) -> list[Any]:
            return [None] * count

        def set_attr(self, name: str, value: Any, indices: Any = None) -> None: ...
        def env_method(self, name: str, *a: Any, indices: Any = None, **k: Any) -> list[Any]:
            return []

        def env_is_wrapped(self, kind: Any, indices: Any = None) -> list[bool]:
            return [False] * count

    class Single(gymnasium.Env):
        observation_space, action_space = seen, acted

        def __init__(self) -> None:
            self._episodes = Episodes(1)

        def reset(self, **_: Any) -> tuple[np.ndarray, dict]:
            return self._episodes.reset()[0].numpy(), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            found = self._episodes.step(torch.from_numpy(action)[None])
            observation, reward, ended = found
            return observation[0].numpy(), float(reward[0]), ended, False, {}

    steps = load_task(TASK).dynamics.steps
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([Single for _ in range(count)]) if single else Batched(),
        learning_rate=1e-3,
        n_steps=steps,
        batch_size=steps * count // SETTINGS.minibatches,
        n_epochs=SETTINGS.epochs,
        gamma=SETTINGS.gamma,
        max_grad_norm=SETTINGS.grad_clip,
        ent_coef=SETTINGS.entropy_coefficient,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        device="cpu",
        seed=0,
    )

    def iterate() -> int:
        model.learn(steps * count, reset_num_timesteps=False)
        return steps * count

    return iterate


def rate(iterate: Callable[[], int]) -> float:
    """Transitions a second of CPU time."""
    began = time.process_time()
    transitions = iterate()
    return transitions / (time.process_time() - began)


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench tgpo_speed")
    if importlib.util.find_spec("stable_baselines3") is None:
        raise UserError(
            "bench tgpo_speed: stable_baselines3 is not installed here; expected an environment "
            "with it, see the head of benchmarks/tgpo_speed.py"
        )
    torch.set_num_threads(1)
    count = arguments.environments
    arms = {
        "ours": ours(count),
        "batched": rival(count, single=False),
        "single": rival(arguments.single_environments, single=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(arguments.repeats + 1):
        for name, iterate in arms.items():
            found = rate(iterate)
            if repeat:  # the first one warms up
                rates[name].append(found)
    best = {name: max(values) for name, values in rates.items()}
    figures = {f"{name}.transitions_per_cpu_s": value for name, value in best.items()}
    figures |= {f"{name}.ratio": best["ours"] / best[name] for name in ("batched", "single")}
    figures["environments"] = count
    series = {"rates": rates, "stable_baselines3": version("stable_baselines3")}
    return report("tgpo_speed", figures, TARGETS, arguments.json, series)
