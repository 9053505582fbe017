"""Bags as the recorders of several distributions of ROS 2 and other programs write them.

Written from the formats alone, with sqlite3 and the ``mcap`` and ``rosbags`` libraries: nothing
here knows how the project reads a bag.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
import zstandard
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapLibraryWriter
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)


class Logged(NamedTuple):
    """One message as a recorder gets it."""

    log_ns: int
    topic: str
    kind: str
    data: bytes


def describe(
    folder: Path, storage: str, files: Sequence[str], messages: Sequence[Logged], version: int,
    compression: str = "",
) -> None:  # fmt: skip
    """``metadata.yaml`` of a version."""
    counts: dict[tuple[str, str], int] = {}
    for message in messages:
        key = (message.topic, message.kind)
        counts[key] = counts.get(key, 0) + 1
    times = [message.log_ns for message in messages]
    information: dict[str, object] = {
        "version": version,
        "storage_identifier": storage,
        "relative_file_paths": list(files),
        "duration": {"nanoseconds": max(times) - min(times)},
        "starting_time": {"nanoseconds_since_epoch": min(times)},
        "message_count": len(messages),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": name, "type": kind, "serialization_format": "cdr",
                    **({"offered_qos_profiles": ""} if version >= 4 else {}),
                },
                "message_count": count,
            }
            for (name, kind), count in counts.items()
        ],
    }  # fmt: skip
    if version >= 3:
        information["compression_format"] = "zstd" if compression else ""
        information["compression_mode"] = compression
    text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
    (folder / "metadata.yaml").write_text(text)


def sqlite_file(path: Path, messages: Iterable[Logged], *, qos: bool, zstd: bool = False) -> None:
    """A database as Foxy (without ``qos``) to Humble write it."""
    base = sqlite3.connect(path)
    column = ", offered_qos_profiles TEXT NOT NULL" if qos else ""
    base.execute(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
        f"serialization_format TEXT NOT NULL{column})"
    )
    base.execute(
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
        "timestamp INTEGER NOT NULL, data BLOB NOT NULL)"
    )
    base.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
    known: dict[str, int] = {}
    for message in messages:
        if message.topic not in known:
            known[message.topic] = len(known) + 1
            row = [known[message.topic], message.topic, message.kind, "cdr", *([""] * qos)]
            base.execute(f"INSERT INTO topics VALUES({','.join('?' * len(row))})", row)
        data = zstandard.ZstdCompressor().compress(message.data) if zstd else message.data
        base.execute(
            "INSERT INTO messages(topic_id, timestamp, data) VALUES(?,?,?)",
            (known[message.topic], message.log_ns, data),
        )
    base.commit()
    base.close()


def sqlite_bag(
    folder: Path, messages: Sequence[Logged], *, version: int, compression: str = ""
) -> None:
    """A bag as Foxy (2), Galactic (4) or Humble (5) record it."""
    folder.mkdir(parents=True)
    name = f"{folder.name}_0.db3"
    sqlite_file(folder / name, messages, qos=version >= 4, zstd=compression == "message")
    if compression == "file":
        plain = folder / name
        name += ".zstd"
        (folder / name).write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
        plain.unlink()
    # Foxy names the files with their folder before them
    listed = name if version >= 4 else f"{folder.name}/{name}"
    describe(folder, "sqlite3", [listed], messages, version, compression.upper())


def rosbags_bag(
    folder: Path, messages: Sequence[Logged], storage: StoragePlugin,
    compression: CompressionMode | None = None, version: int = 9,
) -> None:  # fmt: skip
    """A bag of Jazzy or Rolling, with the definitions of its messages."""
    writer = Writer(folder, version=version, storage_plugin=storage)  # type: ignore[arg-type]
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for message in messages:
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(
                    message.topic, message.kind, typestore=STORE
                )
            writer.write(connections[message.topic], message.log_ns, message.data)


def mcap_file(path: Path, messages: Iterable[Logged], **options: object) -> None:
    """A file of the ``mcap`` library; ``options`` of its writer."""
    with open(path, "wb") as stream:
        writer = McapLibraryWriter(stream, **options)  # type: ignore[arg-type]
        writer.start("ros2", "somebody else")
        schemas: dict[str, int] = {}
        channels: dict[str, int] = {}
        for number, message in enumerate(messages):
            if message.kind not in schemas:
                text, _ = STORE.generate_msgdef(message.kind, ros_version=2)
                schemas[message.kind] = writer.register_schema(
                    message.kind, "ros2msg", text.encode()
                )
            if message.topic not in channels:
                channels[message.topic] = writer.register_channel(
                    message.topic, "cdr", schemas[message.kind]
                )
            writer.add_message(
                channels[message.topic], message.log_ns, message.data, message.log_ns, number
            )
        writer.finish()


def mcap_bag(
    folder: Path, messages: Sequence[Logged], *, described: bool = True, **options: object
) -> None:
    """A folder with one file of the ``mcap`` library."""
    folder.mkdir(parents=True)
    name = f"{folder.name}_0.mcap"
    mcap_file(folder / name, messages, **options)
    if described:
        describe(folder, "mcap", [name], messages, 8)


def split_bag(
    folder: Path, messages: Sequence[Logged], storage: str, described: bool, files: int = 3
) -> None:
    """A recording in several files, one after the other."""
    folder.mkdir(parents=True)
    names, step = [], -(-len(messages) // files)
    for number in range(files):
        part = messages[number * step : (number + 1) * step]
        names.append(f"{folder.name}_{number}.{'mcap' if storage == 'mcap' else 'db3'}")
        if storage == "mcap":
            mcap_file(folder / names[-1], part)
        else:
            sqlite_file(folder / names[-1], part, qos=True)
    if described:
        describe(folder, storage, names[::-1], messages, 5)  # in any order


def topic_files(folder: Path, messages: Sequence[Logged]) -> None:
    """A file for each topic, of both kinds in turn, and no metadata."""
    folder.mkdir(parents=True)
    for number, topic in enumerate(sorted({message.topic for message in messages})):
        part = [message for message in messages if message.topic == topic]
        name = topic.strip("/").replace("/", "-")
        if number % 2:
            sqlite_file(folder / f"{name}.db3", part, qos=True)
        else:
            mcap_file(folder / f"{name}.mcap", part)


def single_file(folder: Path, messages: Sequence[Logged]) -> None:
    """A lone file in a folder of its own, without metadata."""
    rosbags_bag(folder.with_name("tmp"), messages, StoragePlugin.MCAP)
    folder.mkdir(parents=True)
    shutil.move(folder.with_name("tmp") / "tmp.mcap", folder / "recording.mcap")
    shutil.rmtree(folder.with_name("tmp"))


MCAP_OPTIONS: dict[str, dict[str, object]] = {
    "lz4": {"compression": CompressionType.LZ4},
    "zstd": {"compression": CompressionType.ZSTD},
    "not compressed": {"compression": CompressionType.NONE},
    "no chunks": {"use_chunking": False},
    "no index": {"index_types": IndexType.NONE},
    "no summary": {
        "use_statistics": False, "use_summary_offsets": False, "repeat_channels": False,
        "repeat_schemas": False, "index_types": IndexType.NONE,
    },
    "no check sums": {"enable_crcs": False},
    "small chunks": {"chunk_size": 2000},
}  # fmt: skip
