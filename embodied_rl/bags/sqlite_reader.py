"""The SQLite files (``.db3``) of rosbag2, every schema version, read in recording order."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from embodied_rl.bags.report import Report
from embodied_rl.bags.storage import Message, TopicInfo, Unreadable


class SqliteFile:
    """One ``.db3`` file, opened read-only. Findings go to ``report``.

    Raises:
        Unreadable: not a rosbag2 database.
    """

    def __init__(self, path: Path, report: Report):
        self.path, self._report = path, report
        self._noted = False
        try:
            self._base = _connect(path)
            self._ids, kinds = self._read_topics()
            definitions = self._read_definitions()
        except sqlite3.Error as error:
            raise Unreadable("a rosbag2 SQLite file", f"{error} ({path.name})") from error
        counts = self._read_counts()
        self.topics = []
        for number, (kind, serialization) in kinds.items():
            encoding, text = definitions.get(kind, ("", ""))
            name, count = self._ids[number], counts.get(number, 0)
            self.topics.append(TopicInfo(name, kind, count, encoding, text, serialization))
        self.span_ns = self._read_span()

    def close(self) -> None:
        self._base.close()

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        wanted = {number: name for number, name in self._ids.items() if name in topics}
        marks = ",".join("?" * len(wanted))
        # the primary key rises in the order of recording, and needs no index that may be damaged
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks})"
        try:
            rows = self._base.execute(f"{query} ORDER BY id", tuple(wanted))
            for topic, log_time_ns, data in rows:
                yield Message(wanted[topic], log_time_ns, memoryview(data))
        except sqlite3.Error as error:
            self._note(error)

    def _read_topics(self) -> tuple[dict[int, str], dict[int, tuple[str, str]]]:
        """By number: the names, and types with their serialisation."""
        names, kinds = {}, {}
        for number, name, kind, serialization in self._base.execute(
            "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
        ):
            names[number], kinds[number] = name, (kind, serialization)
        return names, kinds

    def _read_definitions(self) -> dict[str, tuple[str, str]]:
        """Type -> encoding and text of its definition, which files since Iron hold."""
        if not self._has_table("message_definitions"):
            return {}
        rows = self._base.execute(
            "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        )
        return {kind: (encoding, text) for kind, encoding, text in rows}

    def _read_counts(self) -> dict[int, int]:
        """Messages by topic; of a damaged file those that can be reached."""
        counts: Counter[int] = Counter()
        try:
            # no GROUP BY: it would give nothing at all once it comes upon the damage
            for (number,) in self._base.execute("SELECT topic_id FROM messages ORDER BY id"):
                counts[number] += 1
        except sqlite3.Error as error:
            self._note(error)
        return counts

    def _has_table(self, name: str) -> bool:
        query = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        return bool(self._base.execute(query, (name,)).fetchone()[0])

    def _read_span(self) -> tuple[int, int]:
        try:
            first, last = self._base.execute(
                "SELECT MIN(timestamp), MAX(timestamp) FROM messages"
            ).fetchone()
        except sqlite3.Error as error:
            self._note(error)
            return 0, 0
        return (first, last) if first is not None else (0, 0)

    def _note(self, error: sqlite3.Error) -> None:
        if not self._noted:
            self._noted = True
            self._report.add("", "a sound SQLite file", f"{error} in {self.path.name}")


def _connect(path: Path) -> sqlite3.Connection:
    """Open without writing. What a killed recorder left half-done needs two concessions."""
    place = quote(str(path.resolve()))
    error: sqlite3.Error | None = None
    for mode in ("mode=ro", "immutable=1"):  # immutable: a journal that cannot be rolled back
        base = sqlite3.connect(f"file:{place}?{mode}", uri=True, check_same_thread=False)
        try:
            base.execute("PRAGMA writable_schema=ON")  # else a file cut short is refused whole
            base.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            return base
        except sqlite3.Error as failure:
            base.close()
            error = failure
    assert error is not None
    raise error
