"""Steps a second of ReLIC's training, beside the structure of the published trainer.

Both train the same network on the same trials and end in the same weights (a test holds them to
that); the published structure concatenates its cache at every step, refreshes one trial after
another and accumulates gradients over single trials. Rounds of one iteration each alternate, so
that all meet the same load; the figures are medians. The first round is not counted. Seconds are
those of the clock on the wall, so the machine must have nothing else to do.

The target is held to that rival, which has our layers. Where EMBODIED_RL_RELIC_CHECKOUT names a
checkout of github.com/aielawady/relic, a second one is measured beside it, without a target: the
same structure around the published transformer itself (`published_module`), run by the interpreter
that EMBODIED_RL_RELIC_PYTHON names; see `_relic_official_training.py`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
import tyro
from _relic_concatenated import ConcatenatedLearner
from _report import Target, report
from _step_process import StepProcess

from embodied_rl.cli import UsageError
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.run import read_run
from embodied_rl.policies.relic.train import Learner

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs"
OURS, STRUCTURE, MODULE = "ours", "published_structure", "published_module"
WANTED = 3.0
CHECKOUT, PYTHON = "EMBODIED_RL_RELIC_CHECKOUT", "EMBODIED_RL_RELIC_PYTHON"

Iteration = Callable[[int], float]  # seed -> seconds


@dataclass(frozen=True)
class Arguments:
    """Environment steps a second, playing and learning together."""

    tasks: tuple[str, ...] = ("darkroom", "egocentric")
    rounds: int = 5
    threads: int = 2
    json: Path | None = None


def iteration_s(run_learner: Callable[..., Learner | ConcatenatedLearner], task: str) -> Iteration:
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


def published_module(task: str, threads: int, checkout: str) -> StepProcess:
    """The second rival; its step "iteration" takes the seeds in turn."""
    python = Path(os.environ.get(PYTHON, sys.executable))
    settings = {"checkout": str(Path(checkout).resolve()), "task": task, "threads": threads}
    return StepProcess(python, HERE / "_relic_official_training.py", settings, foreign=True)


def measured(task: str, arguments: Arguments, checkout: str | None) -> dict[str, float]:
    """Steps a second of all, and ours over each rival's."""
    settings = read_run(CONFIGS / f"relic_{task}.yaml").training
    steps = settings.trials * settings.trial_steps
    with ExitStack() as stack:
        timed = {
            OURS: iteration_s(Learner, task),
            STRUCTURE: iteration_s(ConcatenatedLearner, task),
        }
        if checkout is not None:
            module = stack.enter_context(published_module(task, arguments.threads, checkout))
            timed[MODULE] = lambda seed: module.step("iteration").wall_s
        rounds = [{n: run(k) for n, run in timed.items()} for k in range(arguments.rounds + 1)][1:]
    figures = {f"{task}.steps_per_s": steps / median(taken[OURS] for taken in rounds)}
    for name in list(timed)[1:]:
        figures[f"{task}.{name}_steps_per_s"] = steps / median(taken[name] for taken in rounds)
        ratio = "ratio" if name == STRUCTURE else f"{name}_ratio"
        figures[f"{task}.{ratio}"] = median(taken[name] / taken[OURS] for taken in rounds)
    return figures


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if a target is missed."""
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench relic_throughput")
    if min(arguments.threads, arguments.rounds) < 1:
        raise UsageError(
            f"--threads, --rounds: expected at least 1, saw {arguments.threads}, {arguments.rounds}"
        )
    torch.set_num_threads(arguments.threads)
    checkout = os.environ.get(CHECKOUT)
    if checkout is None:
        print(f"{CHECKOUT} is not set: the published module is left out")
    figures: dict[str, float] = {"threads": arguments.threads}
    for task in arguments.tasks:
        figures |= measured(task, arguments, checkout)
    targets: dict[str, Target] = {f"{task}.ratio": (">=", WANTED) for task in arguments.tasks}
    return report("relic_throughput", figures, targets, arguments.json)
