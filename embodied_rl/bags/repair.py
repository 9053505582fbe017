"""What is sound of a damaged bag, written into a proper one.

The new bag has the storage kind of the old one, a ``metadata.yaml``, and ``repair.json``: what was
recovered, what was lost, and why. It gets its name when it is whole and has been read back.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from embodied_rl.bags import metadata as meta
from embodied_rl.bags.mcap_writer import McapWriter
from embodied_rl.bags.messages import standard_types
from embodied_rl.bags.read import Bag
from embodied_rl.bags.sqlite_writer import SqliteWriter
from embodied_rl.bags.storage import TopicInfo
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.parent import alive

REPORT = "repair.json"
_TEMPORARY = ".tmp"
_STEP = 500  # messages between two calls of ``progress``


@dataclass(frozen=True)
class Topic:
    """How many messages of a topic there were to find, and how many were found."""

    name: str
    type: str
    declared: int  # by metadata.yaml or by the file; 0: nothing says
    recovered: int

    @property
    def lost(self) -> int:
        return max(self.declared - self.recovered, 0)


@dataclass(frozen=True)
class Repaired:
    """What became of a bag."""

    source: str
    out: str
    storage: str
    topics: list[Topic]
    lines: list[str]  # what is wrong with the source

    @property
    def recovered(self) -> int:
        return sum(topic.recovered for topic in self.topics)

    @property
    def lost(self) -> int:
        return sum(topic.lost for topic in self.topics)


class _Writer(Protocol):
    """What the writers of both kinds have in common here."""

    def write(self, topic: int, log_time_ns: int, data: bytes | memoryview) -> None: ...

    def flush(self) -> None: ...

    def close(self, describe: Callable[[], str]) -> None: ...

    def abandon(self) -> None: ...


def repair(
    source: str | Path,
    out: str | Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Repaired:
    """Write what can be read of the bag ``source`` into the new folder ``out``.

    Args:
        progress: called with (messages written, messages expected).

    Raises:
        UserError: ``out`` exists or cannot be written, or ``source`` is not one bag with at least
            one readable message.
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists already; a repaired bag never replaces anything")
    with Bag.open(source) as bag:
        if not bag.topics:
            why = "; ".join(bag.report.lines()[:2]) or "no topic in it"
            raise UserError(f"{source}: nothing to recover: {why}")
        _remove_leftovers(out)
        temporary = out.with_name(f".{out.name}.{os.getpid()}{_TEMPORARY}")
        try:
            temporary.mkdir(parents=True)
            result = _write(bag, out, temporary, progress)
            _read_back(temporary, result)
            with atomic_write(temporary / REPORT) as path:
                path.write_text(json.dumps(figures_of(result), indent=2) + "\n", encoding="utf-8")
            os.rename(temporary, out)
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror}") from error
        except sqlite3.Error as error:
            raise UserError(f"{out}: cannot be written: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return result


def _write(bag: Bag, out: Path, folder: Path, progress: Callable[[int, int], None]) -> Repaired:
    """The data file and ``metadata.yaml``."""
    infos = [_completed(info) for info in sorted(bag.topics.values(), key=lambda t: t.name)]
    storage = "mcap" if ".mcap" in bag.place.files[0].suffixes else "sqlite3"
    path = folder / f"{out.name}_0.{'mcap' if storage == 'mcap' else 'db3'}"
    writer, numbers = _open(path, infos)
    counts = dict.fromkeys(numbers, 0)
    first_ns, last_ns = 2**63 - 1, -(2**63)

    def describe() -> meta.Metadata:
        rows = [
            meta.TopicRow(info.name, info.type, counts[info.name], info.qos, info.type_hash)
            for info in infos
        ]
        start_ns = first_ns if any(counts.values()) else 0
        duration_ns = last_ns - first_ns if any(counts.values()) else 0
        return meta.Metadata(storage, (path.name,), start_ns, duration_ns, tuple(rows))

    try:
        total = sum(info.count for info in infos)
        for done, message in enumerate(bag.messages()):
            writer.write(numbers[message.topic], message.log_time_ns, message.data)
            counts[message.topic] += 1
            first_ns = min(first_ns, message.log_time_ns)
            last_ns = max(last_ns, message.log_time_ns)
            if done % _STEP == 0:
                progress(done, max(total, done))
        writer.flush()  # a full disk is an error here; a recorder's close makes do with less
        writer.close(lambda: meta.dump(describe().information()))
    except BaseException:
        writer.abandon()
        raise
    if not any(counts.values()):
        why = "; ".join(bag.report.lines()[:2]) or "no message in it"
        raise UserError(f"{bag.place.name}: nothing to recover: {why}")
    progress(sum(counts.values()), sum(counts.values()))
    with atomic_write(folder / meta.FILE_NAME) as temporary:
        temporary.write_text(describe().text(), encoding="utf-8")
    topics = [
        Topic(
            info.name, info.type, max(info.count, bag.declared.get(info.name, 0)),
            counts[info.name],
        )
        for info in infos
    ]  # fmt: skip
    return Repaired(str(bag.place.folder), str(out), storage, topics, bag.report.all_lines())


def _open(path: Path, topics: list[TopicInfo]) -> tuple[_Writer, dict[str, int]]:
    """A writer in which the topics are declared, and their numbers."""
    if path.suffix == ".mcap":
        mcap = McapWriter(path)
        return mcap, {
            topic.name: mcap.add_channel(
                topic.name, topic.type, topic.definition,
                {"offered_qos_profiles": topic.qos, "topic_type_hash": topic.type_hash},
                encoding=topic.encoding or "ros2msg", serialization=topic.serialization,
            )
            for topic in topics
        }  # fmt: skip
    sqlite = SqliteWriter(path)
    return sqlite, {topic.name: sqlite.add_topic(topic) for topic in topics}


def _completed(topic: TopicInfo) -> TopicInfo:
    """With the definition of a standard type, where the file has none."""
    types = standard_types()
    if topic.definition or topic.type not in types.types:
        return topic
    definition, _ = types.generate_msgdef(topic.type, ros_version=2)
    type_hash = topic.type_hash or types.hash_rihs01(topic.type)
    return replace(topic, definition=definition, encoding="ros2msg", type_hash=type_hash)


def _read_back(folder: Path, result: Repaired) -> None:
    """A bag that is given out as sound has been read once.

    Raises:
        UserError: it was not written as it should be.
    """
    with Bag.open(folder) as bag:
        written = dict.fromkeys(bag.topics, 0)
        for message in bag.messages():
            written[message.topic] += 1
        wanted = {topic.name: topic.recovered for topic in result.topics}
        if written != wanted or bag.report.damaged:
            seen = "; ".join(bag.report.lines()[:2]) or f"{sum(written.values())} messages"
            raise UserError(f"{result.out}: expected {result.recovered} messages, saw {seen}")


def figures_of(result: Repaired) -> dict[str, object]:
    """The report as ``repair.json`` holds it."""
    topics = [{**asdict(topic), "lost": topic.lost} for topic in result.topics]
    return {
        **asdict(result), "topics": topics, "recovered": result.recovered, "lost": result.lost,
    }  # fmt: skip


def _remove_leftovers(out: Path) -> None:
    """Folders of repairs that were killed."""
    for folder in out.parent.glob(f".{out.name}.*{_TEMPORARY}"):
        process = folder.name.removeprefix(f".{out.name}.").removesuffix(_TEMPORARY)
        if process.isdigit() and not alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
