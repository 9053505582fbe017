"""What a step of ReLIC costs: latency and memory of the small network (4 layers, width 256, Sink
KV0, batch 1) with 1k to 64k steps of context, beside the published module.

- ``ours``: keys and values in memory allocated ahead; float32, and bfloat16 (half the bytes);
- ``plain``: ours without sinks; what sinks cost is the difference;
- ``official``: the published module, whose fused kernel is replaced by torch's own attention with
  the same result (without, it attends to the future). It runs where EMBODIED_RL_RELIC_CHECKOUT
  names a checkout of github.com/aielawady/relic, by the Python that EMBODIED_RL_RELIC_PYTHON
  names, which needs torch and transformers 4.35.0::

    python3 -m venv relic_venv && relic_venv/bin/pip install torch transformers==4.35.0

test/nn/test_sink_official.py holds ours to the same numbers. Programs run in processes of their own
and take turns step by step. Milliseconds are processor time on one thread, which is the wall time
of a machine with nothing else to do; ``wall`` figures are what the clock on the wall said.
``memory`` is what the process holds more with the context than without, ``peak`` the most that it
held in a step; both beside the bytes computed from the shapes.

Also measured: how far 4096 single steps over random episodes are from one pass over the whole
sequence, for every kind of sink.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from _plot import BLUE, GREEN, ORANGE, beside, picture, target
from _report import Target, report
from _step_process import StepProcess
from _steps import Cost

from embodied_rl.cli import UsageError
from embodied_rl.nn.episodic_transformer import EpisodicTransformer, TransformerSettings
from embodied_rl.nn.sink_attention import MODES

HERE = Path(__file__).resolve().parent
SMALL = TransformerSettings(256, 8, 4, 1024, "kv0", 1)
POSITIONS = 32_768  # rows of the published position table
CONTEXTS = (1024, 4096, 16_384, 65_536)
OURS: dict[str, dict[str, object]] = {
    "ours": {"dtype": "float32"},
    "ours_bf16": {"dtype": "bfloat16"},
    "plain": {"dtype": "float32", "sink_mode": "none"},
}
OFFICIAL = "official"
LONG = 4096  # steps of the comparison with the full pass
CHECKOUT, PYTHON = "EMBODIED_RL_RELIC_CHECKOUT", "EMBODIED_RL_RELIC_PYTHON"


@dataclass(frozen=True)
class Arguments:
    """Steps of our transformer and of the published one, in turns."""

    steps: int = 60
    """Timed steps of each program at each context."""
    contexts: tuple[int, ...] = CONTEXTS
    compared: int = LONG
    """Steps that are compared with a full pass."""
    json: Path | None = None


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if a target is missed."""
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench relic_latency")
    for key in ("steps", "compared"):
        if getattr(arguments, key) < 5:
            raise UsageError(f"--{key}: expected at least 5, saw {getattr(arguments, key)}")
    if min(arguments.contexts, default=0) < 1:
        raise UsageError(f"--contexts: expected numbers above 0, saw {arguments.contexts}")
    checkout = os.environ.get(CHECKOUT)
    if checkout is None:
        print(f"{CHECKOUT} is not set: the published module is left out")
    figures: dict[str, float] = {}
    for context in arguments.contexts:
        figures |= _compare(context, arguments.steps, checkout)
    for mode in MODES:
        key = f"steps_from_full_pass_{mode}"
        figures[key] = full_pass_difference(mode, arguments.compared)
    if arguments.json is not None:
        draw(figures, arguments.contexts, beside(arguments.json))
    return report("relic_latency", figures, targets(figures), arguments.json)


def targets(figures: Mapping[str, float]) -> dict[str, Target]:
    """Of those figures that were measured."""
    wanted: dict[str, Target] = {f"steps_from_full_pass_{mode}": ("<=", 5e-5) for mode in MODES}
    wanted["ours_16384_p95_ms"] = ("<=", 100.0)
    for context in CONTEXTS:
        wanted[f"speedup_{context}_p50"] = (">=", 3.0)
        wanted[f"ours_{context}_memory_off_computed"] = ("<=", 0.05)
    return {key: value for key, value in wanted.items() if key in figures}


