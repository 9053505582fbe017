"""``embodied_rl eval`` of a TGPO checkpoint: true robustness on the stored tasks of its robot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.training.publish import record_measurement


def evaluate_checkpoint(
    folder: Path,
    *,
    device: str,
    task: str | None,
    episodes: int,
    seed: int,
    candidates: int | None,
    json_path: Path | None,
    card: bool,
) -> int:
    """Runs ``episodes`` starts of each task, prints, writes; 0 whatever the outcome.

    Args:
        device: where it is computed, see `choose_device`.
        task: name or YAML file of one task; None for the tasks in the checkpoint's config.
        candidates: assignments of times to choose from; None for the default number.
        json_path: file for the figures.
        card: write the result into the checkpoint's card.
    """
    import torch

    from embodied_rl.policies.tgpo.evaluation import evaluate, own_tasks, summary
    from embodied_rl.policies.tgpo.runtime import CANDIDATES, RunSettings, load_tgpo
    from embodied_rl.sim.stl_tasks.task import load_task

    torch.set_num_threads(1)
    policy = load_tgpo(folder, device)
    tasks = own_tasks(folder) if task is None else [load_task(task)]
    settings = RunSettings(CANDIDATES if candidates is None else candidates)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), transient=True) as progress:
        bar = progress.add_task(policy.name, total=len(tasks))
        results = evaluate(
            policy, tasks, episodes, seed, settings, on_task=lambda _: progress.advance(bar)
        )
    figures = {"model": policy.name, "seed": seed, "candidates": settings.candidates}
    figures |= summary(results)
    Console().print(_table(figures))
    if json_path is not None:
        with atomic_write(json_path) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if card:
        record_measurement(folder, _card_text(figures, episodes, task))
    return 0


def _interval(rates: Mapping[str, Any]) -> str:
    return (
        f"{rates['success']:.3f} [{rates['low']:.3f}, {rates['high']:.3f}] "
        f"({rates['successes']} of {rates['episodes']})"
    )


def _table(figures: Mapping[str, Any]) -> Table:
    """One line a task, then the classes and all together."""
    title = f"{figures['model']}: robustness of the formula above 0"
    table = Table(title=title, title_justify="left")
    for column in ("task", "success, Wilson 95 %", "robustness (m)", "entered", "new times"):
        table.add_column(column)
    for name, found in figures["tasks"].items():
        mean = found["robustness_of_successes_m"]
        table.add_row(
            name,
            _interval(found),
            "-" if mean is None else f"{mean:.2f}",
            f"{found['violated']:.3f}",
            f"{found['replanned']:.3f}",
        )
    table.add_section()
    for name, found in figures["layers"].items():
        table.add_row(name, _interval(found))
    table.add_row("all", _interval(figures))
    table.caption = (
        "robustness: mean of the successes; entered: share of episodes that entered a region the "
        "plan avoids; new times: share in which a missed subgoal got a new time"
    )
    return table


def _card_text(figures: Mapping[str, Any], episodes: int, task: str | None) -> str:
    lines = [
        f"Success {_interval(figures)}, Wilson 95 % interval: share of episodes in which the "
        f"robustness of the task's own formula is above 0. {len(figures['tasks'])} tasks, "
        f"{episodes} random starts each, seed {figures['seed']}, times chosen by the critic among "
        f"{figures['candidates']} candidates.",
        "",
        "| task | success | mean robustness of successes (m) |",
        "|---|---|---|",
    ]
    for name, found in {**figures["layers"], **figures["tasks"]}.items():
        mean = found.get("robustness_of_successes_m")
        lines.append(f"| {name} | {_interval(found)} | {'' if mean is None else f'{mean:.2f}'} |")
    command = f"embodied_rl eval {figures['model']} --episodes {episodes} --seed {figures['seed']}"
    command += f" --samples {figures['candidates']}" + ("" if task is None else f" --task {task}")
    return "\n".join(lines) + f"\n\n```\n{command}\n```"
