"""What sinks are for, without reinforcement learning: to find one informative token among noise,
and to answer nothing where there is none (`_relic_needle` says how).

A short supervised fit for every kind of sink and length of context, each with the same sequences
and several seeds; 95 % intervals are over seeds and sequences. The paper (arXiv 2410.02751, tables
of its ablations) claims that a head with a sink can be silent: ``noise_norm`` is the length of the
answer on noise alone (0 is right, an answer has 1). Ten minutes of one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from _paired import two_level_interval
from _relic_needle import Learned, fit
from _report import Target, report

from embodied_rl.cli import UsageError
from embodied_rl.nn.sink_attention import K0V0, KV, KV0, MODES, NONE

SINKS = (K0V0, KV0, KV)  # those that the paper finds to do as well as each other


@dataclass(frozen=True)
class Arguments:
    """Supervised fits to needles among noise."""

    lengths: tuple[int, ...] = (64, 1024, 4096)
    modes: tuple[str, ...] = MODES
    steps: int = 600
    seeds: int = 3
    json: Path | None = None


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if a target is missed."""
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench relic_needle")
    if unknown := set(arguments.modes) - set(MODES):
        raise UsageError(f"--modes: expected some of {MODES}, saw {sorted(unknown)}")
    if min(arguments.lengths, default=0) < 2 or min(arguments.steps, arguments.seeds) < 1:
        raise UsageError("expected --lengths of at least 2, --steps and --seeds of at least 1")
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for length in arguments.lengths:
        found: dict[str, Learned] = {}
        for mode in arguments.modes:
            fits = [fit(mode, length, arguments.steps, seed) for seed in range(arguments.seeds)]
            found[mode] = Learned(*(np.stack(part) for part in zip(*fits)))
        figures |= figures_of(length, found)
    return report("relic_needle", figures, targets(figures), arguments.json)


def figures_of(length: int, found: Mapping[str, Learned]) -> dict[str, float]:
    """Means and intervals of each mode, and what a sink adds to the accuracy.

    Args:
        found: arrays ``(seeds, sequences)`` of each mode.
    """
    values = {
        f"{mode}_{length}_{part}": getattr(one, part)
        for mode, one in found.items()
        for part in Learned._fields
    }
    if NONE in found:
        for mode in [mode for mode in found if mode in SINKS]:
            gain = found[mode].accuracy - found[NONE].accuracy
            values[f"{mode}_{length}_accuracy_gain"] = gain
    figures: dict[str, float] = {}
    for name, table in values.items():
        low, high = two_level_interval(table)
        figures |= {name: float(table.mean()), f"{name}_low": low, f"{name}_high": high}
    return figures


def targets(figures: Mapping[str, float]) -> dict[str, Target]:
    """No worse than without sinks, and silent on noise, at every length."""
    wanted: dict[str, Target] = {}
    for figure in figures:
        if figure.endswith("_accuracy_gain"):
            wanted[figure] = (">=", 0.0)
        if figure.endswith("_noise_norm") and figure.startswith(f"{KV0}_"):
            wanted[figure] = ("<=", 0.1)
    return wanted
