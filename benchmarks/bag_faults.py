"""Damaged and hostile recordings by the thousand: nothing lost, invented, or brought down.

Twelve small bags (``_fault_bags.py``) are damaged by truncation, flipped bits, other bytes and
blocks of zeros or noise, each seeded, and by several such edits at once. What is read is held
against where the bytes of each message lie in the file, which needs no parser of ours. Then hostile
files (``_hostile_bags.py``) are read, each in a process of its own, whose memory and time are
bounded.
"""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from _fault_bags import Row, Sample, Span, needed, samples, touched, write
from _hostile_bags import Outcome, hostile_outcomes
from _report import report
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied_rl.bags.read import Bag
from embodied_rl.core.errors import UserError

LONGEST_S = 30
BLOCK_BYTES = 512
TARGETS = {
    "tracebacks": ("<=", 0), "hangs": ("<=", 0), "invented": ("<=", 0), "missing": ("<=", 0),
    "losses_not_said": ("<=", 0), "hostile_tracebacks": ("<=", 0),
    "hostile_without_a_line": ("<=", 0), "hostile_largest_MB": ("<=", 512),
    "hostile_longest_cpu_s": ("<=", 10),
}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Recovery from damaged bags against an independent reference; hostile bags."""

    truncations: int = 50
    """offsets at which each file is cut"""
    faults: int = 200
    """flipped bits, other bytes, blocks, and several edits at once: as many of each in each file"""
    seed: int = 0
    hostile: bool = True
    """also read the hostile files"""
    json: Path | None = None
    """Write the figures to this file."""


@dataclass
class Tally:
    """What became of the damaged copies of one file."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, what: str, count: int, example: str) -> None:
        self.counts[what] += count
        if count and len(self.examples) < 5:
            self.examples.append(f"{what}: {example}")


class _Hang(BaseException):
    """Not an Exception: no handler of the reader may take it for an error of the file."""


def main(argv: list[str]) -> int:
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl bench bag_faults", description=Arguments.__doc__
    )
    with tempfile.TemporaryDirectory(prefix="bag_faults_") as name:
        folder = Path(name)
        tallies = {s.name: damage(folder, s, arguments) for s in samples()}
        outcomes = hostile_outcomes(folder) if arguments.hostile else []
    _print(tallies, outcomes)
    figures = summary(tallies, outcomes)
    targets = {name: target for name, target in TARGETS.items() if name in figures}
    series = {
        "files": {n: {**t.counts, "examples": t.examples} for n, t in tallies.items()},
        "hostile": [outcome.__dict__ for outcome in outcomes],
    }
    return report("bag_faults", figures, targets, arguments.json, series)


def damage(folder: Path, sample: Sample, arguments: Arguments) -> Tally:
    """Read the sound file, then each damaged copy of it."""
    tally = Tally()
    path = write(folder, sample, sample.data)
    found, lines, _ = read(path)
    if found != sample.rows or lines:
        raise RuntimeError(f"{sample.name}: the sound file is not read right: {lines}")
    noise = np.random.default_rng(arguments.seed)
    for what, data, span in faults(sample.data, arguments, noise):
        write(folder, sample, data)
        tally.counts["copies"] += 1
        judge(tally, sample, path, f"{what} at {span[0]}", span)
    for number in range(arguments.faults):
        write(folder, sample, mangled(sample.data, noise))
        tally.counts["copies"] += 1
        attempt(tally, path, f"mangled {number}")
    path.unlink()
    return tally


def faults(
    data: bytes, arguments: Arguments, noise: np.random.Generator
) -> Iterator[tuple[str, bytes, Span]]:
    """Damaged copies of a file, and which bytes are damaged."""
    size = len(data)
    for place in np.linspace(1, size - 1, arguments.truncations).astype(int):
        yield "cut", data[:place], (int(place), size)
    for what, length in (("bit", 1), ("byte", 1), ("block", BLOCK_BYTES)):
        for number in range(arguments.faults):
            place = int(noise.integers(0, size - length + 1))
            old = data[place : place + length]
            if what == "bit":
                new = bytes([old[0] ^ 1 << noise.integers(0, 8)])
            elif what == "byte":
                new = bytes([(old[0] + noise.integers(1, 256)) % 256])
            else:
                new = bytes(length) if number % 2 else noise.bytes(length)
            yield what, data[:place] + new + data[place + length :], (place, place + length)


def read(path: Path) -> tuple[list[Row], list[str], list[str]]:
    """Messages, findings and remarks of a bag; a refused one has a finding and no messages."""
    try:
        with Bag.open(path) as bag:
            found = [(m.topic, m.log_time_ns, bytes(m.data)) for m in bag.messages()]
            return found, bag.report.lines(), bag.report.remarks
    except UserError as error:
        return [], [str(error)], []


