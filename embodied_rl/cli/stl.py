"""``embodied_rl stl explain|check|calibrate``: what a formula asks, whether a recording keeps it,
and how far predictions of its robustness can be trusted.

Exit codes: ``check`` 0 when every formula is satisfied, 1 when one is violated or stays open; in
sliding mode 1 when a step is violated.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied_rl.bags.read import Bag
from embodied_rl.cli.stl_bags import Calibrate, calibrate, replay_bag
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.window import Arrival
from embodied_rl.stl import formula as fm
from embodied_rl.stl import text
from embodied_rl.stl.decompose import DecompositionError, decompose, describe
from embodied_rl.stl.monitor import Status
from embodied_rl.stl.online import Verdict
from embodied_rl.stl.parse import parse
from embodied_rl.stl.replay import Replay
from embodied_rl.stl.robustness import TailRule

EXAMPLES = """\
examples:
  embodied_rl stl explain "F[0,16] A and F[0,16] B and G[0,20] not C" --dt 0.1
  embodied_rl stl check runs/demos/episode_000000 --spec sim_worlds/tabletop/return_home.stl.yaml
  embodied_rl stl calibrate runs/demos --spec SPEC --delta 0.1 --out calibration.yaml
"""
_COLOURS = {Verdict.SATISFIED: "green", Verdict.VIOLATED: "red"}


@dataclass(frozen=True)
class Explain:
    """The formula as a tree, its horizon, and its groundings: subgoals, invariants, times."""

    formula: tyro.conf.Positional[str]
    """in quotes; bounds in s, or with the unit ms"""
    dt: float = 0.1
    """step in seconds"""
    until: Literal["strict", "inclusive"] = "strict"
    """whether the left side of until must hold at the switch too"""
    fewest_visits: bool = False
    """of a recurrence (G F) show the plans with the fewest visits only"""
    rtamt: bool = False
    """print the formula in rtamt's language too"""


@dataclass(frozen=True)
class Check:
    """Run the monitor over a recording: verdicts, events, and a picture of both."""

    bag: tyro.conf.Positional[Path]
    """one bag"""
    spec: str
    """specification file; or a task in temporal logic, by name or file"""
    out: Path | None = None
    """write a picture (PNG): signals, robustness bands, verdicts"""
    events: Path | None = None
    """write the events, one line of JSON each"""
    embodiment: Path | None = None
    """embodiment file; default: the one recorded in the bag"""
    namespace: str | None = None
    """namespace of the robot's topics, such as /robot1; default: found"""
    json: Path | None = None
    """also write the verdicts to this file"""


Command = (
    Annotated[Explain, tyro.conf.subcommand("explain", prefix_name=False)]
    | Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate", prefix_name=False)]
)


def main(argv: list[str]) -> int:
    """Runs one of the three; returns the exit code."""
    command = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="embodied_rl stl",
        description="Signal temporal logic on recorded signals, without ROS.\n\n" + EXAMPLES,
        args=argv,
    )
    if isinstance(command, Calibrate):
        return calibrate(command)
    return explain(command) if isinstance(command, Explain) else check(command)


# -------------------------------------------------------------------- explain
def explain(command: Explain) -> int:
    formula = parse(command.formula, command.dt)
    if command.until == "inclusive":
        formula = fm.inclusive(formula)
    dt_s, steps = command.dt, fm.horizon(formula)
    print(text.infix(formula, dt_s))
    print()
    print(text.tree(formula, dt_s, lambda node: _reach(node, dt_s)))
    print()
    print(f"horizon   {steps} steps of {dt_s:g} s = {steps * dt_s:g} s: {steps + 1} samples decide")
    print(f"signals   {', '.join(fm.signal_names(formula)) or 'none'}")
    print(f"until     {command.until}")
    if command.rtamt:
        print(f"rtamt     {text.rtamt(formula)}")
    print()
    try:
        alternatives = decompose(formula, dt_s, command.fewest_visits)
    except DecompositionError as error:
        print(f"groundings: none, {error}")
        return 0
    for number, alternative in enumerate(alternatives, 1):
        choices = math.prod(v.high - v.low + 1 for v in alternative.variables)
        print(f"grounding {number} of {len(alternatives)}, up to {choices} choices of times")
        for line in describe(alternative, dt_s):
            print(f"  {line}")
    return 0


