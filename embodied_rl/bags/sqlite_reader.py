"""The SQLite files (``.db3``) of rosbag2, every schema version, read in recording order.

A sound file is read by SQLite. Where SQLite comes upon damage, and where a file was cut, its pages
are read one by one (``sqlite_pages.py``). Nothing is ever written beside the file: what a killed
recorder left in a write-ahead log or a journal is worked in on a private copy.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from embodied_rl.bags.report import Report
from embodied_rl.bags.sqlite_pages import (
    DEFINITIONS,
    INDEX,
    MAGIC,
    MESSAGES,
    TOPICS,
    Spoilt,
    SqlitePages,
    by_topic,
)
from embodied_rl.bags.storage import LARGEST_MESSAGE, Message, TopicInfo, Unreadable, copy_data
from embodied_rl.core.schema import plain

WAL, JOURNAL = "-wal", "-journal"
_WAL_MAGIC = (0x377F0682, 0x377F0683)
_SOUND_ROW = (
    "typeof(topic_id) = 'integer' AND typeof(timestamp) = 'integer' AND typeof(data) = 'blob' "
    f"AND length(data) <= {LARGEST_MESSAGE}"
)


NOTHING = np.empty(0, INDEX)


class _Damage(Exception):
    """SQLite gave something that a sound file cannot hold."""


# the module decodes the names in SQLite's own messages, which damage may have spoilt
_FAULTS = (sqlite3.Error, UnicodeDecodeError, OverflowError, _Damage)


class SqliteFile:
    """One ``.db3`` file. Findings go to ``report``.

    Raises:
        Unreadable: not a rosbag2 database.
        OSError: no room for the private copy that a file with a log or journal needs.
    """

    def __init__(self, path: Path, report: Report):
        self.path, self._report = path, report
        self._base: sqlite3.Connection | None = None
        self._pages: SqlitePages | None = None
        self._found: np.ndarray | None = None  # index of the pages
        self._stack = ExitStack()
        try:
            self._place = self._settled()
            self._open()
        except BaseException:
            self.close()
            raise
        report.remark(f"{path.name}: SQLite files have no check sums, changed values go unseen")

    def close(self) -> None:
        if self._base is not None:
            self._base.close()
        if self._pages is not None:
            self._pages.close()
        self._base = self._pages = None
        self._stack.close()

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """The messages of the named topics. Those behind damage are sought page by page."""
        wanted = {number: name for number, name in self._names.items() if name in topics}
        last = None
        if self._base is not None:
            marks = ",".join("?" * len(wanted))
            # the primary key rises in the order of recording; an index may be damaged
            query = (
                "SELECT id, topic_id, timestamp, data FROM messages "
                f"WHERE topic_id IN ({marks}) AND {_SOUND_ROW} ORDER BY id"
            )
            try:
                for row, topic, log_time_ns, data in self._base.execute(query, tuple(wanted)):
                    if last is not None and row <= last:
                        raise _Damage("rows out of order")
                    last = row
                    yield Message(wanted[topic], log_time_ns, memoryview(data))
                return
            except _FAULTS as error:
                self._note(error)
        index = self._recovered()
        if last is not None:
            index = index[index["row"] > last]
        assert self._pages is not None or not len(index)
        for entry in by_topic(index, wanted):
            data = self._pages.data(int(entry["cell"]))  # type: ignore[union-attr]
            yield Message(wanted[int(entry["topic"])], int(entry["time_ns"]), memoryview(data))

    # ---------------------------------------------------------------- opening
    def _settled(self) -> Path:
        """The file, or a private copy of it into which its log or journal has been worked."""
        beside = [self.path.with_name(self.path.name + end) for end in (WAL, JOURNAL)]
        beside = [file for file in beside if file.is_file() and file.stat().st_size]
        if not beside:
            return self.path
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bag_")))
        copy = folder / self.path.name
        for file in (self.path, *beside):
            copy_data(file, folder / file.name)
        try:
            with closing(sqlite3.connect(copy)) as base:
                base.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                _, frames, _ = base.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except _FAULTS as error:
            self._note(error)
            return copy
        for file in beside:
            if file.name.endswith(WAL):
                self._note_log(file, frames)
            else:
                self._report.add(
                    "", "a closed SQLite file",
                    f"a transaction that was never finished; it is left out ({self.path.name})",
                    damage=False,
                )  # fmt: skip
        return copy

    def _note_log(self, log: Path, used: int) -> None:
        """Say what SQLite found usable of a write-ahead log."""
        written = _frames(log)
        seen = f"a log of {max(used, 0)} pages, which were read too ({self.path.name})"
        self._report.add("", "a closed SQLite file", seen, damage=False)
        if written > max(used, 0):
            self._report.add(
                "", "a whole write-ahead log",
                f"{written - max(used, 0)} of its {written} pages never completed or damaged "
                f"({log.name})",
            )  # fmt: skip

    def _open(self) -> None:
        """Topics, counts and span, from SQLite or else from the pages."""
        if os.path.getsize(self._place) == 0:
            raise Unreadable("a rosbag2 SQLite file", f"an empty file ({self.path.name})")
        try:
            if _is_cut(self._place):
                raise _Damage("the file is cut")
            self._base = _connect(self._place)
            self._refuse_other_tables()
            topics = self._select(TOPICS, {
                "id": "", "name": "", "type": "", "serialization_format": "'cdr'",
                "offered_qos_profiles": "''", "type_description_hash": "''",
            })  # fmt: skip
            definitions = self._select(
                DEFINITIONS, {"topic_type": "", "encoding": "", "encoded_message_definition": ""}
            )
            counts = self._survey()
        except _FAULTS as error:
            topics, definitions, counts = self._open_damaged(error)
        self._names = {}
        self.topics = []
        texts = {row[0]: row[1:3] for row in definitions if _are_texts(row)}
        for row in topics:
            if not (isinstance(row[0], int) and len(row) >= 4 and _are_texts(row[1:4])):
                self._report.add(
                    "", "topics with name, type and serialization",
                    f"other values in {self.path.name}", once=True,
                )  # fmt: skip
                continue
            number, name, kind, serialization, *rest = row
            self._names[number] = name
            encoding, text = texts.get(kind, ("", ""))
            qos, type_hash = ([str(value or "") for value in rest] + ["", ""])[:2]
            self.topics.append(
                TopicInfo(
                    name, kind, counts.pop(number, 0), encoding, text, serialization, qos, type_hash
                )
            )
        if counts:
            self._report.add(
                "", "messages of the topics that the file lists",
                f"{sum(counts.values())} messages of others in {self.path.name}",
            )  # fmt: skip

    def _open_damaged(self, error: Exception) -> tuple[list[Any], list[Any], Counter[int]]:
        """Rows of topics and of definitions, and counts, from the pages.

        Raises:
            Unreadable: there are none.
        """
        if self._base is not None:
            self._base.close()
            self._base = None
        index = self._recovered()
        topics: list[Any] = []
        definitions: list[Any] = []
        if self._pages is not None:
            topics = [[row, *columns[1:]] for row, columns in self._pages.rows(TOPICS)]
            definitions = [columns[1:4] for _, columns in self._pages.rows(DEFINITIONS)]
        if not topics and not len(index):
            raise Unreadable("a rosbag2 SQLite file", f"{error} ({self.path.name})") from error
        self._note(error)
        numbers, counts = np.unique(index["topic"], return_counts=True)
        self.span_ns = (0, 0)
        if len(index):
            self.span_ns = int(index["time_ns"].min()), int(index["time_ns"].max())
        return topics, definitions, Counter(dict(zip(numbers.tolist(), counts.tolist())))

    # ---------------------------------------------------------------- by SQLite
    def _refuse_other_tables(self) -> None:
        """A view or a computed column may run for ever, or make any amount of data.

        Raises:
            Unreadable: a view, or no table of this name.
        """
        assert self._base is not None
        for name in (TOPICS, MESSAGES, DEFINITIONS):
            query = "SELECT type, rootpage FROM sqlite_master WHERE name = ?"
            found = self._base.execute(query, (name,)).fetchone()
            if found is None and name == DEFINITIONS:
                continue
            seen = "none"
            if found is not None:
                seen = f"a {found[0]}" if found[1] or found[0] == "view" else "a virtual table"
                columns = self._base.execute(f"PRAGMA table_xinfo({name})") if found[1] else ()
                if any(column[6] for column in columns):
                    seen = "computed columns"
            if seen != "a table":
                raise Unreadable(f"a rosbag2 table '{name}'", f"{plain(seen)} ({self.path.name})")

    def _select(self, table: str, columns: dict[str, str]) -> list[Any]:
        """Rows of a table; for columns that its version lacks the value given for them."""
        assert self._base is not None
        known = {column[1] for column in self._base.execute(f"PRAGMA table_info({table})")}
        if not known:
            return []
        wanted = [name if name in known else value or name for name, value in columns.items()]
        return list(self._base.execute(f"SELECT {', '.join(wanted)} FROM {table}"))

    def _survey(self) -> Counter[int]:
        """Messages by topic, and the span; rows that are no messages are counted as findings."""
        assert self._base is not None
        counts: Counter[int] = Counter()
        first, last, previous, spoilt, gaps = 2**63, -(2**63), None, 0, 0
        # no GROUP BY: it would give nothing at all once it comes upon the damage
        for row, topic, time_ns, sound in self._base.execute(
            f"SELECT id, topic_id, timestamp, {_SOUND_ROW} FROM messages ORDER BY id"
        ):
            if previous is not None and row <= previous:
                raise _Damage("rows out of order")
            gaps += previous is not None and row != previous + 1
            previous = row
            if sound:
                counts[topic] += 1
                first, last = min(first, time_ns), max(last, time_ns)
            else:
                spoilt += 1
        if spoilt:
            self._report.add(
                "", "rows of two integers and a blob of at most 256 MiB",
                f"{spoilt} with other values in {self.path.name}",
            )  # fmt: skip
        if gaps and len(self._recovered()) > sum(counts.values()) + spoilt:
            raise _Damage("pages with messages to which no way leads")
        self.span_ns = (first, last) if counts else (0, 0)
        return counts

    # ---------------------------------------------------------------- by pages
    def _recovered(self) -> np.ndarray:
        """The index of what the pages hold; empty where they hold nothing."""
        if self._found is None:
            try:
                self._pages = SqlitePages(self._place)
                self._found = self._pages.index()
                for what, count in self._pages.lost.items():
                    self._report.add("", "sound pages", f"{count} {what} in {self.path.name}")
            except Spoilt:
                self._found = NOTHING
        return self._found

    def _note(self, error: Exception) -> None:
        seen = f"{plain(str(error))} in {self.path.name}; its pages are read one by one"
        self._report.add("", "a sound SQLite file", seen, once=True)


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file that nobody writes to: no lock, no shared memory beside it."""
    place = quote(str(path.resolve()))
    base = sqlite3.connect(f"file:{place}?immutable=1", uri=True, check_same_thread=False)
    base.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        base.execute("PRAGMA trusted_schema=OFF")
        base.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except BaseException:
        base.close()
        raise
    return base


