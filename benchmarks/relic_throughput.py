"""Steps a second of ReLIC's training, beside the structure of the published trainer.

Both train the same network on the same trials and end in the same weights (a test holds them to
that); the published structure concatenates its cache at every step, refreshes one trial after
another and accumulates gradients over single trials. Rounds of one iteration each alternate, so
that both meet the same load; the figures are medians. The first round is not counted. Seconds are
those of the clock on the wall, so the machine must have nothing else to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
import tyro
from _relic_concatenated import ConcatenatedLearner
from _report import Target, report

from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.run import read_run
from embodied_rl.policies.relic.train import Learner

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
WANTED = 3.0


@dataclass(frozen=True)
class Arguments:
    """Environment steps a second, playing and learning together."""

    tasks: tuple[str, ...] = ("darkroom", "egocentric")
    rounds: int = 5
    threads: int = 2
    json: Path | None = None


def iteration_s(
    run_learner: Callable[..., Learner | ConcatenatedLearner], task: str
) -> Callable[[int], float]:
    """A learner of its own, as a function: seconds of the iteration of a seed."""
    run = read_run(CONFIGS / f"relic_{task}.yaml")
    # the published shuffle gathers whole buffers, as ours does: left out on both sides
    run = replace(run, training=replace(run.training, shuffle=False))
    torch.manual_seed(0)
    model = RelicModel(run.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=run.ppo.learning_rate, eps=1e-5, fused=True)
    learner = run_learner(run, model)

    def timed(seed: int) -> float:
        generator, began = torch.Generator().manual_seed(seed), time.perf_counter()
        learner.learn(optimizer, generator)
        return time.perf_counter() - began

    return timed


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench relic_throughput")
    torch.set_num_threads(arguments.threads)
    figures: dict[str, float] = {"threads": arguments.threads}
    targets: dict[str, Target] = {}
    for task in arguments.tasks:
        settings = read_run(CONFIGS / f"relic_{task}.yaml").training
        ours, theirs = iteration_s(Learner, task), iteration_s(ConcatenatedLearner, task)
        taken = [(ours(k), theirs(k)) for k in range(arguments.rounds + 1)][1:]
        steps = settings.trials * settings.trial_steps
        names = (f"{task}.steps_per_s", f"{task}.published_structure_steps_per_s")
        figures |= {name: steps / median(part) for name, part in zip(names, zip(*taken))}
        figures[f"{task}.ratio"] = median(b / a for a, b in taken)
        targets[f"{task}.ratio"] = (">=", WANTED)
    return report("relic_throughput", figures, targets, arguments.json)
