"""Evaluates one arm of `ptp_arms` and writes what was measured as JSON; a process of its own.

Every arm runs the same episodes. The expert's file comes first: it says in which range actions are
compared and how predictable an expert's next action is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _predictability import path_range, prediction_error, tool_paths

from embodied_rl.core.checkpoint import WEIGHTS, atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.policies.evaluation import Evaluation, evaluate_in_process, summary
from embodied_rl.policies.registry import EXPERT
from embodied_rl.sim.registry import TASKS, world_embodiment


@dataclass(frozen=True)
class Arguments:
    """Success, failures and action predictability of one checkpoint."""

    model: str
    """Checkpoint folder, or 'expert'."""
    task: str
    episodes: int
    seed: int
    out: Path
    samples: int | None = None
    """Candidates a plan is chosen from; default: the model's own number."""
    expert: Path | None = None
    """Result of the expert on the same episodes; needed for a checkpoint."""


def checkpoint_hash(model: str | Path) -> str:
    """Names the weights that a result belongs to; the expert has none."""
    if str(model) == EXPERT:
        return EXPERT
    return hashlib.sha256((Path(model) / WEIGHTS).read_bytes()).hexdigest()[:16]


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv)
    options = {} if arguments.samples is None else {"samples": arguments.samples}
    evaluation = Evaluation(
        arguments.model, arguments.task, arguments.episodes, arguments.seed, options
    )
    checkpoint = checkpoint_hash(arguments.model)  # before the episodes: what they are run with
    results = evaluate_in_process(evaluation)
    embodiment = world_embodiment(TASKS[arguments.task]().world)
    paths = tool_paths(embodiment, [result.commands for result in results])
    found = {**summary(evaluation, results), "checkpoint": checkpoint}
    if arguments.model == EXPERT:
        low, high = path_range(paths)
        found |= {"action_low_m": low.tolist(), "action_high_m": high.tolist()}
        reference = found
    elif arguments.expert is not None:
        reference = json.loads(arguments.expert.read_text(encoding="utf-8"))
    else:
        raise UserError("--expert: expected the expert's result on these episodes, saw none")
    low, high = (np.array(reference[key]) for key in ("action_low_m", "action_high_m"))
    error = prediction_error(paths, low, high)
    found["prediction_error"] = error
    found["predictability_ratio"] = reference["prediction_error"] / error
    with atomic_write(arguments.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
