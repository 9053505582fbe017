"""MCAP files read in recording order, whole or damaged.

A sound file is read through its summary: each chunk in one read, its messages as views into it. A
file without a summary (the recorder was killed) is walked from the front, and what can be saved
of a chunk that was cut in the middle is saved too.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Schema, Statistics

from embodied_rl.bags.mcap_writer import MAGIC
from embodied_rl.bags.report import Report
from embodied_rl.bags.storage import Message, TopicInfo, Unreadable

_HEAD = struct.Struct("<BQ")  # opcode, length of the record's body
_FOOTER = struct.Struct("<BQQQI")
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQII")  # start, end, uncompressed size, crc, length of compression name
_SIZE = struct.Struct("<Q")
_READ_AHEAD = 2  # chunks
_READ_AHEAD_FROM = 16 << 20  # bytes of a file; a thread does not pay for less
_SPOILT = (struct.error, UnicodeDecodeError, McapError, ValueError)


class _Buffers:
    """Memory for chunks, used again once nobody looks at it any more.

    Fresh memory for every chunk costs more than reading it: the kernel has to clear each page.
    """

    def __init__(self) -> None:
        self._pool: list[bytearray] = []

    def get(self, size: int) -> bytearray:
        """At least ``size`` bytes that no view refers to."""
        for i, buffer in enumerate(self._pool):
            try:
                buffer.append(0)  # refused while a message still refers to the contents
                buffer.pop()
            except BufferError:
                continue
            if len(buffer) < size:
                buffer = self._pool[i] = bytearray(size)
            return buffer
        buffer = bytearray(size)
        if len(self._pool) < 8:
            self._pool.append(buffer)
        return buffer


class _Block(NamedTuple):
    """A run of records: ``data[start:end]``, the contents of a chunk or one top-level record."""

    data: bytes | memoryview
    start: int
    end: int


class McapFile:
    """One MCAP file. Findings go to ``report``, under the bag's name.

    Raises:
        Unreadable: not an MCAP file.
    """

    def __init__(self, path: Path, report: Report):
        self.path, self._report = path, report
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._counts: Counter[int] = Counter()
        self._indexes: list[ChunkIndex] = []
        self._buffers = _Buffers()
        self._noted: set[tuple[str, str]] = set()
        self.span_ns = (0, 0)
        if os.pread(self._file, len(MAGIC), 0) != MAGIC:
            self.close()
            seen = "an empty file" if self._size == 0 else "other bytes at its start"
            raise Unreadable("an MCAP file", f"{seen} ({path.name})")
        if not self._read_summary():
            self._survey()

    @property
    def topics(self) -> list[TopicInfo]:  # type: ignore[override]
        found = []
        for number, channel in self._channels.items():
            schema = self._schemas.get(channel.schema_id)
            found.append(
                TopicInfo(
                    name=channel.topic,
                    type=schema.name if schema else "",
                    count=self._counts[number],
                    encoding=schema.encoding if schema else "",
                    definition=schema.data.decode("utf-8", "replace") if schema else "",
                    serialization=channel.message_encoding,
                )
            )
        return found

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        wanted = {n: c.topic for n, c in self._channels.items() if c.topic in topics}
        unpack, offset_data = _MESSAGE.unpack_from, _MESSAGE.size
        for block in self._blocks(set(wanted)):
            view = memoryview(block.data)
            for opcode, start, end in _records(*block):
                if opcode != Opcode.MESSAGE or end - start < offset_data:
                    continue
                channel, _, log_time_ns, _ = unpack(block.data, start)
                topic = wanted.get(channel)
                if topic is not None:
                    yield Message(topic, log_time_ns, view[start + offset_data : end])
            del view, block

    # ---------------------------------------------------------------- topics
    def _read_summary(self) -> bool:
        """Topics, counts and chunk positions from the end of the file, if it has a sound end."""
        tail = os.pread(self._file, 37, max(self._size - 37, 0))
        if len(tail) < 37 or tail[29:] != MAGIC or _HEAD.unpack_from(tail) != (Opcode.FOOTER, 20):
            self._note("a closed MCAP file", f"no footer after {self._size} bytes")
            return False
        _, _, start, _, crc = _FOOTER.unpack_from(tail)
        if start == 0:
            return False  # legal: a file written without a summary
        data = os.pread(self._file, self._size - 37 - start, start) if start < self._size else b""
        if crc and zlib.crc32(tail[:25], zlib.crc32(data)) != crc:
            self._note("a sound summary", "a checksum that does not match")
            return False
        statistics = None
        try:
            for opcode, begin, end in _records(data, 0, len(data)):
                record = self._declare(opcode, data[begin:end])
                if isinstance(record, Statistics):
                    statistics = record
        except _SPOILT as error:
            self._note("a sound summary", f"a record that cannot be read ({error})")
            return False
        if statistics is None or any(
            channel.schema_id not in self._schemas for channel in self._channels.values()
        ):
            return False  # legal too: the summary may leave out what the data section holds
        if not self._indexes and statistics.message_count:
            return False
        self._counts.update(statistics.channel_message_counts)
        self.span_ns = (statistics.message_start_time, statistics.message_end_time)
        self._indexes.sort(key=lambda index: index.chunk_start_offset)
        return True

    def _survey(self) -> None:
        """Topics, counts and span by reading every record."""
        self._indexes.clear()
        first, last = 2**63, 0
        for block in self._blocks():
            for opcode, start, end in _records(*block):
                if opcode == Opcode.MESSAGE and end - start >= _MESSAGE.size:
                    channel, _, log_time_ns, _ = _MESSAGE.unpack_from(block.data, start)
                    self._counts[channel] += 1
                    first, last = min(first, log_time_ns), max(last, log_time_ns)
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    self._declare_or_note(opcode, bytes(block.data[start:end]))
        self.span_ns = (first, last) if self._counts else (0, 0)

    def _declare(self, opcode: int, body: bytes) -> Schema | Channel | Statistics | None:
        stream = ReadDataStream(BytesIO(body))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas[schema.id] = schema
            return schema
        if opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            self._channels[channel.id] = channel
            return channel
        if opcode == Opcode.CHUNK_INDEX:
            self._indexes.append(ChunkIndex.read(stream))
        if opcode == Opcode.STATISTICS:
            return Statistics.read(stream)
        return None

    def _declare_or_note(self, opcode: int, body: bytes) -> None:
        try:
            self._declare(opcode, body)
        except _SPOILT as error:
            self._note("a topic declaration", f"a record that cannot be read ({error})")

    # ---------------------------------------------------------------- blocks
    def _blocks(self, channels: set[int] | None = None) -> Iterator[_Block]:
        """Decompressed chunks, and top-level records as blocks of their own.

        Chunks of which the index says that they hold none of ``channels`` are left out.
        """
        if self._indexes:
            indexes = self._indexes
            if channels is not None:
                indexes = [
                    index
                    for index in indexes
                    # without message indexes the summary cannot tell
                    if not index.message_index_offsets
                    or not channels.isdisjoint(index.message_index_offsets)
                ]
            yield from self._indexed(indexes)
            return
        offset = len(MAGIC)
        while offset < self._size:
            head = os.pread(self._file, _HEAD.size, offset)
            if len(head) < _HEAD.size:
                self._note_cut(offset)
                return
            opcode, length = _HEAD.unpack(head)
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return
            end = offset + _HEAD.size + length
            if opcode == 0 or opcode > 0x80:
                self._note("MCAP records", f"opcode {opcode} at byte {offset}; the rest is lost")
                return
            if end > self._size:
                self._note_cut(offset)
                length = self._size - offset - _HEAD.size
            if opcode == Opcode.CHUNK:
                body = os.pread(self._file, length, offset + _HEAD.size)
                yield from self._chunk(body, offset, whole=end <= self._size)
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE) and end <= self._size:
                record = os.pread(self._file, _HEAD.size + length, offset)
                yield _Block(record, 0, len(record))
            offset = end

    def _indexed(self, indexes: list[ChunkIndex]) -> Iterator[_Block]:
        """Chunks by the index; of a large file the next one is read and checked meanwhile."""
        if self._size < _READ_AHEAD_FROM or len(indexes) < 2:
            for index in indexes:
                yield from self._load(index)
            return
        with ThreadPoolExecutor(1, "read_ahead") as thread:
            # reading, checksum and decompression leave the interpreter to the consumer
            coming: deque[Future[list[_Block]]] = deque()
            for index in indexes:
                coming.append(thread.submit(self._load, index))
                if len(coming) > _READ_AHEAD:
                    yield from coming.popleft().result()
            while coming:
                yield from coming.popleft().result()

    def _load(self, index: ChunkIndex) -> list[_Block]:
        """The contents of one chunk; empty if it is damaged."""
        offset = index.chunk_start_offset
        # The block holds a view from here on, so the memory is not given out again meanwhile.
        record = memoryview(self._buffers.get(index.chunk_length))[: index.chunk_length]
        done = os.preadv(self._file, [record], offset)
        if done < index.chunk_length or record[0] != Opcode.CHUNK:
            self._note("a chunk where the index says", f"something else at byte {offset}")
            return []
        return list(self._chunk(record, offset, whole=True, start=_HEAD.size))

    def _chunk(
        self, body: bytes | memoryview, offset: int, *, whole: bool, start: int = 0
    ) -> Iterator[_Block]:
        """The records of one chunk; of a chunk that is cut, those that are complete."""
        try:
            _, _, size, crc, name_length = _CHUNK.unpack_from(body, start)
            start += _CHUNK.size
            name = bytes(body[start : start + name_length]).decode()
            start += name_length
            (length,) = _SIZE.unpack_from(body, start)
            start += _SIZE.size
            if name:
                body = _decompress(name, body[start : start + length], size, whole)
                start, length = 0, len(body)
        except (*_SPOILT, zstandard.ZstdError, RuntimeError, EOFError) as error:
            if whole:
                self._note("a readable chunk", f"damage at byte {offset} ({error})")
            return
        # An uncompressed chunk is used where it lies: cutting off its frame would copy it.
        block = _Block(body, start, min(start + length, len(body)))
        if whole and not _matches(block, size, crc):
            self._note("a chunk that matches its checksum", f"damage at byte {offset}")
            return
        yield block

    # ---------------------------------------------------------------- findings
    def _note_cut(self, offset: int) -> None:
        self._note(
            "whole records to the end of the file",
            f"a record cut at byte {offset} of {self._size} in {self.path.name}",
        )

    def _note(self, expected: str, seen: str) -> None:
        # the file is walked more than once; a finding is one all the same
        if (expected, seen) not in self._noted:
            self._noted.add((expected, seen))
            self._report.add("", expected, seen)


def _records(data: bytes | memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """``(opcode, start, end)`` of the body of every complete record in ``data[start:end]``."""
    unpack, head = _HEAD.unpack_from, _HEAD.size
    while start + head <= end:
        opcode, length = unpack(data, start)
        start += head
        if start + length > end:
            return
        yield opcode, start, start + length
        start += length


def _matches(block: _Block, size: int, crc: int) -> bool:
    """Whether a chunk has the size and, where it is given, the checksum that it declares."""
    if block.end - block.start != size:
        return False
    return crc == 0 or zlib.crc32(memoryview(block.data)[block.start : block.end]) == crc


def _decompress(name: str, data: bytes | memoryview, size: int, whole: bool) -> bytes:
    """Contents of a chunk; of a cut one as much as the compressed bytes give."""
    if name == "zstd":
        if whole:
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if name == "lz4":
        if whole:
            return bytes(lz4.frame.decompress(data))
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
    raise ValueError(f"unknown compression '{name}'")
