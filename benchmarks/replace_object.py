"""Does memory decide ``replace_object``? The shipped policy, its two-frame rival, and the expert.

The two networks are the same but for the length of their history: same data, same steps, same
seed of training (their cards name the commands). All arms meet the same episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from _report import report
from rich.progress import Progress

from embodied_rl.policies.evaluation import Evaluation, evaluate_in_process, summary

TASK = "replace_object"
ARMS = {"ptp": "ptp_replace_object", "short": "ptp_replace_object_short", "expert": "expert"}
TARGETS = {
    "ptp.low": (">=", 0.85),
    "short.success": ("<=", 0.60),
    "expert.success": (">=", 0.98),
}


@dataclass(frozen=True)
class Arguments:
    """Success rates with Wilson 95 % intervals."""

    episodes: int = 200
    seed: int = 0
    workers: int = 2
    json: Path | None = None


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench replace_object")
    figures: dict[str, float] = {"episodes": arguments.episodes, "seed": arguments.seed}
    with Progress(transient=True) as progress:
        for arm, model in ARMS.items():
            bar = progress.add_task(model, total=arguments.episodes)
            evaluation = Evaluation(model, TASK, arguments.episodes, arguments.seed)
            results = evaluate_in_process(
                evaluation,
                workers=arguments.workers,
                on_episode=lambda _, bar=bar: progress.advance(bar),
            )
            found = summary(evaluation, results)
            for key in ("success", "low", "high", "steps"):
                figures[f"{arm}.{key}"] = found[key]
            for reason, count in found["failures"].items():
                figures[f"{arm}.failed.{reason}"] = count
    return report(TASK, figures, TARGETS, arguments.json)
