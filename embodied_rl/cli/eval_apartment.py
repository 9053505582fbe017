"""``embodied_rl eval`` of a ReLIC checkpoint of the apartment: the robot beside its grid twin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from embodied_rl.cli.eval_episodes import compare, run_episodes
from embodied_rl.cli.eval_relic import by_memory, span
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.policies.evaluation import Evaluation
from embodied_rl.training.publish import record_measurement

if TYPE_CHECKING:  # torch takes seconds to import
    from embodied_rl.policies.relic.evaluation import Given

TASK = "apartment"  # of the checkpoints that are meant
TRIALS = 20  # unless told otherwise
COLUMNS = ("success", "twin", "gap", "SPL", "twin", "gap")
NAMES = {"success": "success", "efficiency": "SPL"}


def evaluate_checkpoint(
    folder: Path,
    *,
    trials: int,
    seed: int,
    device: str,
    workers: int,
    over_ros: bool,
    json_path: Path | None,
    picture: Path | None,
    card: bool,
) -> int:
    """Runs trials of the robot and of its twin, prints, writes; 0 whatever the outcome.

    Args:
        over_ros: over topics in lockstep, and in one process to compare.
        json_path: file for the figures.
        picture: PNG of the curves and of the first trial's episodes.
        card: write the result into the checkpoint's card.
    """
    import torch

    from embodied_rl.policies.relic import apartment
    from embodied_rl.policies.relic.evaluation import load_relic_model
    from embodied_rl.policies.relic.picture import draw

    torch.set_num_threads(1)
    loaded, given = load_relic_model(folder), apartment.given_episodes(trials, seed)
    evaluation = evaluation_of(folder, given, seed, device)
    results = run_episodes(evaluation, over_ros=over_ros, workers=workers)
    found = apartment.beside(loaded, given, results, seed)
    figures = {
        "model": loaded.name,
        "task": loaded.world.name,
        "split": "held_out",
        "seed": seed,
        "over": "ros" if over_ros else "in-process",
        **found.figures,
    }
    if over_ros:
        figures["against_in_process"] = compare(evaluation, results, workers=workers)
    console = Console()
    console.print(_table(figures))
    for line in _notes(figures):
        console.print(line, soft_wrap=True, highlight=False)
    if json_path is not None:
        with atomic_write(json_path) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if picture is not None:
        title = f"{loaded.name} in the apartment; paths of the first trial"
        draw(picture, title, *found.shown, figures, ("grid twin", figures["twin"]))
    if card:
        record_measurement(folder, _card_text(figures))
    return 0


def evaluation_of(folder: Path, given: Given, seed: int, device: str) -> Evaluation:
    """Of the robot with a checkpoint, for the episodes that the same seed gave."""
    from embodied_rl.policies.relic.apartment import POSE, FindObject

    return Evaluation(
        str(folder),
        FindObject.name,
        given.wanted.numel(),
        seed,
        device=device,
        world=FindObject.world,
        keep=POSE,
    )


def _rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """One an episode, then the gains."""
    twin, rows = figures["twin"], []
    for episode in range(figures["episodes"]):
        row = [str(episode + 1)]
        for key in NAMES:
            row += _cells(*(one["by_episode"][key][episode] for one in (figures, twin)))
        rows.append(row)
    for late, text in (("last", "last - first"), ("late", "late - first")):
        row = [text]
        for key in NAMES:
            row += _cells(*(one["gain"][key][late] for one in (figures, twin)))
        rows.append(row)
    return rows


def _cells(robot: Sequence[float], twin: Sequence[float]) -> list[str]:
    return [span(robot), f"{twin[0]:.2f}", f"{robot[0] - twin[0]:+.2f}"]


def _mean(values: Sequence[Sequence[float]]) -> float:
    return sum(mean for mean, _, _ in values) / len(values)


def _table(figures: Mapping[str, Any]) -> Table:
    title = (
        f"{figures['model']} in {figures['task']}, {figures['over']}: {figures['trials']} trials "
        "in held-out homes"
    )
    table = Table(title=title, title_justify="left")
    for column in ("episode", *COLUMNS):
        table.add_column(column)
    for number, row in enumerate(_rows(figures)):
        table.add_row(*row, end_section=number == figures["episodes"] - 1)
    return table


def _notes(figures: Mapping[str, Any]) -> list[str]:
    pairs, reasons = figures["pairs"], figures["reasons"]
    means = []
    for key, name in NAMES.items():
        mine, other = (_mean(one["by_episode"][key]) for one in (figures, figures["twin"]))
        gap = span(figures["gap"][key]["all"])
        means.append(f"{name} {mine:.3f}, the twin's {other:.3f}, robot - twin {gap}")
    lines = [
        "95 % intervals over trials; late: from the sixth on; gap: robot - twin in the same homes, "
        "from the same starts, to the same targets.",
        f"All episodes: {'; '.join(means)}.",
        by_memory(figures) + ".",
        f"Episodes: both succeeded in {pairs['both']}, the robot alone in {pairs['robot_alone']}, "
        f"the twin alone in {pairs['twin_alone']}, neither in {pairs['neither']}.",
        f"The robot's ended by: {_counts(reasons['robot'])}; where the twin alone succeeded: "
        f"{_counts(reasons['lost'])}. The twin's: {_counts(reasons['twin'])}.",
    ]
    events = ", ".join(f"{name} {value:.2f}" for name, value in figures["per_episode"].items())
    lines.append(f"An episode of the robot, on average: {events}.")
    if same := figures.get("against_in_process"):
        count = same["episodes"]
        lines.append(
            f"As in one process: outcome in {same['same_outcome']}, all commands in "
            f"{same['same_commands']} of {count} episodes."
        )
    return lines


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "none"


def _card_text(figures: Mapping[str, Any]) -> str:
    over = " --ros" if figures["over"] == "ros" else ""
    lines = [
        f"The robot of the MuJoCo world apartment, {figures['over']}, beside the grid twin: "
        f"{figures['trials']} trials in held-out homes, seed {figures['seed']}.",
        "",
        f"| episode | {' | '.join(COLUMNS)} |",
        f"|{'---|' * (len(COLUMNS) + 1)}",
        *(f"| {' | '.join(row)} |" for row in _rows(figures)),
        "",
        *(f"{line}\n" for line in _notes(figures)),
        f"```\nembodied_rl eval {figures['model']} --trials {figures['trials']} --seed "
        f"{figures['seed']}{over}\n```",
    ]
    return "\n".join(lines)
