"""``embodied_rl bags info|check|convert|cut|merge``: what is in bags, what is wrong, training data.

``embodied_rl bags repair IN OUT``: what is sound of a damaged bag as a new one.

Exit codes: ``info`` 0; ``check`` 1 when something is damaged or shows no action; ``convert`` 1 when
nothing is usable; ``repair`` 1 when nothing can be recovered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from embodied_rl.bags.check import BagSummary, summarise
from embodied_rl.bags.check import check as check_bag
from embodied_rl.bags.clock import Offset
from embodied_rl.bags.convert import Result
from embodied_rl.bags.convert import convert as convert_bags
from embodied_rl.bags.read import find_bags
from embodied_rl.bags.repair import figures_of
from embodied_rl.bags.repair import repair as repair_bag
from embodied_rl.cli import UsageError
from embodied_rl.cli.bag_edits import Cut, Merge, cut_bag, merge_bags
from embodied_rl.cli.bag_options import Reading
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.schema import plain

EXAMPLES = """\
examples:
  embodied_rl bags info runs/demos
  embodied_rl bags check runs/demos --json report.json
  embodied_rl bags convert runs/demos --out runs/cache --streams arm_position tool_position
  embodied_rl bags cut day.mcap --out runs/demos --marks /button
  embodied_rl bags merge arm.mcap camera.mcap --out runs/whole
  embodied_rl bags convert day.mcap --out runs/cache --cut 63.5 121 --actions measured
  embodied_rl bags repair runs/demos/killed runs/repaired
