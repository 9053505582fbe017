"""The SQLite files (``.db3``) of rosbag2, every schema version, read in recording order."""

from __future__ import annotations

import sqlite3
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
            self._base = sqlite3.connect(
                f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, check_same_thread=False
            )
            self._ids, self.topics = self._read_topics()
        except sqlite3.Error as error:
            raise Unreadable("a rosbag2 SQLite file", f"{error} ({path.name})") from error
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

    def _read_topics(self) -> tuple[dict[int, str], list[TopicInfo]]:
        counts: dict[int, int] = {}
        try:
            counts = dict(
                self._base.execute("SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id")
            )
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # no such table: another kind of database
            self._note(error)
        definitions: dict[str, tuple[str, str]] = {}
        if self._has_table("message_definitions"):
            for kind, encoding, text in self._base.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ):
                definitions[kind] = (encoding, text)
        ids, topics = {}, []
        for number, name, kind, serialization in self._base.execute(
            "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
        ):
            ids[number] = name
            encoding, text = definitions.get(kind, ("", ""))
            topics.append(
                TopicInfo(name, kind, counts.get(number, 0), encoding, text, serialization)
            )
        return ids, topics

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
