"""``embodied_rl bags cut|merge``: one bag into several, several into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_rl.bags.cut import cut
from embodied_rl.bags.merge import merge
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.cli import UsageError
from embodied_rl.cli.bag_options import Cutting


@dataclass(frozen=True)
class Cut:
    """Cut one bag into a bag for each episode: at declared starts, marks, --cut or silences."""

    bag: tyro.conf.Positional[Path]
    """a bag (a folder, .mcap or .db3)"""
    out: Path
    """new folder for the bags"""
    cutting: Annotated[Cutting, tyro.conf.arg(name="")] = field(default_factory=Cutting)


@dataclass(frozen=True)
class Merge:
    """Put bags of the same time together into one, in the order of log time."""

    bags: tyro.conf.Positional[tuple[Path, ...]]
    """bags, or folders of bags: two at least"""
    out: Path
    """folder of the new bag"""


def cut_bag(command: Cut) -> int:
    """Returns the exit code."""
    console = Console()
    with Bag.open(command.bag) as bag, _progress(console, "cutting") as report:
        written = cut(bag, command.out, command.cutting.options(), report)
        lines = bag.report.lines()
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)
    for made in written:
        text = f"{made.name}: {made.messages} messages, {made.seconds:.1f} s"
        console.print(escape(text), soft_wrap=True, highlight=False)
    text = f"{len(written)} bags in {command.out}"
    console.print(escape(text), soft_wrap=True, highlight=False)
    return 0 if written else 1


def merge_bags(command: Merge) -> int:
    """Returns the exit code."""
    places = [place for folder in command.bags for place in find_bags(folder)]
    if len(places) < 2:
        raise UsageError(f"bags merge: expected two bags or more, saw {len(places)}")
    console = Console()
    with _progress(console, "merging") as report:
        written, lines = merge(places, command.out, report)
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)
    text = f"{command.out}: {written.messages} messages of {len(places)} bags, "
    console.print(escape(text) + f"{written.seconds:.1f} s", soft_wrap=True, highlight=False)
    return 0


@contextmanager
def _progress(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn(title), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
