"""Which data files of a folder are one recording, where no ``metadata.yaml`` says so.

A recorder that splits goes on in the next file where the last one ended; some programs write a
file for each topic, side by side in time. Demonstrations that were recorded one by one are neither.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from embodied_rl.bags.mcap_reader import McapFile
from embodied_rl.bags.report import Report
from embodied_rl.bags.sqlite_reader import SqliteFile
from embodied_rl.bags.storage import StorageFile, Unreadable
from embodied_rl.core.embodiment import NANOSECONDS

SPLIT_GAP_NS = NANOSECONDS  # between the last message of a file and the first of the next one
_SPLIT_NUMBER = re.compile(r"_\d+$")


@dataclass
class _Recording:
    """Files that belong together, and what is known of them together."""

    files: list[Path] = field(default_factory=list)
    stems: set[str] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)
    start_ns: int = 0
    end_ns: int = 0

    def goes_on_in(self, other: _Recording, folder: str) -> bool:
        """Whether ``other``, which begins later, is the next file of a split recording, or holds
        other topics of the same time."""
        if self.stems == other.stems == {folder}:  # as rosbag2 names the files of a split
            return True
        if not self.end_ns or not other.end_ns:  # not known
            return self.stems == other.stems
        if other.start_ns >= self.end_ns:
            close = other.start_ns - self.end_ns <= SPLIT_GAP_NS
            return close and self.stems == other.stems
        shared_ns = min(self.end_ns, other.end_ns) - other.start_ns
        shorter_ns = min(self.end_ns - self.start_ns, other.end_ns - other.start_ns)
        return 2 * shared_ns > shorter_ns and self.topics.isdisjoint(other.topics)

    def join(self, other: _Recording) -> None:
        self.files += other.files
        self.stems |= other.stems
        self.topics |= other.topics
        self.start_ns = min(self.start_ns, other.start_ns) or other.start_ns
        self.end_ns = max(self.end_ns, other.end_ns)


def recordings(
    files: Iterable[Path], listed: Collection[str], folder: str
) -> list[tuple[str, list[Path]]]:
    """Name and files of each recording among the data files of one folder.

    Args:
        listed: names of files that ``metadata.yaml`` tells to be one recording; it comes first.
        folder: name of the folder.
    """
    files = list(files)
    if len(files) == 1 or {file.name for file in files} <= set(listed):
        return [("", files)] if files else []
    described = _Recording()
    for file in files:
        if file.name in listed:
            described.join(_look(file))
    found = [described] if described.files else []
    rest = [_look(file) for file in files if file.name not in listed]
    for one in sorted(rest, key=lambda recording: recording.start_ns):
        home = next((r for r in found if r.goes_on_in(one, folder)), None)
        if home is None:
            found.append(one)
        else:
            home.join(one)
    if len(found) == 1:
        return [("", found[0].files)]
    return list(zip(_names(found, bool(described.files)), (r.files for r in found), strict=True))


def _names(found: list[_Recording], described: bool) -> list[str]:
    """A name for each, none twice: what its files share, or that of its first file."""
    shared = [next(iter(r.stems)) if len(r.stems) == 1 else "" for r in found]
    names = []
    for recording, stem in zip(found, shared, strict=True):
        first = recording.files[0].name
        plain = first.split(".")[0]
        alone = sum(file.name.split(".")[0] == plain for r in found for file in r.files) == 1
        by_file = plain if alone else first
        names.append(stem if stem and shared.count(stem) == 1 else by_file)
    return ["", *names[1:]] if described else names


def _look(file: Path) -> _Recording:
    """A data file by itself; of a compressed or unreadable one the time is not known."""
    stem = _SPLIT_NUMBER.sub("", file.name.split(".")[0])
    recording = _Recording([file], {stem})
    kinds: dict[str, type[McapFile] | type[SqliteFile]] = {".mcap": McapFile, ".db3": SqliteFile}
    kind = kinds.get(file.suffix)
    if kind is None:
        return recording
    try:
        opened: StorageFile = kind(file, Report(file.name))
    except (Unreadable, OSError):
        return recording  # said when the bag is read
    try:
        recording.topics = {topic.name for topic in opened.topics if topic.count}
        recording.start_ns, recording.end_ns = opened.span_ns
    finally:
        opened.close()
    return recording
