"""The full leak audit of the memory tasks: can one row, or one image, tell what to remember?

Both classifiers, cross-validated, on the state and on both cameras, at the decision and, as the
positive control, at a moment at which it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from _leak_audit import QUESTIONS, audit, collect
from _report import report


@dataclass(frozen=True)
class Arguments:
    """Accuracy of classifiers on single observations, with Wilson 95 % intervals."""

    episodes: int = 300
    seed: int = 0
    json: Path | None = None
    """Write the figures to this file."""


def main(argv: list[str]) -> int:
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl bench leak_audit", description=Arguments.__doc__
    )
    torch.set_num_threads(1)
    figures: dict[str, float] = {"episodes": arguments.episodes}
    targets = {}
    for task, question in QUESTIONS.items():
        found = collect(arguments.episodes, arguments.seed, ("fixed", "wrist"), task)
        figures[f"{task}.chance"] = 1 / question.classes
        for verdict in audit(found):
            name = f"{task}.{verdict.moment}_{verdict.view}_{verdict.classifier}"
            figures[f"{name}_accuracy"] = verdict.accuracy
            figures[f"{name}_low"], figures[f"{name}_high"] = verdict.low, verdict.high
            if verdict.moment == "decision":
                targets[f"{name}_low"] = ("<=", verdict.chance)
            else:
                targets[f"{name}_low"] = (">=", question.control_low)
    return report("leak_audit", figures, targets, arguments.json)
