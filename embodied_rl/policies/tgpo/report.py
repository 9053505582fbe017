"""``embodied_rl eval`` of a TGPO checkpoint: true robustness on the stored tasks of its robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from embodied_rl.core.errors import UsageError
from embodied_rl.policies.evaluation import Evaluation
from embodied_rl.policies.method import Episodes, EvaluateArguments, Evaluator, Model, Report
from embodied_rl.policies.method import given_options as given
from embodied_rl.policies.tgpo.evaluation import evaluate, own_tasks, summary
from embodied_rl.policies.tgpo.method import TgpoOptions
from embodied_rl.policies.tgpo.runtime import CANDIDATES, RunSettings, load_tgpo
from embodied_rl.policies.tgpo.sim_gap import figures as gap_figures
from embodied_rl.policies.tgpo.sim_gap import paired_runs, world_of
from embodied_rl.sim.stl_tasks.task import load_task


@dataclass(frozen=True)
class TgpoArguments(EvaluateArguments):
    task: str | None = None
    """One task, by name or as a YAML file; default: all of the checkpoint's config."""
    episodes: int = 100
    """Starts of each task."""
    ros: bool = False
    """On the simulated robot over ROS topics, beside it in one process and in the dynamics that it
    was trained on, from the same starts."""
    workers: int = 2
    """With --ros: processes that run the episodes without topics."""


def run(model: Model, arguments: TgpoArguments, options: TgpoOptions, episodes: Episodes) -> Report:
    """Runs the starts of each task.

    Raises:
        UsageError: a number below 1, or options that contradict each other.
        UserError: no simulated robot is driven as the checkpoint's dynamics, or a graph failed.
    """
    if arguments.episodes < 1 or arguments.workers < 1:
        raise UsageError("--episodes and --workers are at least 1")
    torch.set_num_threads(1)
    if not arguments.ros:
        return _in_dynamics(model, arguments, options)
    if arguments.card or options.device not in ("auto", "cpu"):
        raise UsageError("eval --ros of a tgpo model: expected no --card, no --device but cpu")
    return _on_robot(model, arguments, options, episodes)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), transient=True)


def _settings(options: TgpoOptions) -> RunSettings:
    return RunSettings(CANDIDATES if options.samples is None else options.samples)


def _in_dynamics(model: Model, arguments: TgpoArguments, options: TgpoOptions) -> Report:
    assert model.folder is not None
    # auto is the CPU here, as in training
    policy = load_tgpo(model.folder, "cpu" if options.device == "auto" else options.device)
    task = arguments.task
    tasks = own_tasks(model.folder) if task is None else [load_task(task)]
    settings = _settings(options)
    with _progress() as progress:
        bar = progress.add_task(policy.name, total=len(tasks))
        results = evaluate(
            policy,
            tasks,
            arguments.episodes,
            arguments.seed,
            settings,
            on_task=lambda _: progress.advance(bar),
        )
    figures = {"model": policy.name, "seed": arguments.seed, "candidates": settings.candidates}
    figures |= summary(results)
    return Report(figures, [_table(figures)], _card_text(figures, arguments.episodes, task))


def _on_robot(
    model: Model, arguments: TgpoArguments, options: TgpoOptions, episodes: Episodes
) -> Report:
    """Over topics, in one process, and in the twin from the same starts."""
    assert model.folder is not None
    policy = load_tgpo(model.folder)
    world, settings, seed = world_of(policy), _settings(options), arguments.seed
    task = arguments.task
    names = [one.name for one in own_tasks(model.folder)] if task is None else [task]
    over_ros, alone, same = [], [], {}
    for name in names:
        evaluation = Evaluation(
            str(model.folder), name, arguments.episodes, seed, given(options), world=world
        )
        results = episodes.run(evaluation, over_ros=True, workers=1)
        in_process = episodes.run(evaluation, over_ros=False, workers=arguments.workers)
        found = load_task(name)
        over_ros.append(paired_runs(policy, found, evaluation, settings, results))
        alone.append(paired_runs(policy, found, evaluation, settings, in_process))
        same[found.name] = episodes.same(results, in_process)
    report = {"model": policy.name, "seed": seed, "candidates": settings.candidates}
    report |= {"ros": gap_figures(over_ros), "in_process": gap_figures(alone), "same": same}
    return Report(report, [_robot_table(report)], "")


def _robot_table(report: Mapping[str, Any]) -> Table:
    """One line a task: over topics, in one process, in the twin."""
    title = f"{report['model']} on the simulated robot: robustness of the formula above 0"
    table = Table(title=title, title_justify="left")
    for column in ("task", "over topics, Wilson 95 %", "in one process", "twin", "same commands"):
        table.add_column(column)
    ros, alone = report["ros"], report["in_process"]
    for name, found in ros["tasks"].items():
        same = report["same"][name]
        table.add_row(
            name,
            _interval(found["robot"] | {"episodes": found["episodes"]}),
            f"{alone['tasks'][name]['robot']['success']:.3f}",
            f"{found['twin']['success']:.3f}",
            f"{same['same_commands']} of {same['episodes']}",
        )
    table.add_section()
    table.add_row(
        "all",
        _interval(ros["robot"] | {"episodes": ros["episodes"]}),
        f"{alone['robot']['success']:.3f}",
        f"{ros['twin']['success']:.3f}",
    )
    return table


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


EVALUATOR = Evaluator(
    TgpoArguments,
    run,
    summary="Runs that many starts of each task, judged by the robustness of their formulas.",
)