def _is_cut(path: Path) -> bool:
    """Whether pages are missing; SQLite would fill the last one with zeros."""
    with open(path, "rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(MAGIC):
        return False  # SQLite will say what it is
    (page_size,) = struct.unpack_from(">H", head, 16)
    page_size = 65536 if page_size == 1 else max(page_size, 1)
    pages, rest = divmod(os.path.getsize(path), page_size)
    changes, declared, valid_for = (struct.unpack_from(">I", head, at)[0] for at in (24, 28, 92))
    return rest > 0 or (changes == valid_for and declared > pages)


def _frames(log: Path) -> int:
    """Pages of the log's present round; older rounds leave theirs behind, with another salt."""
    with open(log, "rb") as file:
        head = file.read(32)
        if len(head) < 32 or struct.unpack_from(">I", head)[0] not in _WAL_MAGIC:
            return 1  # not a log at all: something was lost, nobody knows how much
        (page_size,) = struct.unpack_from(">I", head, 8)
        for count in itertools.count():
            file.seek(32 + count * (24 + max(page_size, 512)))
            frame = file.read(16)  # number of the page, 0: none; size; salt
            if len(frame) < 16 or frame[:4] == bytes(4) or frame[8:] != head[16:24]:
                return count
    raise AssertionError


def _are_texts(row: Any) -> bool:
    return all(isinstance(value, str) for value in row)
