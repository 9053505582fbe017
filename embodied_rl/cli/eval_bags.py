"""``embodied_rl eval MODEL --bags DIR``: a policy's plans held against recorded actions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from embodied_rl.bags.check import embodiment_in
from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.bags.report import Report
from embodied_rl.bringup.check import check_folder
from embodied_rl.cli import UsageError
from embodied_rl.cli.options import parse
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.policies.method import Model, Setting
from embodied_rl.policies.open_loop import OpenLoopMeter
from embodied_rl.policies.registry import load_model_policy

SUMMARY = (
    "Open-loop check: nothing is run; the plans along recorded episodes are held against what was "
    "commanded there."
)


@dataclass(frozen=True)
class ReplayArguments:
    bags: Path
    """Folder of bags to replay through the policy."""
    task: str | None = None
    """Task, of a policy that needs one."""
    json: Path | None = None
    """Write the figures to this file."""


def main(model: Model, argv: list[str], prog: str) -> int:
    """Replays every bag, prints, writes; 0 whatever the errors are.

    Raises:
        UsageError: a model without a checkpoint.
        UserError: no bag, a policy of another robot, or no action to hold a plan against.
    """
    if model.folder is None:
        raise UsageError(f"eval --bags: expected a checkpoint to replay, saw {model.name}")
    if {"-h", "--help"} & set(argv):  # its value is missing then
        argv = ["--help"]
    parts = {"replay": ReplayArguments, "policy": model.method.options}
    arguments, options = parse(parts, argv, prog, SUMMARY)
    if arguments.json is not None:  # before the work, not after it
        check_folder(arguments.json.parent, "--json FILE")
    import torch

    torch.set_num_threads(1)
    places = find_bags(arguments.bags)
    robot = embodiment_in(places[0])
    policy = load_model_policy(model, Setting(robot, arguments.task), options)
    meter, rows = OpenLoopMeter(policy), 0
    for place in track(places, "replaying bags", transient=True):
        with Bag(place, Report(place.name)) as bag:
            episode = read_episode(bag, keys=policy.spec.streams)
        meter.add(episode)
        rows += len(episode)
    if not meter.plans:
        raise UserError(
            f"{arguments.bags}: expected control ticks with all of {list(policy.spec.streams)} and "
            f"an action before them, saw none in {len(places)} bags; see 'embodied_rl bags check'"
        )
    figures = {"model": model.name, "bags": str(arguments.bags), "episodes": len(places)}
    figures |= {"rows": rows, **_figures(meter, robot)}
    Console().print(_table(figures))
    if arguments.json is not None:
        with atomic_write(arguments.json) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _figures(meter: OpenLoopMeter, robot: Embodiment) -> dict[str, Any]:
    found = meter.result()
    units = [command.unit for command in robot.commands.values() for _ in command.names]
    dimensions = [
        {
            "name": name,
            "unit": units[place],
            "policy": _numbers(found.policy[:, place]),
            "hold_still": _numbers(found.hold_still[:, place]),
        }
        for place, name in enumerate(robot.action_names)
    ]
    return {
        "plans": meter.plans,
        "horizons": list(found.horizons),
        "plans_that_reach": found.counts.tolist(),
        "dimensions": dimensions,
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _table(figures: dict[str, Any]) -> Table:
    """Mean absolute errors: of the policy, in brackets of a robot that holds still."""
    table = Table(
        title=f"{escape(figures['model'])} on {figures['episodes']} recorded episodes: mean "
        f"absolute error of {figures['plans']} plans (of holding still)"
    )
    table.add_column("action")
    table.add_column("unit")
    for ahead in figures["horizons"]:
        table.add_column(f"{ahead} ahead", justify="right")
    for part in figures["dimensions"]:
        pairs = zip(part["policy"], part["hold_still"])
        cells = ["-" if a is None else f"{a:.4g} ({b:.4g})" for a, b in pairs]
        table.add_row(escape(part["name"]), escape(part["unit"]), *cells)
    return table
