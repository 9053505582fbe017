"""Twelve small bags, and where in each file the bytes lie that every message needs.

This is the reference that recovery is held against. It knows what was written and looks it up in
the finished file; it has no parser of ours. A message has to be found if no byte that it needs is
damaged. Where a file has no check sum, a message of which a byte is damaged may come out changed.
"""

from __future__ import annotations

import io
import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path

import lz4.frame
import numpy as np
import zstandard
from mcap.writer import CompressionType, IndexType, Writer

START_NS = 10**18
MAGIC_BYTES = 8
HEAD = 9  # of an MCAP record
MESSAGE_HEAD = HEAD + 22
CRC_PLACE = HEAD + 24  # of a chunk's check sum in its record
TOPICS = ("/a", "/b")
KIND = "std_msgs/msg/String"
MESSAGES = 60

Row = tuple[str, int, bytes]
Span = tuple[int, int]  # first byte, and one behind the last

SCHEMA = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
  timestamp INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema VALUES (4, 'jazzy');
"""


@dataclass(frozen=True)
class Sample:
    """One sound file.

    Attributes:
        needs: of each message, the spans that it cannot be found without.
        touch: of each message, the spans whose damage may change it.
        checked: damaged messages are known by a check sum.
        packed: of a file that is compressed as a whole, the sample inside.
    """

    name: str
    data: bytes
    rows: list[Row]
    needs: list[list[Span]]
    touch: list[list[Span]]
    checked: bool
    packed: Sample | None = None

    @property
    def file_name(self) -> str:
        suffix = "mcap" if self.name.startswith("mcap") else "db3"
        return f"bag.{suffix}{'.zstd' if self.packed else ''}"


def samples() -> list[Sample]:
    """Both storages, all compressions, with and without check sums, index and summary."""
    found = [
        mcap(f"mcap {name}{' crc' if crc else ''}", kind, crc=crc)
        for name, kind in (
            ("plain", CompressionType.NONE), ("lz4", CompressionType.LZ4),
            ("zstd", CompressionType.ZSTD),
        )
        for crc in (False, True)
    ]  # fmt: skip
    found.append(mcap("mcap unchunked", CompressionType.NONE, chunked=False))
    found.append(mcap("mcap unindexed", CompressionType.NONE, index=False))
    found.append(sqlite("sqlite 4096", 4096))
    found.append(sqlite("sqlite 1024", 1024))
    found.append(sqlite("sqlite zstd messages", 4096, pack=True))
    found.append(packed(mcap("mcap", CompressionType.NONE, crc=True)))
    return found


def rows(largest: int) -> list[Row]:
    """Messages of very different sizes that look like CDR and can be told by their bytes."""
    noise = np.random.default_rng(0)
    sizes = np.exp(noise.uniform(np.log(60), np.log(largest), MESSAGES)).astype(int)
    return [
        (TOPICS[i % 2], START_NS + i * 10**7, b"\0\1\0\0" + noise.bytes(int(size)))
        for i, size in enumerate(sizes)
    ]


# -------------------------------------------------------------------- MCAP
def mcap(
    name: str, kind: CompressionType, *, crc: bool = False, chunked: bool = True,
    index: bool = True,
) -> Sample:  # fmt: skip
    messages, file = rows(3000), io.BytesIO()
    writer = Writer(
        file, chunk_size=4000, compression=kind, enable_crcs=crc, use_chunking=chunked,
        index_types=IndexType.ALL if index else IndexType.NONE, use_statistics=index,
        use_summary_offsets=index, repeat_channels=index, repeat_schemas=index,
    )  # fmt: skip
    writer.start(profile="ros2", library="bench")
    schema = writer.register_schema(KIND, "ros2msg", b"string data")
    channels = {topic: writer.register_channel(topic, "cdr", schema) for topic in TOPICS}
    for topic, time_ns, payload in messages:
        writer.add_message(channels[topic], time_ns, payload, time_ns)
    writer.finish()
    data = file.getvalue()
    chunks = [(start, end) for opcode, start, end in _records(data) if opcode == 6]
    (summary,) = struct.unpack_from("<Q", data, len(data) - 28)
    # what declares the topics: the summary, or what stands before the first message
    declared = [(summary, len(data))] if index and not crc else []
    needs, touch = [], []
    for _, _, payload in messages:
        if not chunked:
            own = _own(data, payload)
            first = data.find(messages[0][2])
            needs.append([(MAGIC_BYTES, first), (own[0], own[1] + MESSAGE_HEAD), *declared])
            touch.append([(MAGIC_BYTES, first), own])
            continue
        chunk = next(span for span in chunks if payload in _contents(data, span))
        if crc or kind != CompressionType.NONE:
            needs.append([chunk, *declared])
            touch.append([chunk, *declared])
            continue
        own, sums = _own(data, payload), (chunk[0] + CRC_PLACE, chunk[0] + CRC_PLACE + 4)
        touch.append([own, *declared])
        if index:
            needs.append([own, sums, *declared])
        else:  # all before it in the chunk, and in the first one where the topics are declared
            first = chunks[0][0], data.find(messages[0][2])
            needs.append([first, (chunk[0], own[1] + MESSAGE_HEAD)])
            touch[-1].append(first)
    return Sample(name, data, messages, needs, touch, checked=crc)


def _records(data: bytes) -> list[tuple[int, int, int]]:
    """Opcode, start and end of each record of a sound file."""
    found, at = [], MAGIC_BYTES
    while at + HEAD <= len(data) - MAGIC_BYTES:
        opcode, length = struct.unpack_from("<BQ", data, at)
        found.append((opcode, at, at + HEAD + length))
        at += HEAD + length
    return found


def _contents(data: bytes, chunk: Span) -> bytes:
    at = chunk[0] + HEAD + 28
    (letters,) = struct.unpack_from("<I", data, at)
    name, raw = data[at + 4 : at + 4 + letters], data[at + 12 + letters : chunk[1]]
    if name == b"lz4":
        return bytes(lz4.frame.decompress(raw))
    return zstandard.ZstdDecompressor().decompress(raw) if name == b"zstd" else raw


def _own(data: bytes, payload: bytes) -> Span:
    place = data.find(payload)
    return place - MESSAGE_HEAD, place + len(payload)


# -------------------------------------------------------------------- SQLite
def sqlite(name: str, page_size: int, *, pack: bool = False) -> Sample:
    messages = rows(9000)
    base = sqlite3.connect(":memory:")
    base.execute(f"PRAGMA page_size={page_size}")
    base.executescript(SCHEMA)
    for number, topic in enumerate(TOPICS, 1):
        base.execute("INSERT INTO topics VALUES (?, ?, ?, 'cdr', '')", (number, topic, KIND))
    stored = [_packed(payload) if pack else payload for _, _, payload in messages]
    base.executemany(
        "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
        [(1 + TOPICS.index(m[0]), m[1], raw) for m, raw in zip(messages, stored, strict=True)],
    )
    base.commit()
    data = base.serialize()
    base.close()
    names = _page(data.rfind(f"/b{KIND}".encode()), page_size)
    pages = [[names, *_pages_of(data, raw, page_size)] for raw in stored]
    return Sample(name, data, messages, pages, pages, checked=False)


def _packed(payload: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(payload)


def _page(place: int, size: int) -> Span:
    start = place // size * size
    return start, start + size


def _pages_of(whole: bytes, payload: bytes, size: int) -> list[Span]:
    """The pages on which the bytes of a message lie, piece by piece."""
    found, at = [], 0
    while at < len(payload):
        for length in range(min(12, len(payload) - at), 0, -1):
            place = whole.find(payload[at : at + length])
            if place >= 0 and place // size == (place + length - 1) // size:
                break
        span = _page(place, size)
        end = min(len(payload) - at, span[1] - place)
        while whole[place : place + end] != payload[at : at + end]:
            end -= 1
        found.append(span)
        at += end
    return found


# -------------------------------------------------------------------- whole files
def packed(inner: Sample) -> Sample:
    """A file compressed as a whole: what is damaged may cost everything behind it."""
    data = zstandard.ZstdCompressor().compress(inner.data)
    whole = [[(0, len(data))]] * len(inner.rows)
    return Sample("mcap.zstd", data, inner.rows, whole, whole, inner.checked, packed=inner)


def write(folder: Path, sample: Sample, data: bytes) -> Path:
    path = folder / sample.file_name
    path.write_bytes(data)
    return path


def needed(sample: Sample, damage: Span) -> list[Row]:
    """The messages that have to be found although some bytes are damaged."""
    if sample.packed is not None and damage[1] >= len(sample.data):
        frame = zstandard.ZstdDecompressor().decompressobj()
        inside = len(frame.decompress(sample.data[: damage[0]]))
        return needed(sample.packed, (inside, len(sample.packed.data)))
    return [
        row
        for row, spans in zip(sample.rows, sample.needs, strict=True)
        if not any(_meet(span, damage) for span in spans)
    ]


def touched(sample: Sample, damage: Span) -> list[Row]:
    """The messages that may come out changed."""
    return [
        row
        for row, spans in zip(sample.rows, sample.touch, strict=True)
        if any(_meet(span, damage) for span in spans)
    ]


def _meet(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
