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


def evaluate_on_robot(
    folder: Path,
    *,
    task: str | None,
    episodes: int,
    seed: int,
    candidates: int | None,
    workers: int,
    json_path: Path | None,
) -> int:
    """Runs ``episodes`` of each task on the simulated robot, over topics and in one process, and in
    the twin from the same starts; arguments as of :func:`evaluate_checkpoint`.

    Raises:
        UserError: no simulated robot is driven as the checkpoint's dynamics, or a graph failed.
    """
    import torch

    from embodied_rl.bringup.evaluate import evaluate_over_ros, same_commands
    from embodied_rl.bringup.names import find_spec
    from embodied_rl.policies.beside_twin import beside_twin, figures, world_of
    from embodied_rl.policies.evaluation import Evaluation, evaluate_in_process
    from embodied_rl.policies.tgpo.evaluation import own_tasks
    from embodied_rl.policies.tgpo.runtime import CANDIDATES, RunSettings, load_tgpo
    from embodied_rl.sim.stl_tasks.task import load_task

    torch.set_num_threads(1)
    policy = load_tgpo(folder)
    world = world_of(policy)
    settings = RunSettings(CANDIDATES if candidates is None else candidates)
    names = [one.name for one in own_tasks(folder)] if task is None else [task]
    over_ros, alone, same = [], [], {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), transient=True) as progress:
        bar = progress.add_task(policy.name, total=len(names) * episodes)
        for name in names:
            spec = find_spec(name)
            evaluation = Evaluation(str(folder), spec, episodes, seed, candidates, world=world)
            results = evaluate_over_ros(evaluation, on_episode=lambda _: progress.advance(bar))
            in_process = evaluate_in_process(evaluation, workers=workers)
            found = load_task(spec)
            over_ros.append(beside_twin(policy, found, evaluation, settings, results))
            alone.append(beside_twin(policy, found, evaluation, settings, in_process))
            same[found.name] = same_commands(results, in_process)
    report = {"model": policy.name, "seed": seed, "candidates": settings.candidates}
    report |= {"ros": figures(over_ros), "in_process": figures(alone), "same": same}
    Console().print(_robot_table(report))
    if json_path is not None:
        with atomic_write(json_path) as path:
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


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
