"""``embodied_rl eval MODEL``: success rate of a model or the expert, with its Wilson interval."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from embodied_rl.bringup.check import check_folder
from embodied_rl.cli import UsageError, eval_apartment, eval_bags, eval_relic, eval_tgpo
from embodied_rl.cli.eval_episodes import compare, run_episodes
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.policies.evaluation import Evaluation, summary
from embodied_rl.policies.registry import EXPERT, find_checkpoint, model_policy, model_task
from embodied_rl.sim.registry import world_of
from embodied_rl.training.publish import record_measurement

EXAMPLE = "example: embodied_rl eval ptp_replace_object --episodes 200 --seed 0 --json eval.json"


@dataclass(frozen=True)
class Arguments:
    """Runs episodes of a task and prints the success rate with its 95 % interval. Of a tgpo model:
    that many starts of each of its tasks, judged by the robustness of their formulas. Of a relic
    model: trials of eight episodes in worlds that it was not trained in; of the apartment with the
    simulated robot, beside the grid that it was trained in. With --bags: nothing is run; the plans
    along recorded episodes are held against what was commanded there."""

    model: Annotated[str, tyro.conf.Positional]
    """Name of a shipped model, a checkpoint folder, or 'expert'."""
    task: str | None = None
    """Task; default: the one the model was trained for (expert: replace_object; tgpo: all of its
    config's). Of tgpo also the YAML file of a task."""
    episodes: int = 100
    trials: int | None = None
    """Of a relic model, in place of episodes; default: 400, and 20 of the apartment."""
    seed: int = 0
    """Base seed; every episode's own seed follows from it."""
    json: Path | None = None
    """Write the figures to this file."""
    picture: Path | None = None
    """Of a relic model: write a picture of the curves and of one trial's paths to this PNG."""
    samples: int | None = None
    """Candidates each plan is chosen from, by what was executed; default: the model's own. Of
    tgpo: assignments of times, chosen from by the critic; 1 takes a random one."""
    device: str = "auto"
    """Where the policy is computed: auto (a GPU if there is one), cpu, cuda, or cuda:N."""
    workers: int = 2
    """Processes that run episodes; the figures do not depend on it."""
    ros: bool = False
    """Drive the simulator over ROS topics, in lockstep. Of tgpo: on the simulated robot, and beside
    it in one process and in the dynamics that it was trained on, from the same starts. Of relic:
    in the apartment, beside the same episodes in one process."""
    card: bool = False
    """Write the result into the checkpoint's CARD.md."""
    bags: Path | None = None
    """Open-loop check: a folder of bags to replay through the policy."""


def main(argv: list[str]) -> int:
    """Evaluates, prints, writes; 0 when the episodes ran, whatever their outcome."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl eval", description=f"{Arguments.__doc__} {EXAMPLE}"
    )
    if arguments.episodes < 1 or arguments.workers < 1 or arguments.seed < 0:
        raise UsageError("--episodes and --workers are at least 1, --seed at least 0")
    if arguments.json is not None:  # before the episodes, not after them
        check_folder(arguments.json.parent, "--json FILE")
    if arguments.card and arguments.model == EXPERT:
        raise UsageError("--card needs a checkpoint; the expert has no card")
    if arguments.model != EXPERT:
        try:
            find_checkpoint(arguments.model)
        except UserError as error:  # a name that does not exist is the command line's fault
            raise UsageError(str(error)) from None
    if arguments.samples is not None and arguments.samples < 1:
        raise UsageError(f"--samples: expected at least 1, saw {arguments.samples}")
    if arguments.bags is not None:
        return _replay(arguments, arguments.bags)
    policy = model_policy(arguments.model)
    if policy in OTHERS:
        return OTHERS[policy](arguments)
    task = arguments.task or model_task(arguments.model) or "replace_object"
    try:
        world_of(task)
    except UserError as error:
        raise UsageError(str(error)) from None
    evaluation = Evaluation(
        arguments.model,
        task,
        arguments.episodes,
        arguments.seed,
        arguments.samples,
        arguments.device,
    )
    results = run_episodes(evaluation, over_ros=arguments.ros, workers=arguments.workers)
    figures = summary(evaluation, results)
    figures["over"] = "ros" if arguments.ros else "in-process"
    if arguments.ros:
        figures["against_in_process"] = compare(evaluation, results, workers=arguments.workers)
    Console().print(_table(figures))
    if arguments.json is not None:
        with atomic_write(arguments.json) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if arguments.card:
        record_measurement(find_checkpoint(arguments.model), _card_text(figures))
    return 0


def _replay(arguments: Arguments, bags: Path) -> int:
    given = {"--ros": arguments.ros, "--card": arguments.card, "--picture": arguments.picture}
    given |= {"--trials": arguments.trials}
    wrong = [name for name, value in given.items() if value]
    if wrong or arguments.model == EXPERT:
        seen = wrong[0] if wrong else EXPERT
        raise UsageError(f"eval --bags: expected a checkpoint to replay, saw {seen}")
    return eval_bags.evaluate(
        arguments.model,
        bags,
        task=arguments.task,
        samples=arguments.samples,
        device=arguments.device,
        json_path=arguments.json,
    )


def _evaluate_tgpo(arguments: Arguments) -> int:
    if arguments.ros:
        if arguments.card or arguments.device not in ("auto", "cpu"):
            raise UsageError("eval --ros of a tgpo model: expected no --card, no --device but cpu")
        return eval_tgpo.evaluate_on_robot(
            find_checkpoint(arguments.model),
            task=arguments.task,
            episodes=arguments.episodes,
            seed=arguments.seed,
            candidates=arguments.samples,
            workers=arguments.workers,
            json_path=arguments.json,
        )
    return eval_tgpo.evaluate_checkpoint(
        find_checkpoint(arguments.model),
        device="cpu" if arguments.device == "auto" else arguments.device,  # as in training
        task=arguments.task,
        episodes=arguments.episodes,
        seed=arguments.seed,
        candidates=arguments.samples,
        json_path=arguments.json,
        card=arguments.card,
    )


def _evaluate_relic(arguments: Arguments) -> int:
    if arguments.task:
        raise UsageError("eval of a relic model: expected no --task, it has its own")
    folder = find_checkpoint(arguments.model)
    robot = model_task(arguments.model) == eval_apartment.TASK
    trials = arguments.trials
    if trials is None:
        trials = eval_apartment.TRIALS if robot else eval_relic.TRIALS
    if trials < 2:
        raise UsageError(f"--trials: expected at least 2, saw {trials}")
    if robot:
        return eval_apartment.evaluate_checkpoint(
            folder,
            trials=trials,
            seed=arguments.seed,
            device=arguments.device,
            workers=arguments.workers,
            over_ros=arguments.ros,
            json_path=arguments.json,
            picture=arguments.picture,
            card=arguments.card,
        )
    if arguments.ros or arguments.device not in ("auto", "cpu"):
        raise UsageError(
            "eval of a relic model: expected no --ros, no --device but cpu, except in the apartment"
        )
    return eval_relic.evaluate_checkpoint(
        folder,
        trials=trials,
        seed=arguments.seed,
        json_path=arguments.json,
        picture=arguments.picture,
        card=arguments.card,
    )


# policies that are not judged by episodes of a simulator's task
OTHERS: dict[str, Callable[[Arguments], int]] = {"tgpo": _evaluate_tgpo, "relic": _evaluate_relic}


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
    if figures["samples"] is not None:
        table.add_row("candidates a plan", str(figures["samples"]))
    if same := figures.get("against_in_process"):
        count = same["episodes"]
        table.add_row("outcome as in-process", f"{same['same_outcome']} of {count} episodes")
        table.add_row("commands as in-process", f"{same['same_commands']} of {count} episodes")
        table.add_row("steps compared", str(same["steps"]))
        table.add_row("largest difference", f"{same['largest_difference_rad']:g} rad")
    return table


def _card_text(figures: dict[str, Any]) -> str:
    failed = [f"{reason} {count}" for reason, count in figures["failures"].items()]
    return (
        f"Success {_interval(figures)}, Wilson 95 % interval; seed {figures['seed']}, "
        f"{figures['over']}; failures: {', '.join(failed) or 'none'}; "
        f"{figures['steps']:.1f} control steps an episode on average.\n\n"
        f"```\nembodied_rl eval {figures['model']} --task {figures['task']} "
        f"--episodes {figures['episodes']} --seed {figures['seed']}"
        f"{'' if figures['samples'] is None else ' --samples ' + str(figures['samples'])}"
        f"{' --ros' if figures['over'] == 'ros' else ''}\n```"
    )
