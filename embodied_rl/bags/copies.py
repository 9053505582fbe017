"""New bags from the messages of others, with a note in their metadata of what came from where."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from embodied_rl.bags.messages import standard_types
from embodied_rl.bags.storage import Message, TopicInfo
from embodied_rl.core.errors import UserError

PROVENANCE = "embodied_rl_provenance"  # key in custom_data of metadata.yaml: JSON
VERSION = 8  # of metadata.yaml, which Humble reads as well as Rolling
# what a late subscriber is told: each part of a bag needs the newest of them
LATCHED = ("tf_static", "robot_description", "embodiment", "instruction")
_FOREVER = QosTime(9223372036, 854775807)


def latched(topic: str) -> bool:
    """Whether a topic says once what holds from then on."""
    return topic.rsplit("/", 1)[-1] in LATCHED


@dataclass(frozen=True)
class Written:
    """One bag that was written."""

    name: str
    messages: int
    seconds: float  # from its first message to its last


class BagCopy:
    """A bag (MCAP) that grows in ``folder``; use as a context manager."""

    def __init__(self, folder: Path, topics: Iterable[TopicInfo], provenance: dict[str, Any]):
        self._writer = Writer(folder, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_custom_data(PROVENANCE, json.dumps(provenance))
        self._topics = {info.name: info for info in topics}
        self._connections: dict[str, Connection] = {}
        self.folder, self.messages = folder, 0
        self._first_ns = self._last_ns = 0

    def __enter__(self) -> BagCopy:
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and not self._connections:  # an empty bag still says what it could hold
            for name in self._topics:
                self._connect(name)
        self._writer.close()

    def write(self, message: Message) -> None:
        """Append a message."""
        connection = self._connections.get(message.topic) or self._connect(message.topic)
        self._writer.write(connection, message.log_time_ns, message.data)
        self._first_ns = min(self._first_ns or message.log_time_ns, message.log_time_ns)
        self._last_ns = max(self._last_ns, message.log_time_ns)
        self.messages += 1

    def written(self) -> Written:
        return Written(self.folder.name, self.messages, (self._last_ns - self._first_ns) / 1e9)

    def _connect(self, name: str) -> Connection:
        info, types = self._topics[name], standard_types()
        definition, digest = info.definition, "unknown"
        if info.type in types.types:
            digest = types.hash_rihs01(info.type)
            definition = definition or types.generate_msgdef(info.type, ros_version=2)[0]
        connection = self._writer.add_connection(
            name,
            info.type,
            msgdef=definition,
            rihs01=digest,
            serialization_format=info.serialization,
            offered_qos_profiles=[_LATCHED_QOS] if latched(name) else [],
        )
        self._connections[name] = connection
        return connection


_LATCHED_QOS = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False,
)  # fmt: skip


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` when all went well.

    Raises:
        UserError: ``out`` exists, or cannot be written.
    """
    if out.exists():
        raise UserError(f"{out}: expected a new folder, saw one that exists")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
