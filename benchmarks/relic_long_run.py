"""A trial of 65,536 steps in episodes of 25 through the memory that the node keeps (`TrialMemory`),
with the network of configs/relic_egocentric.yaml and made-up steps.

- ``memory``: what the process holds more than before the trial, beside the bytes computed from the
  shapes of the cache and of the steps kept; what is not computed would be a leak;
- ``drift``: how far the outputs of the last steps are from those of the whole trial encoded anew,
  many steps at once, beside how large values are (``value_rms``);
- ``step``: processor time of a step on one thread, by the steps before it.

Weights are random, and large enough that an error in any part is seen in the output.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from _report import Target, report
from _step_server import resident_mb

from embodied_rl.cli import UsageError
from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.memory import TrialMemory
from embodied_rl.policies.relic.model import Outputs, RelicModel
from embodied_rl.policies.relic.run import read_run
from embodied_rl.policies.relic.tokens import Tokens

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "relic_egocentric.yaml"
EPISODE = 25  # steps
WINDOW = 256  # steps whose median is a figure


@dataclass(frozen=True)
class Arguments:
    """A long trial through the node's memory."""

    steps: int = 65_536
    compared: int = 64
    """Last steps, compared with a fresh pass."""
    json: Path | None = None


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if a target is missed."""
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench relic_long_run")
    if arguments.steps < 2 * WINDOW or not 1 <= arguments.compared <= arguments.steps:
        raise UsageError(f"--steps: expected at least {2 * WINDOW} and --compared of them")
    torch.set_num_threads(1)
    figures, series = long_run(read_run(CONFIG).model, arguments.steps, arguments.compared)
    targets: dict[str, Target] = {
        "memory_off_computed": ("<=", 0.05),
        "drift_scores": ("<=", 1e-4),
        "drift_value": ("<=", 1e-4),
    }
    return report("relic_long_run", figures, targets, arguments.json, series)


def network(config: RelicConfig) -> RelicModel:
    """With outputs of about 1."""
    torch.manual_seed(0)
    model = RelicModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sink" in name:
                parameter.normal_(0.0, 0.5)
            elif parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5)
    return model


def made_up(config: RelicConfig, step: int, generator: torch.Generator) -> Tokens:
    """Step ``step`` of a trial, ``(1,)``."""
    time_, first = step % EPISODE, step % EPISODE == 0
    action = torch.randint(1, config.action_count + 1, (1,), generator=generator)
    return Tokens(
        torch.randint(0, config.code_count, (1, config.cell_count), generator=generator),
        torch.rand(1, config.feature_count, generator=generator),
        torch.zeros_like(action) if first else action,
        torch.zeros(1) if first else torch.rand(1, generator=generator),
        torch.tensor([time_]),
        torch.tensor([step // EPISODE]),
    )


@torch.inference_mode()
def long_run(
    config: RelicConfig, steps: int, compared: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Figures, and the median milliseconds of each window of steps with the context before it."""
    model, generator = network(config), torch.Generator().manual_seed(1)
    warm = TrialMemory(model, capacity=2, limit=2)
    warm.step(made_up(config, 0, generator))  # what torch needs for itself
    before = resident_mb()
    memory = TrialMemory(model, limit=steps)
    cpu_ms, outputs = np.zeros(steps), []
    for step in range(steps):
        tokens = made_up(config, step, generator)
        began = time.process_time()
        found = memory.step(tokens)
        cpu_ms[step] = 1e3 * (time.process_time() - began)
        if step >= steps - compared:
            outputs.append(found)
    held = resident_mb() - before
    last = Outputs(*(torch.cat(part) for part in zip(*outputs)))
    memory.encode()
    drift = _difference(model, memory, last)
    computed = memory.nbytes / 2**20
    ends = np.arange(WINDOW, steps + 1, WINDOW)
    medians = [float(np.median(cpu_ms[end - WINDOW : end])) for end in ends]
    figures = {
        "steps": steps,
        "memory_mb": held,
        "computed_mb": computed,
        "memory_off_computed": abs(held - computed) / computed,
        "drift_scores": drift[0],
        "drift_value": drift[1],
        "value_rms": float(last.value.square().mean().sqrt()),
    }
    context = 4096
    while context <= steps:
        figures[f"step_{context}_p50_ms"] = medians[context // WINDOW - 1]
        context *= 2
    return figures, {"context": ends.tolist(), "step_p50_ms": medians}


def _difference(model: RelicModel, memory: TrialMemory, last: Outputs) -> tuple[float, float]:
    """The largest ones of scores and values, from those of the memory encoded anew."""
    count = len(last.value)
    tokens = Tokens(*(part[:, -count:] for part in memory.tokens))
    memory.cache.drop_newest(count)
    fresh = model.extend(tokens, memory.cache)
    pairs = zip(fresh, last)
    scores, value = (float((new[0] - old).abs().max()) for new, old in pairs)
    return scores, value
