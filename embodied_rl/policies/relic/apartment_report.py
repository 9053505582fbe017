"""``embodied_rl eval`` of a ReLIC checkpoint of the apartment: the robot beside its grid twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table

from embodied_rl.core.errors import UsageError
from embodied_rl.policies.evaluation import Evaluation
from embodied_rl.policies.method import Episodes, Evaluator, Model, Report, given_options
from embodied_rl.policies.relic.apartment import POSE, FindObject, beside, given_episodes
from embodied_rl.policies.relic.evaluation import Given, load_relic_model
from embodied_rl.policies.relic.method import RelicOptions
from embodied_rl.policies.relic.picture import draw
from embodied_rl.policies.relic.report import RelicArguments, by_memory, check_trials, span

COLUMNS = ("success", "twin", "gap", "SPL", "twin", "gap")
NAMES = {"success": "success", "efficiency": "SPL"}


@dataclass(frozen=True)
class ApartmentArguments(RelicArguments):
    trials: int = 20
    """Trials of eight episodes each."""
    ros: bool = False
    """Drive the simulator over ROS topics, in lockstep, and compare with one process."""
    workers: int = 2
    """Processes that run episodes; the figures do not depend on it."""


def run(
    model: Model, arguments: ApartmentArguments, options: RelicOptions, episodes: Episodes
) -> Report:
    """Runs trials of the robot and of its twin."""
    assert model.folder is not None
    check_trials(arguments.trials)
    if arguments.workers < 1:
        raise UsageError(f"--workers: expected at least 1, saw {arguments.workers}")
    torch.set_num_threads(1)
    loaded, given = load_relic_model(model.folder), given_episodes(arguments.trials, arguments.seed)
    evaluation = evaluation_of(str(model.folder), given, arguments.seed, options)
    results = episodes.run(evaluation, over_ros=arguments.ros, workers=arguments.workers)
    found = beside(loaded, given, results, arguments.seed)
    figures = {
        "model": loaded.name,
        "task": loaded.world.name,
        "split": "held_out",
        "seed": arguments.seed,
        "over": "ros" if arguments.ros else "in-process",
        **found.figures,
    }
    if arguments.ros:
        alone = episodes.run(evaluation, over_ros=False, workers=arguments.workers)
        figures["against_in_process"] = episodes.same(results, alone)
    if arguments.picture is not None:
        title = f"{loaded.name} in the apartment; paths of the first trial"
        draw(arguments.picture, title, *found.shown, figures, ("grid twin", figures["twin"]))
    return Report(figures, [_table(figures), *_notes(figures)], _card_text(figures))


def evaluation_of(model: str, given: Given, seed: int, options: RelicOptions) -> Evaluation:
    """Of the robot with a checkpoint, for the episodes that the same seed gave."""
    return Evaluation(
        model,
        FindObject.name,
        given.wanted.numel(),
        seed,
        given_options(options),
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


EVALUATOR = Evaluator(
    ApartmentArguments,
    run,
    summary="Runs trials of eight episodes of the simulated robot in homes that the model was not "
    "trained in, beside the grid that it was trained in.",
)
