"""The evaluation that most methods share: how many of so many episodes of a task succeed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from embodied_rl.core.errors import UsageError, UserError
from embodied_rl.policies.evaluation import Evaluation, summary
from embodied_rl.policies.method import (
    Episodes,
    EvaluateArguments,
    Evaluator,
    Model,
    Options,
    Report,
    given_options,
)
from embodied_rl.sim.registry import DEFAULT_TASK, world_of


@dataclass(frozen=True)
class EpisodesArguments(EvaluateArguments):
    task: str | None = None
    """Task; default: the one the model was trained for, or else replace_object."""
    episodes: int = 100
    """How many."""
    workers: int = 2
    """Processes that run episodes; the figures do not depend on it."""
    ros: bool = False
    """Drive the simulator over ROS topics, in lockstep, and compare with one process."""


def evaluate(
    model: Model, arguments: EpisodesArguments, options: Options, episodes: Episodes
) -> Report:
    """Runs the episodes.

    Raises:
        UsageError: unknown task, or a number below 1.
        UserError: a model of another robot.
    """
    task = arguments.task or model.task or DEFAULT_TASK
    try:
        world_of(task)
    except UserError as error:
        raise UsageError(f"--task: {error}") from None
    if arguments.episodes < 1 or arguments.workers < 1:
        raise UsageError("--episodes and --workers are at least 1")
    evaluation = Evaluation(
        model.name, task, arguments.episodes, arguments.seed, given_options(options)
    )
    results = episodes.run(evaluation, over_ros=arguments.ros, workers=arguments.workers)
    figures = summary(evaluation, results) | {"over": "ros" if arguments.ros else "in-process"}
    if arguments.ros:
        alone = episodes.run(evaluation, over_ros=False, workers=arguments.workers)
        figures["against_in_process"] = episodes.same(results, alone)
    return Report(figures, [_table(figures)], _card_text(figures))


def _interval(figures: dict[str, Any]) -> str:
    return (
        f"{figures['success']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}] "
        f"({figures['successes']} of {figures['episodes']})"
    )


def _table(figures: dict[str, Any]) -> Table:
    """Success first, then why the other episodes failed."""
    table = Table(title=f"{figures['model']} in {figures['task']}, {figures['over']}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("success, Wilson 95 %", _interval(figures))
    for reason, count in figures["failures"].items():
        table.add_row(f"failed: {reason}", f"{count} ({count / figures['episodes']:.3f})")
    table.add_row("mean score", f"{figures['score']:.3f}")
    table.add_row("mean control steps", f"{figures['steps']:.1f}")
    table.add_row("chunks touched by limits", str(figures["limited_chunks"]))
    table.add_row("seed", str(figures["seed"]))
    for name, value in figures["options"].items():
        table.add_row(name, str(value))
    if same := figures.get("against_in_process"):
        count = same["episodes"]
        table.add_row("outcome as in-process", f"{same['same_outcome']} of {count} episodes")
        table.add_row("commands as in-process", f"{same['same_commands']} of {count} episodes")
        table.add_row("steps compared", str(same["steps"]))
        table.add_row("largest difference", f"{same['largest_difference_rad']:g} rad")
    return table


def _card_text(figures: dict[str, Any]) -> str:
    failed = [f"{reason} {count}" for reason, count in figures["failures"].items()]
    command = (
        f"embodied_rl eval {figures['model']} --task {figures['task']} "
        f"--episodes {figures['episodes']} --seed {figures['seed']}"
    )
    for name, value in figures["options"].items():
        command += f" --{name.replace('_', '-')} {value}"
    if figures["over"] == "ros":
        command += " --ros"
    return (
        f"Success {_interval(figures)}, Wilson 95 % interval; seed {figures['seed']}, "
        f"{figures['over']}; failures: {', '.join(failed) or 'none'}; "
        f"{figures['steps']:.1f} control steps an episode on average.\n\n```\n{command}\n```"
    )


EVALUATOR = Evaluator(EpisodesArguments, evaluate)