def _reach(node: fm.Formula, dt_s: float) -> str:
    steps = fm.horizon(node)
    return f"({steps} steps, {steps * dt_s:g} s)" if steps else ""


# -------------------------------------------------------------------- check
def check(command: Check) -> int:
    given = Embodiment.load(command.embodiment) if command.embodiment else None
    console = Console()
    with Bag.open(command.bag) as bag:
        try:
            record = replay_bag(bag, command.spec, given, command.namespace)
        finally:  # also says why nothing of a bag could be used
            for line in bag.report.lines():
                console.print(escape(line), soft_wrap=True, highlight=False)
        name = bag.place.name
    verdicts = [status for status in record.statuses[-1] if not status.clause.path]
    _print(console, record, verdicts, name)
    _write(command, record, verdicts, name)
    if command.out is not None:
        from embodied_rl.stl.plot import draw  # matplotlib costs a second to import

        draw(record, command.out, f"{name}: {record.spec.name}")
        console.print(f"wrote {command.out}", highlight=False, soft_wrap=True)
    return 0 if _kept(record, verdicts) else 1


def _kept(record: Replay, verdicts: list[Status]) -> bool:
    if record.spec.mode == "sliding":
        return not any(event.event.value == "violated" for event in record.events)
    return all(status.verdict is Verdict.SATISFIED for status in verdicts)


def _print(console: Console, record: Replay, verdicts: list[Status], name: str) -> None:
    origin_ns, spec = record.slots[0].stamp_ns, record.spec
    table = Table(title=f"{name}: {spec.name}, {spec.mode} mode", title_justify="left")
    for column in ("formula", "verdict", "robustness", "at"):
        table.add_column(column)
    for status in verdicts:
        colour = _COLOURS.get(status.verdict, "yellow")
        value = f"{status.low:.4g}"
        if status.low != status.high:
            value = f"[{status.low:.4g}, {status.high:.4g}]"
        at = f"{(status.anchor_ns - origin_ns) / 1e9:g} s"
        table.add_row(status.formula, f"[{colour}]{status.verdict.value}[/]", escape(value), at)
    console.print(table)
    for event in record.events:
        line = f"{(event.stamp_ns - origin_ns) / 1e9:7.3f} s  {event.event.value:<11}"
        line += f"{event.formula}  {event.subformula}" if event.formula else ""
        line += ", ".join(event.signals)
        if event.witness is not None:
            when = (event.witness.stamp_ns - origin_ns) / 1e9
            line += (
                f"  because {event.witness.predicate} by {event.witness.value:.4g} at {when:g} s"
            )
        if event.worst is not None and event.end_ns is not None:
            line += f"  worst {event.worst:.4g}, until {(event.end_ns - origin_ns) / 1e9:g} s"
        console.print(escape(line), highlight=False, soft_wrap=True)
    missing = sum(bool(slot.missing) for slot in record.slots)
    late = record.arrivals[Arrival.LATE]
    console.print(
        f"{len(record.slots)} steps of {spec.dt_s:g} s, {missing} with a missing signal, {late} "
        f"late samples; tail rule '{TailRule.INTERVAL.value}', until {spec.until}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for signal, count in record.out_of_bounds.items():
        bounds = list(spec.signals.signals[signal].bounds)
        console.print(
            f"signal '{signal}': outside its declared bounds {bounds} at {count} steps: verdicts "
            "that rest on these bounds may be wrong", highlight=False, soft_wrap=True,
        )  # fmt: skip


def _write(command: Check, record: Replay, verdicts: list[Status], name: str) -> None:
    if command.events is not None:
        with atomic_write(command.events) as temporary:
            lines = "".join(event.to_json() + "\n" for event in record.events)
            temporary.write_text(lines, encoding="utf-8")
    if command.json is None:
        return
    figures: dict[str, Any] = {
        "bag": name,
        "spec": record.spec.name,
        "mode": record.spec.mode,
        "until": record.spec.until,
        "tail": TailRule.INTERVAL.value,
        "steps": len(record.slots),
        "kept": _kept(record, verdicts),
        "formulas": {
            status.formula: {
                "verdict": status.verdict.value,
                # JSON has no infinity: an open end is null
                "low": status.low if math.isfinite(status.low) else None,
                "high": status.high if math.isfinite(status.high) else None,
            }
            for status in verdicts
        },
        "events": [json.loads(event.to_json()) for event in record.events],
    }
    with atomic_write(command.json) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