def mangled(data: bytes, noise: np.random.Generator) -> bytes:
    """Several edits at once: bytes changed, left out, repeated elsewhere, lengths that are not.

    What should be found of it nobody knows, but the reader has to come through."""
    found = bytearray(data)
    for _ in range(noise.integers(1, 6)):
        place, other = (int(n) for n in noise.integers(0, len(found) - 8, 2))
        length = int(noise.integers(1, 4000))
        what = noise.integers(0, 4)
        if what == 0:
            found[place] = noise.integers(0, 256)
        elif what == 1 and len(found) > 8000:
            del found[place : place + length]
        elif what == 2:
            found[place:place] = found[other : other + length]
        else:
            value = int(noise.choice([0, 1, 255, 2**31, 2**50, 2**63 - 1]))
            order = "little" if noise.integers(0, 2) else "big"
            found[place : place + 8] = value.to_bytes(8, order)  # type: ignore[arg-type]
    return bytes(found)


def attempt(tally: Tally, path: Path, what: str) -> tuple[list[Row], list[str], list[str]] | None:
    """Read a damaged copy; None, and a count, where the reader does not come through."""
    try:
        with _time_limit():
            return read(path)
    except _Hang:
        tally.add("hangs", 1, what)
    except Exception as error:  # the very thing that is counted
        tally.add("tracebacks", 1, f"{what}: {type(error).__name__}: {error}")
    return None


def judge(tally: Tally, sample: Sample, path: Path, what: str, damaged: Span) -> None:
    """Read one damaged copy and count what is wrong with the result."""
    answer = attempt(tally, path, what)
    if answer is None:
        return
    found, lines, remarks = answer
    given, original = Counter(found), set(sample.rows)
    missing = [row for row in needed(sample, damaged) if not given[row]]
    tally.add("missing", len(missing), f"{what}: {len(missing)} messages; {lines}")
    changed = [row for row in found if row not in original]
    twice = sum(count - 1 for count in given.values())
    # without check sums a damaged value goes unseen; the report must say that there are none
    room = len(touched(sample, damaged)) if remarks and not sample.checked else 0
    tally.add("invented", max(len(changed) - room, 0) + twice, f"{what}: {len(changed)}; {lines}")
    tally.counts["changed_values"] += min(len(changed), room)
    tally.counts["recovered"] += len(found) - len(changed)
    tally.counts["messages"] += len(sample.rows)
    silent = len(found) < len(sample.rows) and not lines
    tally.add("losses_not_said", int(silent), f"{what}: {len(found)} of {len(sample.rows)}")


@contextmanager
def _time_limit() -> Iterator[None]:
    """Ends the block with :class:`_Hang` after :data:`LONGEST_S`."""

    def stop(*_: object) -> None:
        raise _Hang

    handler = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, LONGEST_S)  # a test may have one of its own
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def summary(tallies: dict[str, Tally], outcomes: list[Outcome]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for tally in tallies.values():
        total.update(tally.counts)
    figures: dict[str, float] = {"files": len(tallies), "copies": total["copies"]}
    for name in ("tracebacks", "hangs", "invented", "missing", "losses_not_said"):
        figures[name] = total[name]
    figures["changed_values_without_check_sum"] = total["changed_values"]
    figures["recovered_share"] = total["recovered"] / max(total["messages"], 1)
    if outcomes:
        figures["hostile_files"] = len(outcomes)
        figures["hostile_tracebacks"] = sum(outcome.failed for outcome in outcomes)
        figures["hostile_without_a_line"] = sum(not outcome.line for outcome in outcomes)
        figures["hostile_largest_MB"] = max(outcome.peak_MB for outcome in outcomes)
        figures["hostile_longest_cpu_s"] = max(outcome.cpu_s for outcome in outcomes)
        figures["hostile_longest_s"] = max(outcome.seconds for outcome in outcomes)
    return figures


def _print(tallies: dict[str, Tally], outcomes: list[Outcome]) -> None:
    console = Console()
    names = ("copies", "tracebacks", "hangs", "invented", "missing", "losses_not_said")
    table = Table(title="damaged copies", title_justify="left")
    for column in ("file", *names, "changed values", "recovered"):
        table.add_column(column, justify="left" if column == "file" else "right")
    for name, tally in tallies.items():
        share = tally.counts["recovered"] / max(tally.counts["messages"], 1)
        cells = [str(tally.counts[n]) for n in (*names, "changed_values")]
        table.add_row(name, *cells, f"{100 * share:.1f} %")
    console.print(table)
    for name, tally in tallies.items():
        for example in tally.examples:
            console.print(f"{name}: {example}", markup=False, soft_wrap=True, highlight=False)
    if not outcomes:
        return
    table = Table(title="hostile files", title_justify="left")
    for column in ("file", "s", "cpu s", "MB", "line"):
        table.add_column(column, justify="right" if column in ("s", "cpu s", "MB") else "left")
    for outcome in outcomes:
        cells = (
            f"{outcome.seconds:.2f}",
            f"{outcome.cpu_s:.2f}",
            f"{outcome.peak_MB:.0f}",
            escape(outcome.line[:90]),
        )
        table.add_row(outcome.name, *cells)
    console.print(table)