"""
TOLD_S = 0.05  # offsets of clocks from which on they are shown

# what is said of a command topic without a target at every tick, at none
WHY = {
    False: ", from its first command on",
    True: ": whoever led the robot sent nothing on it; every command of the embodiment file has to "
    "be sent at least once an episode",
}


@dataclass(frozen=True)
class Info:
    """Topics, types, counts, rates, length, instruction and outcome of each bag."""

    folder: tyro.conf.Positional[Path]
    """a bag, or a folder of bags"""
    json: Path | None = None
    """also write the figures to this file"""


@dataclass(frozen=True)
class Check:
    """Decode everything and report each fault in one line; exit 1 when something is damaged, or
    when a bag has no tick with an action, from which nothing can be learned."""

    folder: tyro.conf.Positional[Path]
    """a bag, or a folder of bags"""
    embodiment: Path | None = None
    """embodiment file; default: the one recorded in the bag"""
    streams: tuple[str, ...] = ()
    """streams to check; default: all of the embodiment"""
    reading: Annotated[Reading, tyro.conf.arg(name="")] = field(default_factory=Reading)
    json: Path | None = None
    """also write the report to this file"""


@dataclass(frozen=True)
class Convert:
    """Turn bags into a dataset cache for training; run again to go on after an interruption."""

    folder: tyro.conf.Positional[Path]
    """a bag, or a folder of bags"""
    out: Path
    """folder of the cache"""
    streams: tuple[str, ...] = ()
    """streams to keep; default: all of the embodiment"""
    embodiment: Path | None = None
    """embodiment file; default: the one recorded in the bags"""
    reading: Annotated[Reading, tyro.conf.arg(name="")] = field(default_factory=Reading)
    workers: int | None = None
    """processes; default: one a core"""
    json: Path | None = None
    """also write the summary to this file"""


@dataclass(frozen=True)
class Repair:
    """Write what is sound of one damaged bag into a new one of the same storage kind, with a
    metadata.yaml and a repair.json that says what was recovered and what was lost."""

    bag: tyro.conf.Positional[Path]
    """the damaged bag: a folder, .mcap or .db3"""
    out: tyro.conf.Positional[Path]
    """folder of the new bag; must not exist"""
    json: Path | None = None
    """also write the report to this file"""


Command = (
    Annotated[Info, tyro.conf.subcommand("info", prefix_name=False)]
    | Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Convert, tyro.conf.subcommand("convert", prefix_name=False)]
    | Annotated[Cut, tyro.conf.subcommand("cut", prefix_name=False)]
    | Annotated[Merge, tyro.conf.subcommand("merge", prefix_name=False)]
    | Annotated[Repair, tyro.conf.subcommand("repair", prefix_name=False)]
)


def main(argv: list[str]) -> int:
    """Runs one of the verbs; returns the exit code."""
    command = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="embodied_rl bags",
        description="Read rosbag2 recordings (MCAP or SQLite), without ROS.\n\n" + EXAMPLES,
        args=argv,
    )
    if isinstance(command, Info):
        return info(command)
    if isinstance(command, Check):
        return check(command)
    if isinstance(command, Repair):
        return repair(command)
    if isinstance(command, Cut):
        return cut_bag(command)
    return merge_bags(command) if isinstance(command, Merge) else convert(command)


def info(command: Info) -> int:
    console, summaries = Console(), []
    for place in find_bags(command.folder):
        summary = summarise(place)
        summaries.append(summary)
        console.print(f"[bold]{_title(summary)}[/]", soft_wrap=True, highlight=False)
        table = Table()
        for name in ("topic", "type", "messages", "rate"):
            table.add_column(name, justify="right" if name in ("messages", "rate") else "left")
        for topic in summary.topics:
            rate = f"{topic.rate_hz:.1f} Hz" if topic.rate_hz else ""
            names = [escape(plain(name)) for name in (topic.name, topic.type)]
            table.add_row(*names, str(topic.count), rate)
        console.print(table)
        for line in summary.lines:
            _print_line(console, line)
    if len(summaries) > 1:
        size = sum(summary.size for summary in summaries)
        seconds = sum(summary.duration_s for summary in summaries)
        console.print(f"{len(summaries)} bags, {_megabytes(size)}, {seconds:.1f} s")
    _write_json(command.json, {"bags": [asdict(summary) for summary in summaries]})
    return 0


def check(command: Check) -> int:
    robot = Embodiment.load(command.embodiment) if command.embodiment else None
    console, results = Console(), []
    for place in find_bags(command.folder):
        result = check_bag(place, robot, command.streams or None, command.reading.options())
        results.append(result)
        sound = "[green]sound[/]" if result.trainable else "[red]no action[/]"
        if result.unfinished and result.trainable:
            sound = "[yellow]no outcome[/]"
        verdict = "[red]damaged[/]" if result.damaged else sound
        several = f"{result.episodes} episodes, " if result.episodes > 1 else ""
        console.print(
            f"{verdict} {escape(result.name)}: {several}{result.rows} control ticks, "
            f"{result.valid_rows} with all streams, {result.actions} with an action",
            soft_wrap=True, highlight=False,
        )  # fmt: skip
        _print_offsets(console, result.offsets)
        for topic, count in result.targets.items():
            if count < result.rows:
                seen = f"a target at {count} of {result.rows} ticks"
                text = f"  {escape(topic)}: {seen}{WHY[count == 0]}"
                style = None if count else "red"
                console.print(text, style=style, soft_wrap=True, highlight=False)
        for line in result.lines:
            _print_line(console, line)
    damaged = sum(result.damaged for result in results)
    idle = sum(not result.trainable for result in results)
    console.print(
        f"{damaged} of {len(results)} bags damaged" + f", {idle} without any action" * (idle > 0),
        highlight=False,
    )
    _write_json(command.json, {"bags": [asdict(r) for r in results], "damaged": damaged})
    return 1 if damaged or idle else 0


def _print_offsets(console: Console, offsets: list[Offset]) -> None:
    """How log time and stamps of each topic lie, where somebody may wonder."""
    if not any(abs(offset.first_s) > TOLD_S or offset.drift_s > TOLD_S for offset in offsets):
        return
    told = [
        f"{offset.topic} {offset.first_s:.3f} s"
        + f" to {offset.last_s:.3f} s" * (offset.drift_s > TOLD_S)
        for offset in offsets
    ]
    text = f"  log time minus stamp: {', '.join(told)}"
    console.print(escape(text), soft_wrap=True, highlight=False)


def convert(command: Convert) -> int:
    if command.workers is not None and command.workers < 1:
        raise UsageError(f"--workers: expected 1 or more, saw {command.workers}")
    robot = Embodiment.load(command.embodiment) if command.embodiment else None
    console = Console()
    with _progress(console) as report:
        summary = convert_bags(
            command.folder,
            command.out,
            embodiment=robot,
            keys=command.streams or None,
            options=command.reading.options(),
            workers=command.workers,
            progress=report,
        )
    for result in summary.results:
        for line in result.lines:
            _print_line(console, line)
        _print_result(console, result)
    rows, fresh = sum(result.rows for result in summary.usable), summary.fresh
    speed = sum(result.size for result in fresh) / max(summary.seconds, 1e-9)
    episodes = sum(len(result.folders) for result in summary.usable)
    more = f"{episodes} episodes, " if episodes != len(summary.usable) else ""
    console.print(
        f"{len(summary.usable)} of {len(summary.results)} bags usable, {more}{rows} rows; "
        f"{len(fresh)} converted in {summary.seconds:.1f} s ({_megabytes(speed)}/s), "
        f"{len(summary.results) - len(fresh)} were there already; {command.out}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    figures = {
        "out": str(command.out),
        "bags": len(summary.results),
        "usable": len(summary.usable),
        "episodes": episodes,
        "rows": rows,
        "seconds": summary.seconds,
        "results": [asdict(result) for result in summary.results],
    }
    _write_json(command.json, figures)
    return 0 if summary.usable else 1


def _print_result(console: Console, result: Result) -> None:
    """What became of a bag, where that is not one sound episode."""
    parts = []
    if len(result.folders) > 1:
        parts.append(f"{len(result.folders)} episodes, {result.rows} rows")
    if result.unfinished:
        parts.append(f"{result.unfinished} without an outcome: no outcome, left out of training")
    if result.rows and not result.actions:
        parts.append("[red]no action at any tick[/]: nothing to imitate; see 'bags check'")
    if parts:
        text = f"{escape(result.bag)}: {'; '.join(parts)}"
        console.print(text, soft_wrap=True, highlight=False)


def repair(command: Repair) -> int:
    console = Console()
    with _progress(console, "repairing") as report:
        result = repair_bag(command.bag, command.out, report)
    table = Table()
    for name in ("topic", "type", "recovered", "declared", "lost"):
        table.add_column(name, justify="left" if name in ("topic", "type") else "right")
    for topic in result.topics:
        names = [escape(plain(name)) for name in (topic.name, topic.type)]
        lost = f"[red]{topic.lost}[/]" if topic.lost else "0"
        table.add_row(*names, str(topic.recovered), str(topic.declared), lost)
    console.print(table)
    for line in result.lines:
        _print_line(console, line)
    console.print(
        f"{result.recovered} messages recovered, {result.lost} known to be lost; {command.out}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    _write_json(command.json, figures_of(result))
    return 0


@contextmanager
def _progress(console: Console, what: str = "converting") -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _title(summary: BagSummary) -> str:
    parts = [summary.name, _megabytes(summary.size), f"{summary.duration_s:.1f} s"]
    if summary.info is not None:
        parts.append(f"task {summary.info.task}, seed {summary.info.seed}")
    if summary.instruction:
        parts.append(f"'{summary.instruction}'")
    if summary.outcome is not None:
        verdict = "success" if summary.outcome.success else "failure"
        parts.append(f"{verdict} ({summary.outcome.reason})")
    return escape(", ".join(parts))


def _print_line(console: Console, line: str) -> None:
    console.print(escape(line), soft_wrap=True, highlight=False)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _write_json(path: Path | None, figures: dict[str, Any]) -> None:
    if path is None:
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
