"""MCAP files read in recording order, whole or damaged.

A sound file is read through its summary: each chunk in one read, its messages as views into it.
What the summary does not list (messages beside the chunks, chunks that it lacks) is found between
them. A file without a summary (the recorder was killed) is walked from the front, and what can be
saved of a chunk that was cut or damaged is saved too. ``mcap_records.py`` knows the records.
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

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Schema, Statistics

from embodied_rl.bags import mcap_records as parts
from embodied_rl.bags.compression import SPOILT, TooMuch, unpack_chunk
from embodied_rl.bags.mcap_records import HEAD, LAST_TIME_NS, MESSAGE, ChunkHead, ChunkPlace, Record
from embodied_rl.bags.mcap_walk import TopLevel, Walk
from embodied_rl.bags.mcap_writer import MAGIC
from embodied_rl.bags.report import Report
from embodied_rl.bags.storage import (
    LARGEST_CHUNK,
    LARGEST_MESSAGE,
    Message,
    TopicInfo,
    Unreadable,
)
from embodied_rl.core.schema import plain

_READ_AHEAD = 2  # chunks
_READ_AHEAD_FROM = 16 << 20  # bytes of a file; a thread does not pay for less
_READ_AHEAD_UP_TO = 32 << 20  # bytes of a chunk; larger ones would fill the memory
_LARGEST_SUMMARY = 64 << 20  # bytes; a larger one is not read, the file is walked instead
_MISFIT = 16 << 20  # bytes that a chunk with a wrong size may have in any case
_LARGEST_INDEX = 16 << 20  # bytes of the message indexes behind one chunk
_SPOILT = (struct.error, UnicodeDecodeError, McapError, ValueError, OverflowError)


class _Block(NamedTuple):
    """Memory, and the records in it: the contents of a chunk, or one top-level record."""

    data: bytes | bytearray | memoryview
    records: list[Record]


class McapFile:
    """One MCAP file. Findings go to ``report``, under the bag's name.

    Raises:
        Unreadable: not an MCAP file.
    """

    def __init__(self, path: Path, report: Report):
        self.path, self._report = path, report
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = self._end = os.fstat(self._file).st_size
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._declared: dict[tuple[int, int], bytes] = {}
        self._counts: Counter[int] = Counter()
        self._places: dict[int, ChunkPlace] = {}
        self._promised = 0  # messages after statistics without an index of chunks
        self._buffers = parts.Buffers()
        self._noted: set[str] = set()
        self._unreadable: set[int] = set()  # chunks that do not unpack
        self._misfits = 0  # chunks of another size than they claim
        self._whole_sum: bool | None = None  # a check sum over all data is there, and right
        self.span_ns = (0, 0)
        try:
            self._check_magic()
        except Unreadable:
            self.close()
            raise
        if not self._read_summary():
            self._survey()

    def _check_magic(self) -> None:
        """A file is MCAP by its start, or by its end where the start is damaged.

        Raises:
            Unreadable: neither looks like it.
        """
        if os.pread(self._file, len(MAGIC), 0) == MAGIC:
            return
        end = os.pread(self._file, len(MAGIC), max(self._size - len(MAGIC), 0))
        seen = "an empty file" if self._size == 0 else "other bytes at its start"
        if end != MAGIC:
            raise Unreadable("an MCAP file", f"{seen} ({self.path.name})")
        self._note("an MCAP file", seen)

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
                    qos=channel.metadata.get("offered_qos_profiles", ""),
                    type_hash=channel.metadata.get("topic_type_hash", ""),
                )
            )
        return found

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        wanted = {n: c.topic for n, c in self._channels.items() if c.topic in topics}
        unpack, offset_data = MESSAGE.unpack_from, MESSAGE.size
        unknown = late = 0
        for block in self._blocks(set(wanted)):
            view = memoryview(block.data)
            for opcode, start, end in block.records:
                if opcode != Opcode.MESSAGE or end - start < offset_data:
                    self._check_declaration(opcode, view[start:end])
                    continue
                channel, _, log_time_ns, _ = unpack(block.data, start)
                topic = wanted.get(channel)
                if topic is None:
                    unknown += channel not in self._channels
                elif log_time_ns > LAST_TIME_NS:
                    late += 1
                else:
                    yield Message(topic, log_time_ns, view[start + offset_data : end])
            del view, block
        self._note_strays(unknown, late)

    # ---------------------------------------------------------------- topics
    def _read_summary(self) -> bool:
        """Topics, counts and chunk positions from the end of the file, if it has a sound end."""
        tail = os.pread(self._file, 37, max(self._size - 37, 0))
        if len(tail) < 37 or tail[29:] != MAGIC or HEAD.unpack_from(tail) != (Opcode.FOOTER, 20):
            self._note("a closed MCAP file", f"no footer after {self._size} bytes")
            return False
        _, _, start, _, crc = parts.FOOTER.unpack_from(tail)
        if start == 0:
            return False  # legal: a file written without a summary
        size = self._size - 37 - start
        if not 0 <= size <= _LARGEST_SUMMARY:
            self._note("a sound summary", f"one at byte {start} of {self._size}")
            return False
        data = os.pread(self._file, size, start)
        if crc and zlib.crc32(tail[:25], zlib.crc32(data)) != crc:
            self._note("a sound summary", "a checksum that does not match")
            return False
        try:
            statistics = self._parse_summary(data, start)
        except _SPOILT as error:
            self._note("a sound summary", f"a record that cannot be read ({plain(str(error))})")
            self._forget()
            return False
        if (
            statistics is None  # legal too: the summary may leave out what the data hold
            or any(
                c.schema_id and c.schema_id not in self._schemas for c in self._channels.values()
            )
            or (not self._places and statistics.message_count)
        ):
            self._promised = statistics.message_count if statistics else 0
            return False
        if not statistics.message_start_time <= statistics.message_end_time <= LAST_TIME_NS:
            self._note("log times below 2^63 ns", f"{statistics.message_end_time} in the summary")
            self._forget()
            return False
        strange = self._undeclared(statistics)
        if strange is not None:
            self._note("a sound summary", f"one that counts channel {strange}, but declares none")
            self._forget()
            return False
        self._end = start
        self._counts.update(statistics.channel_message_counts)
        self.span_ns = (statistics.message_start_time, statistics.message_end_time)
        return True

    def _parse_summary(self, data: bytes, end: int) -> Statistics | None:
        statistics, position = None, 0
        while position < len(data):
            opcode, length = HEAD.unpack_from(data, position)
            position += HEAD.size
            if opcode == 0 or length > len(data) - position:
                raise ValueError(f"opcode {opcode} with {length} bytes")
            body = data[position : position + length]
            position += length
            if opcode == Opcode.CHUNK_INDEX:
                try:
                    place = parts.parse_chunk_place(body, end)
                except _SPOILT as error:
                    self._note("an index of sound chunks", plain(str(error)))
                    continue
                self._places[place.offset] = place
            elif opcode == Opcode.STATISTICS:
                statistics = Statistics.read(ReadDataStream(BytesIO(body)))
            else:
                self._declare(opcode, body)
        return statistics

    def _undeclared(self, statistics: Statistics) -> int | None:
        """A channel that statistics or indexes count, and the summary does not declare."""
        counted = {n for n, count in statistics.channel_message_counts.items() if count}
        for place in self._places.values():
            if place.channels is not None:
                counted.update(place.channels.tolist())
        return min(counted - self._channels.keys(), default=None)

    def _forget(self) -> None:
        """Nothing of an unsound summary is believed."""
        for known in (self._schemas, self._channels, self._declared, self._places):
            known.clear()  # type: ignore[attr-defined]

    def _survey(self) -> None:
        """Topics, counts and span by reading every record."""
        first, last, late = LAST_TIME_NS, 0, 0
        for block in self._blocks():
            for opcode, start, end in block.records:
                if opcode == Opcode.MESSAGE and end - start >= MESSAGE.size:
                    channel, _, log_time_ns, _ = MESSAGE.unpack_from(block.data, start)
                    if log_time_ns <= LAST_TIME_NS:
                        self._counts[channel] += 1
                        first, last = min(first, log_time_ns), max(last, log_time_ns)
                    else:
                        late += 1
                else:
                    self._check_declaration(opcode, block.data[start:end])
        self.span_ns = (first, last) if self._counts else (0, 0)
        found = sum(self._counts.values())
        self._note_strays(sum(n for c, n in self._counts.items() if c not in self._channels), late)
        if found < self._promised:
            self._note(f"{self._promised} messages after the file's statistics", f"{found}")

    def _declare(self, opcode: int, body: bytes) -> None:
        """Take a schema or channel; the first declaration of a number counts.

        Raises:
            _SPOILT: it cannot be read.
        """
        if opcode not in (Opcode.SCHEMA, Opcode.CHANNEL):
            return
        key = (opcode, struct.unpack_from("<H", body)[0])
        known = self._declared.get(key)
        if known is not None:
            if known != body and opcode == Opcode.CHANNEL:
                self._note("one declaration of a channel", f"another of channel {key[1]}")
            return
        stream = ReadDataStream(BytesIO(body))
        if opcode == Opcode.SCHEMA:
            self._schemas[key[1]] = Schema.read(stream)
        else:
            self._channels[key[1]] = Channel.read(stream)
        self._declared[key] = body

    def _check_declaration(self, opcode: int, body: bytes | memoryview) -> None:
        try:
            if opcode == Opcode.MESSAGE:
                raise ValueError(f"a message of {len(body)} bytes")
            self._declare(opcode, bytes(body))
        except _SPOILT as error:
            self._note("sound records", f"one that cannot be read ({plain(str(error))})")

    # ---------------------------------------------------------------- blocks
    def _blocks(self, channels: set[int] | None = None) -> Iterator[_Block]:
        """Decompressed chunks, and top-level records as blocks of their own.

        Chunks of which the index says that they hold none of ``channels`` are left out. Of a
        large file the next chunk is read and checked meanwhile.
        """
        walk = Walk(self._file, self._size, self._end, self._places, self._channels, self._note)
        records = (record for record in walk if _may_hold(record, channels))
        largest = max((max(p.length, p.size) for p in self._places.values()), default=0)
        if self._size < _READ_AHEAD_FROM or not 0 < largest <= _READ_AHEAD_UP_TO:
            for record in records:
                yield from self._load(record)
        else:
            yield from self._read_ahead(records)

    def _read_ahead(self, records: Iterator[TopLevel]) -> Iterator[_Block]:
        with ThreadPoolExecutor(1, "read_ahead") as thread:
            # reading, checksum and decompression leave the interpreter to the consumer
            coming: deque[Future[list[_Block]]] = deque()
            for record in records:
                coming.append(thread.submit(lambda r: list(self._load(r)), record))
                if len(coming) > _READ_AHEAD:
                    yield from coming.popleft().result()
            while coming:
                yield from coming.popleft().result()

    def _load(self, record: TopLevel) -> Iterator[_Block]:
        """The records of a chunk, or one record that stands by itself; nothing of damaged ones."""
        if record.opcode == Opcode.CHUNK:
            assert record.head is not None
            yield from self._chunk(record, record.head)
        elif record.opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE):
            if record.length > LARGEST_MESSAGE:
                self._note_large(f"a record of {record.length}", record.offset)
                return
            data = os.pread(self._file, record.length, record.offset)
            if record.opcode == Opcode.MESSAGE:
                self._remark_unchecked()
            yield _Block(data, [(record.opcode, HEAD.size, len(data))])

    def _chunk(self, record: TopLevel, head: ChunkHead) -> Iterator[_Block]:
        offset = record.offset
        if offset in self._unreadable:
            return
        if not head.compression and head.stored > LARGEST_CHUNK:
            yield from self._in_place(record, head)
            return
        if head.stored > LARGEST_CHUNK:
            self._note_large(f"a compressed chunk of {head.stored}", offset)
            return
        # The block holds a view from here on, so the memory is not given out again meanwhile.
        data = memoryview(self._buffers.get(record.length))[: record.length]
        try:
            done = os.preadv(self._file, [data], offset)
        except OSError as error:  # of a failing medium the other chunks may be readable
            self._note("a readable medium", f"{error.strerror} at byte {offset}")
            return
        body: bytes | bytearray | memoryview = data[:done]
        start = head.start
        if head.compression:
            try:
                body = self._decompressed(head, body[start : head.end], record)
            except (*_SPOILT, *SPOILT) as error:
                self._unreadable.add(offset)
                if record.whole:
                    seen = f"damage at byte {offset} ({plain(str(error))})"
                    self._note("a readable chunk", seen)
                return
            start = 0
        # An uncompressed chunk is used where it lies: cutting off its frame would copy it.
        end = len(body)
        if not head.crc:
            self._remark_unchecked()
        elif record.whole and zlib.crc32(memoryview(body)[start:end]) != head.crc:
            self._note("a chunk that matches its checksum", f"damage at byte {offset}")
            return
        first = start

        def index() -> list[parts.IndexEntry]:
            entries = self._message_index(offset + head.end) if record.whole else []
            left = [entry._replace(offset=entry.offset + first - start) for entry in entries]
            return [entry for entry in left if entry.offset >= 0]

        while start < end:
            found = parts.contents(
                body, start, end, (head.first_ns, head.last_ns), index,
                verified=record.whole and head.crc > 0,
            )  # fmt: skip
            if found.fault and record.whole:
                self._note("whole records in a chunk", f"{found.fault} in that at byte {offset}")
            yield _Block(body, found.records)
            start = found.going_on

    def _decompressed(
        self, head: ChunkHead, data: memoryview, record: TopLevel
    ) -> bytes | bytearray:
        """Contents of a chunk; of a cut one as much as the compressed bytes give.

        Raises:
            SPOILT: damaged, or too large.
        """
        if not record.whole:
            return unpack_chunk(head.compression, data, min(head.size, LARGEST_CHUNK))
        wrong = ""
        try:
            body = unpack_chunk(head.compression, data, head.size)
            if len(body) == head.size:
                return body
            wrong = f"{len(body)} bytes where {head.size} are claimed"
        except TooMuch as error:
            wrong = str(error)
        # The claim may be what is damaged. Not again and again: each time may cost a bomb's memory.
        self._misfits += 1
        if self._misfits > 8:
            raise ValueError(wrong)
        body = unpack_chunk(head.compression, data, min(_MISFIT + 8 * len(data), LARGEST_CHUNK))
        sound = (
            zlib.crc32(body) == head.crc
            if head.crc
            else not parts.contents(body, 0, len(body), (0, LAST_TIME_NS), list).fault
        )
        if not sound:
            raise ValueError(wrong)
        self._note("a chunk of the size it claims", f"{wrong}, at byte {record.offset}")
        return body

    def _in_place(self, record: TopLevel, head: ChunkHead) -> Iterator[_Block]:
        """The records of a chunk that is larger than what is read into memory at once."""
        start = record.offset + head.start
        end = min(record.offset + head.end, self._size)
        found, position = [], start
        while position + HEAD.size <= end:
            opcode, length = HEAD.unpack(os.pread(self._file, HEAD.size, position))
            stop = position + HEAD.size + length
            if not parts.is_record(opcode, length, end - position - HEAD.size):
                break
            found.append(TopLevel(position, opcode, stop - position))
            position = stop
        if position < end and record.whole:
            seen = f"{end - position} bytes that are no records in that at byte {record.offset}"
            self._note("whole records in a chunk", seen)
        if position == end and head.crc and self._sum(start, end) != head.crc:
            self._note("a chunk that matches its checksum", f"damage at byte {record.offset}")
            return
        if not head.crc:
            self._remark_unchecked()
        for inner in found:
            if inner.opcode != Opcode.CHUNK:
                yield from self._load(inner)

    def _message_index(self, offset: int) -> list[parts.IndexEntry]:
        """What the records behind a chunk say about where its messages begin."""
        found: list[parts.IndexEntry] = []
        end = offset + _LARGEST_INDEX
        while offset < end:
            head = os.pread(self._file, HEAD.size, offset)
            if len(head) < HEAD.size:
                break
            opcode, length = HEAD.unpack(head)
            if opcode != Opcode.MESSAGE_INDEX or length > end - offset:
                break
            body = os.pread(self._file, length, offset + HEAD.size)
            found += parts.parse_message_index(body)
            offset += HEAD.size + length
        return found

    # ---------------------------------------------------------------- check sums
    def _remark_unchecked(self) -> None:
        """Say that data have no check sum, unless there is one over the whole file."""
        if self._whole_sum is None:
            self._whole_sum = self._verify_whole_sum()
        if not self._whole_sum:
            name = self.path.name
            self._report.remark(f"{name}: data without check sums, changed values go unseen")

    def _verify_whole_sum(self) -> bool:
        """Whether there is a sum over all data, and a right one."""
        tail = os.pread(self._file, 37, max(self._size - 37, 0))
        if len(tail) < 37 or HEAD.unpack_from(tail) != (Opcode.FOOTER, 20):
            return False
        _, _, start, _, _ = parts.FOOTER.unpack_from(tail)
        data_end = (start or self._size - 37) - HEAD.size - 4
        if not 0 <= data_end < self._size:
            return False
        record = os.pread(self._file, HEAD.size + 4, data_end)
        if len(record) < HEAD.size + 4 or HEAD.unpack_from(record) != (Opcode.DATA_END, 4):
            return False
        (crc,) = struct.unpack_from("<I", record, HEAD.size)
        if crc and self._sum(0, data_end) != crc:
            self._note("data that match their checksum", "damage somewhere")
            return False
        return bool(crc)

    def _sum(self, start: int, end: int) -> int:
        crc = 0
        while start < end:
            data = os.pread(self._file, min(1 << 20, end - start), start)
            if not data:
                break
            crc, start = zlib.crc32(data, crc), start + len(data)
        return crc

    # ---------------------------------------------------------------- findings
    def _note_large(self, what: str, offset: int) -> None:
        limit = f"at most {LARGEST_CHUNK >> 20} MiB at once"
        self._note(limit, f"{what} bytes at byte {offset}")

    def _note_strays(self, unknown: int, late: int) -> None:
        if unknown:
            self._note("messages of declared channels", f"{unknown} of others", once=True)
        if late:
            self._note("log times below 2^63 ns", f"{late} above", once=True)

    def _note(self, expected: str, seen: str, *, once: bool = False) -> None:
        # the file is walked more than once; a finding is one all the same
        key = expected if once else f"{expected}, {seen}"
        if key not in self._noted:
            self._noted.add(key)
            self._report.add("", expected, f"{seen} in {self.path.name}")


def _may_hold(record: TopLevel, channels: set[int] | None) -> bool:
    """Whether a record may be one of ``channels`` (None: any), or declare one."""
    if channels is None or record.place is None or record.place.channels is None:
        return True
    return bool(np.isin(record.place.channels, list(channels)).any())
