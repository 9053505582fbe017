"""TGPO on the arm: the twin it was trained in against the UR5e in MuJoCo, episode by episode.

Both start from the same joints and draw the same times for their first plan. The twin's joints are
where its actions put them. MuJoCo's are moved by servos that trail their targets, through the same
limits as on a robot, and are seen with the noise of encoders: what ``embodied_rl launch sim
world:=reach`` runs. An episode succeeds where the robustness of the task's formula is above 0 on
the trace of the true tool position every 0.05 s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from _paired import mcnemar_exact, two_level_interval
from _report import Target, report
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from embodied_rl.core.policy import episode_seed
from embodied_rl.policies.registry import find_checkpoint, load_policy
from embodied_rl.policies.tgpo.evaluation import own_tasks
from embodied_rl.policies.tgpo.runtime import CANDIDATES, RunSettings, TgpoPolicy, load_tgpo
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.stl_tasks.task import StlTask
from embodied_rl.training.statistics import wilson_interval

WORLD = "reach"
LEAST, MOST_DROP = 0.60, 0.10


@dataclass(frozen=True)
class Arguments:
    """Success in the twin and in MuJoCo with Wilson 95 % intervals, and the difference."""

    model: str = "tgpo_arm"
    """Name of a shipped model, or a checkpoint folder."""
    episodes: int = 256
    """Starts of a task."""
    seed: int = 0
    samples: int = CANDIDATES
    """Assignments of times that a plan is chosen from."""
    json: Path | None = None


@dataclass(frozen=True)
class Pair:
    """One episode in both; robustness and distance in m."""

    twin_m: float
    mujoco_m: float
    apart_m: float  # mean distance between the two tools at equal times
    limited: bool  # whether the limits changed a command


def run_task(
    policy: TgpoPolicy, task: StlTask, arguments: Arguments, on_episode: Callable[[], None]
) -> list[Pair]:
    """The episodes of one task."""
    settings = RunSettings(arguments.samples)
    sim = make_simulator(WORLD, task.name)
    try:
        folder = str(find_checkpoint(arguments.model))
        controller = load_policy(folder, sim.embodiment, task.name, samples=arguments.samples)
        pairs = []
        for episode in range(arguments.episodes):
            seed = episode_seed(arguments.seed, episode)
            driven = rollout(sim, controller, episode, seed)
            trace = torch.tensor(np.array(sim.task.positions))
            start = torch.tensor(sim.task.joints, dtype=torch.float32)
            times = torch.Generator().manual_seed(seed)
            alone = policy.run(task, start[None], settings, times)
            apart = torch.linalg.vector_norm(trace - alone.positions[0], dim=1).mean()
            robust = (float(alone.robustness[0]), float(task.robustness(trace)))
            pairs.append(Pair(*robust, float(apart), driven.limited > 0))
            on_episode()
        return pairs
    finally:
        sim.close()


def figures_of(pairs: list[Pair]) -> dict[str, float]:
    """Success in both, the drop with its paired interval, and how far the two are apart."""
    found: dict[str, float] = {"episodes": len(pairs)}
    outcomes = {}
    for name in ("twin", "mujoco"):
        robustness = np.array([getattr(pair, f"{name}_m") for pair in pairs])
        outcomes[name] = (robustness > 0).astype(float)[None]
        low, high = wilson_interval(int(outcomes[name].sum()), len(pairs))
        found |= {f"{name}.success": float(outcomes[name].mean())}
        found |= {f"{name}.low": low, f"{name}.high": high}
        found |= {f"{name}.robustness_m": float(robustness.mean())}
    found["drop"] = found["twin.success"] - found["mujoco.success"]
    low, high = two_level_interval(outcomes["twin"] - outcomes["mujoco"])
    found |= {"drop.low": low, "drop.high": high}
    found["drop.p"] = mcnemar_exact(outcomes["twin"], outcomes["mujoco"])
    found["apart_m"] = float(np.mean([pair.apart_m for pair in pairs]))
    found["limited"] = float(np.mean([pair.limited for pair in pairs]))
    return found


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench tgpo_arm")
    torch.set_num_threads(1)
    folder = find_checkpoint(arguments.model)
    policy, tasks = load_tgpo(folder), own_tasks(folder)
    found: dict[str, list[Pair]] = {}
    with Progress(transient=True) as progress:
        bar = progress.add_task("", total=len(tasks) * arguments.episodes)
        for task in tasks:
            progress.update(bar, description=task.name)
            found[task.name] = run_task(policy, task, arguments, lambda: progress.advance(bar))
    series = {name: figures_of(pairs) for name, pairs in found.items()}
    table = Table(title="twin and MuJoCo, the same starts", title_justify="left")
    for column in ("task", "twin", "MuJoCo", "robustness (m)", "apart (m)"):
        table.add_column(column)
    for name, row in series.items():
        rates = [
            f"{row[f'{at}.success']:.3f} [{row[f'{at}.low']:.3f}, {row[f'{at}.high']:.3f}]"
            for at in ("twin", "mujoco")
        ]
        robustness = f"{row['twin.robustness_m']:.3f}, {row['mujoco.robustness_m']:.3f}"
        table.add_row(name, *rates, robustness, f"{row['apart_m']:.3f}")
    Console().print(table)
    figures = figures_of([pair for pairs in found.values() for pair in pairs])
    targets: dict[str, Target] = {"twin.success": (">=", LEAST), "drop": ("<=", MOST_DROP)}
    return report("tgpo_arm", figures, targets, arguments.json, series)