def _programs(context: int, checkout: str | None) -> Iterator[tuple[str, StepProcess]]:
    common = {**asdict(SMALL), "context": context, "threads": 1}
    for name, own in OURS.items():
        script = HERE / "_relic_steps.py"
        yield name, StepProcess(Path(sys.executable), script, {**common, **own}, foreign=False)
    if checkout is not None:
        python = Path(os.environ.get(PYTHON, sys.executable))
        own = {"checkout": str(Path(checkout).resolve()), "positions": POSITIONS}
        script = HERE / "_relic_official_steps.py"
        yield OFFICIAL, StepProcess(python, script, {**common, **own}, foreign=True)


def _compare(context: int, steps: int, checkout: str | None) -> dict[str, float]:
    """Figures at one length of the context."""
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        programs = {n: stack.enter_context(p) for n, p in _programs(context, checkout)}
        costs: dict[str, list[Cost]] = {name: [] for name in programs}
        for _ in range(steps + 2):
            for name, process in programs.items():
                costs[name].append(process.step("step"))
        for name, process in programs.items():
            found = process.description
            figures[f"{name}_{context}_memory_mb"] = found["memory_mb"]
            figures[f"{name}_{context}_peak_mb"] = process.peak_mb - found["before_mb"]
            if "computed_mb" in found:
                computed = found["computed_mb"]
                figures[f"{name}_{context}_computed_mb"] = computed
                off = abs(found["memory_mb"] - computed) / computed
                figures[f"{name}_{context}_memory_off_computed"] = off
    for name, values in costs.items():
        for clock, prefix in (("cpu_s", ""), ("wall_s", "wall_")):
            times = [1e3 * getattr(cost, clock) for cost in values[2:]]
            for part in (50, 95):
                figures[f"{name}_{context}_{prefix}p{part}_ms"] = float(np.percentile(times, part))
    at = f"{context}_p50"
    figures[f"sinks_{at}_share"] = figures[f"ours_{at}_ms"] / figures[f"plain_{at}_ms"] - 1.0
    for part in ("p50", "p95", "wall_p50") if OFFICIAL in costs else ():
        ratio = figures[f"official_{context}_{part}_ms"] / figures[f"ours_{context}_{part}_ms"]
        figures[f"speedup_{context}_{part}"] = ratio
    return figures


@torch.inference_mode()
def full_pass_difference(mode: str, steps: int) -> float:
    """The largest difference between ``steps`` single steps and one pass; outputs are about 1."""
    torch.manual_seed(0)
    net = EpisodicTransformer(TransformerSettings(64, 4, 2, 256, mode))
    for name, parameter in net.named_parameters():
        if "norm" not in name:
            parameter.normal_(0.0, 0.5 if "sink" in name else 0.1)
    first = torch.rand(1, steps) < 0.05
    first[:, :3] = True
    tokens, episode = torch.randn(1, steps, 64), first.long().cumsum(dim=1)
    cache = net.new_cache()
    full = net(tokens, episode)
    alone = [net.step(tokens[:, t], cache, episode[:, t]) for t in range(steps)]
    return float((torch.stack(alone, dim=1) - full).abs().max())


def draw(figures: Mapping[str, float], contexts: tuple[int, ...], path: Path) -> None:
    """Median and 95th percentile of a step, and memory, over the context."""
    drawn = {"ours": BLUE, "ours_bf16": GREEN, "official": ORANGE}
    with picture(path, columns=2, size=(8.0, 3.4)) as axes:
        for name, colour in drawn.items():
            if f"{name}_{contexts[0]}_p50_ms" not in figures:
                continue
            p50, p95, memory = (
                [figures[f"{name}_{context}_{part}"] for context in contexts]
                for part in ("p50_ms", "p95_ms", "memory_mb")
            )
            axes[0, 0].plot(contexts, p50, "o-", color=colour, label=name)
            axes[0, 0].fill_between(contexts, p50, p95, color=colour, alpha=0.25, linewidth=0)
            axes[0, 1].plot(contexts, memory, "o-", color=colour, label=name)
        for axis, label in ((axes[0, 0], "ms a step, p50 to p95"), (axes[0, 1], "MB")):
            axis.set(xscale="log", yscale="log", xlabel="steps of context", ylabel=label)
            axis.set_xticks(contexts, [f"{context // 1024}k" for context in contexts])
            axis.minorticks_off()
        target(axes[0, 0], 100.0, "a control period at 10 Hz")
        axes[0, 0].set_title("one step, one thread")
        axes[0, 1].set_title("memory of the context")
        axes[0, 1].legend()
