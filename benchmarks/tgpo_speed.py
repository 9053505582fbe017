"""Environment transitions a second of our PPO and of stable-baselines3's, training included.

Both run the augmented MDP of ``linear_02`` with the same batched dynamics, networks of the same
sizes, batch, epochs and minibatches, on one thread, in turns; times are of this process on the CPU,
so that a busy machine does not decide. stable-baselines3 gets the environment in two ways: batched
through its ``VecEnv`` interface, as ours does (``batched``), and as single gymnasium environments
in its ``DummyVecEnv``, the ordinary way (``single``). What differs in ``batched`` is the trainer
alone. ``cleanrl`` is the structure of CleanRL's single file, on single environments as it has them.

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

import torch
import tyro
from _report import report
from _tgpo_episodes import CONFIG, Episodes

from embodied_rl.core.errors import UserError
from embodied_rl.policies.tgpo.runtime import make_model
from embodied_rl.training.ppo import PpoSettings, Rollout, update

SETTINGS = PpoSettings(epochs=4, minibatches=8)
RIVALS = ("batched", "single", "cleanrl")
TARGETS = {
    "batched.ratio": (">=", 5.0),
    "single.ratio": (">=", 5.0),
    "cleanrl.ratio": (">=", 5.0),
}


@dataclass(frozen=True)
class Arguments:
    """Transitions a second of CPU time, best of the repeats."""

    environments: int = 256
    repeats: int = 5
    single_environments: int = 8
    """Environments of the ordinary way; more do not make it faster."""
    json: Path | None = None


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


def matmul_bound(count: int) -> float:
    """Transitions a second if a trainer did nothing but its matrix products, at the rate that this
    core reaches on the widest of them: no trainer in this precision can be faster."""
    model, transitions = make_model(CONFIG), 64 * count
    layers = [p for p in model.parameters() if p.ndim == 2]
    products = sum(p.numel() for p in layers)
    backward = 2 * products - 2 * layers[0].numel()  # observations need no gradient
    flops = 2.0 * (products + SETTINGS.epochs * (products + backward))
    rows = transitions // SETTINGS.minibatches
    left, right, repeats = torch.randn(rows, layers[0].shape[1]), layers[0].detach().T, 100
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(repeats):
            left @ right
        best = min(best, (time.process_time() - began) / repeats)
    return 2.0 * rows * layers[0].numel() / best / flops


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
    from _cleanrl_ppo import cleanrl
    from _sb3_ppo import Batched, rival, singles  # needs what was just looked for

    torch.set_num_threads(1)
    count = arguments.environments
    arms = {
        "ours": ours(count),
        "batched": rival(Batched(count), SETTINGS),
        "single": rival(singles(arguments.single_environments), SETTINGS),
        "cleanrl": cleanrl(arguments.single_environments, SETTINGS),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(arguments.repeats + 1):
        for name, iterate in arms.items():
            found = rate(iterate)
            if repeat:  # the first one warms up
                rates[name].append(found)
    best = {name: max(values) for name, values in rates.items()}
    figures = {f"{name}.transitions_per_cpu_s": value for name, value in best.items()}
    figures |= {f"{name}.ratio": best["ours"] / best[name] for name in RIVALS}
    figures["environments"] = count
    figures["matmul_bound.transitions_per_cpu_s"] = matmul_bound(count)
    series = {"rates": rates, "stable_baselines3": version("stable_baselines3")}
    return report("tgpo_speed", figures, TARGETS, arguments.json, series)
