"""``embodied_rl eval`` of a ReLIC checkpoint: success, return and SPL from episode to episode."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.training.publish import record_measurement

TRIALS = 400  # unless told otherwise
MEASURES = {"return": "return", "success": "success", "efficiency": "SPL"}


def evaluate_checkpoint(
    folder: Path,
    *,
    trials: int,
    seed: int,
    json_path: Path | None,
    picture: Path | None,
    card: bool,
) -> int:
    """Runs trials in the held-out worlds, prints, writes; 0 whatever the outcome.

    Args:
        json_path: file for the figures.
        picture: PNG of the curves and of the first trial's episodes.
        card: write the result into the checkpoint's card.
    """
    import torch

    from embodied_rl.policies.relic.evaluation import evaluate, load_relic_model, summary
    from embodied_rl.policies.relic.picture import Watch, draw

    torch.set_num_threads(1)
    loaded, watch = load_relic_model(folder), Watch()
    episodes = evaluate(loaded.model, loaded.world, trials, seed, watch=watch)
    figures = {"model": loaded.name, "task": loaded.world.name, "split": "held_out", "seed": seed}
    figures |= summary(episodes)
    Console().print(_table(figures))
    if json_path is not None:
        with atomic_write(json_path) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if picture is not None:
        title = f"{loaded.name} in {loaded.world.name}"
        draw(picture, title, watch.floor(loaded.world), watch.courses, figures)
    if card:
        record_measurement(folder, _card_text(figures))
    return 0


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
