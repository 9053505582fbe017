"""``embodied_rl eval`` of a ReLIC checkpoint: success, return and SPL from episode to episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from embodied_rl.core.errors import UsageError
from embodied_rl.policies.method import (
    Episodes,
    EvaluateArguments,
    Evaluator,
    Model,
    Options,
    Report,
)
from embodied_rl.policies.relic.evaluation import evaluate, load_relic_model, summary
from embodied_rl.policies.relic.picture import Watch, draw

MEASURES = {"return": "return", "success": "success", "efficiency": "SPL"}


@dataclass(frozen=True)
class RelicArguments(EvaluateArguments):
    trials: int = 400
    """Trials of eight episodes each."""
    picture: Path | None = None
    """Write a picture of the curves and of one trial's paths to this PNG."""


def check_trials(trials: int) -> None:
    """Raises UsageError where there are too few for an interval."""
    if trials < 2:
        raise UsageError(f"--trials: expected at least 2, saw {trials}")


def run(model: Model, arguments: RelicArguments, options: Options, episodes: Episodes) -> Report:
    """Runs trials in the held-out worlds."""
    assert model.folder is not None
    check_trials(arguments.trials)
    torch.set_num_threads(1)
    loaded, watch = load_relic_model(model.folder), Watch()
    found = evaluate(loaded.model, loaded.world, arguments.trials, arguments.seed, watch=watch)
    figures = {
        "model": loaded.name,
        "task": loaded.world.name,
        "split": "held_out",
        "seed": arguments.seed,
        **summary(found),
    }
    if arguments.picture is not None:
        title = f"{loaded.name} in {loaded.world.name}"
        draw(arguments.picture, title, watch.floor(loaded.world), watch.courses, figures)
    return Report(figures, [_table(figures)], _card_text(figures))


def span(values: Sequence[float]) -> str:
    mean, low, high = values
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """One an episode, then the gains."""
    rows = [
        [str(k + 1), *(span(figures["by_episode"][key][k]) for key in MEASURES)]
        for k in range(figures["episodes"])
    ]
    for key, text in (("last", "last - first"), ("late", "late - first")):
        rows.append([text, *(span(figures["gain"][measure][key]) for measure in MEASURES)])
    return rows


def _table(figures: Mapping[str, Any]) -> Table:
    title = (
        f"{figures['model']} in {figures['task']}: {figures['trials']} trials in held-out worlds"
    )
    table = Table(title=title, title_justify="left")
    for column in ("episode", *MEASURES.values()):
        table.add_column(column)
    rows = _rows(figures)
    for number, row in enumerate(rows):
        table.add_row(*row, end_section=number == figures["episodes"] - 1)
    table.caption = f"95 % intervals over trials; late: from the sixth on. {by_memory(figures)}"
    return table


def by_memory(figures: Mapping[str, Any]) -> str:
    parts = []
    for key, text in (("familiar", "found before"), ("new", "not found before")):
        if figures[key] is not None:
            rate = figures[key]
            parts.append(f"{text} {rate['success']:.3f} of {rate['episodes']} episodes")
    return "Success from the second episode on, target " + ", ".join(parts)


def _card_text(figures: Mapping[str, Any]) -> str:
    lines = [
        f"{figures['trials']} trials in held-out worlds, seed {figures['seed']}; mean and 95 % "
        "interval over trials; late: from the sixth on.",
        "",
        f"| episode | {' | '.join(MEASURES.values())} |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in _rows(figures)),
        "",
        f"{by_memory(figures)}.",
        "",
        f"```\nembodied_rl eval {figures['model']} --trials {figures['trials']} --seed "
        f"{figures['seed']}\n```",
    ]
    return "\n".join(lines)


EVALUATOR = Evaluator(
    RelicArguments,
    run,
    options=Options,
    summary="Runs trials of eight episodes in worlds that the model was not trained in.",
)
