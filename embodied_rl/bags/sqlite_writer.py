"""One SQLite file as rosbag2 writes it (schema version 4, of Iron and later; Humble reads it)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from embodied_rl.bags.metadata import VERSION
from embodied_rl.bags.storage import TopicInfo

_SCHEMA = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL,
  metadata TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,
  encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
  timestamp INTEGER NOT NULL, data BLOB NOT NULL);
INSERT INTO schema(schema_version, ros_distro) VALUES (4, '');
"""
_INSERT = "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)"
_BATCH_BYTES = 4 << 20


class SqliteWriter:
    """Appends messages; :meth:`close` writes the index and syncs. Meant for a file that gets its
    final name only when it is whole: there is no journal.

    Raises:
        sqlite3.Error: it cannot be written; the same from every method.
    """

    def __init__(self, path: Path):
        self.path = path
        self._base = sqlite3.connect(path)
        self._base.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
        self._types: set[str] = set()
        self._topics = 0
        self._batch: list[tuple[int, int, bytes]] = []
        self._bytes = 0

    def add_topic(self, topic: TopicInfo) -> int:
        """Declare a topic; returns its number."""
        self._topics += 1
        self._base.execute(
            "INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)",
            (
                self._topics, topic.name, topic.type, topic.serialization, topic.qos,
                topic.type_hash,
            ),
        )  # fmt: skip
        if topic.definition and topic.type not in self._types:
            self._types.add(topic.type)
            self._base.execute(
                "INSERT INTO message_definitions (topic_type, encoding, "
                "encoded_message_definition, type_description_hash) VALUES (?, ?, ?, ?)",
                (topic.type, topic.encoding, topic.definition, topic.type_hash),
            )
        return self._topics

    def write(self, topic: int, log_time_ns: int, data: bytes | memoryview) -> None:
        """Append one serialised message."""
        self._batch.append((topic, log_time_ns, bytes(data)))
        self._bytes += len(data)
        if self._bytes >= _BATCH_BYTES:
            self.flush()

    def close(self, describe: Callable[[], str]) -> None:
        """Write the rest and ``describe()``, the rosbag2 metadata text; sync to disk."""
        self.flush()
        self._base.execute(
            "INSERT INTO metadata (metadata_version, metadata) VALUES (?, ?)",
            (VERSION, describe()),
        )
        self._base.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
        self._base.commit()
        self._base.close()
        handle = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def abandon(self) -> None:
        """Close the file as it is."""
        self._base.close()

    def flush(self) -> None:
        """Write what is in memory."""
        self._base.executemany(_INSERT, self._batch)
        self._base.commit()
        self._batch, self._bytes = [], 0
