"""One MCAP file, written so that what has reached the disk can be read whatever happens next.

The ``mcap`` package writes through a stream it assumes can never fail. A recorder needs the
opposite: after a full disk the file must still end in a complete chunk and a summary. Hence the
chunk and file handling here; the records themselves are serialised by ``mcap.records``.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

MAGIC = b"\x89MCAP0\r\n"
_MESSAGE = struct.Struct("<BQHIQQ")  # opcode, length, channel, sequence, log time, publish time
_CHUNK = struct.Struct("<BQQQQIIQ")  # opcode, length, start, end, size, crc, "" length, data length
NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def encode(*records: McapRecord) -> bytes:
    """Serialise records one after the other."""
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    return bytes(builder.end())


@dataclass
class _Chunk:
    """Where a chunk lies in the file and what is in it."""

    offset: int
    index: ChunkIndex
    counts: dict[int, int]


@dataclass
class _Pending:
    """The chunk being filled, in memory."""

    data: bytearray = field(default_factory=bytearray)
    entries: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    start_ns: int = 2**63 - 1
    end_ns: int = 0


class McapWriter:
    """Appends messages in chunks; :meth:`close` writes index and summary.

    Args:
        path: must not exist.
        chunk_bytes: a chunk goes to disk once it holds this much.
        make_room: called once when the disk is full; frees a reserve (see ``bags.write``).
    """

    def __init__(
        self, path: Path, chunk_bytes: int = 1 << 20, make_room: Callable[[], None] | None = None
    ):
        self.path = path
        self.full = False
        self._chunk_bytes = chunk_bytes
        self._make_room = make_room
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._size = 0
        self._schemas: dict[str, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._chunks: list[_Chunk] = []
        self._pending = _Pending()
        self._append(MAGIC + encode(Header(profile="ros2", library="embodied_rl")))

    # ---------------------------------------------------------------- contents
    def add_channel(
        self,
        topic: str,
        kind: str,
        definition: str,
        metadata: dict[str, str],
        *,
        encoding: str = "ros2msg",
        serialization: str = "cdr",
    ) -> int:
        """Declare a topic of ROS type ``kind``; ``definition`` is a text in ``encoding``."""
        schema = self._schemas.get(kind)
        if schema is None:
            number = len(self._schemas) + 1
            schema = Schema(id=number, data=definition.encode(), encoding=encoding, name=kind)
            self._schemas[kind] = schema
            self._pending.data += encode(schema)
        channel = Channel(
            id=len(self._channels) + 1,
            topic=topic,
            message_encoding=serialization,
            metadata=metadata,
            schema_id=schema.id,
        )
        self._channels[channel.id] = channel
        self._pending.data += encode(channel)
        return channel.id

    def write(self, channel: int, log_time_ns: int, data: bytes | memoryview) -> None:
        """Append one serialised message.

        Raises:
            OSError: the chunk that this message completed could not be written.
        """
        pending = self._pending
        pending.entries.setdefault(channel, []).append((log_time_ns, len(pending.data)))
        pending.start_ns = min(pending.start_ns, log_time_ns)
        pending.end_ns = max(pending.end_ns, log_time_ns)
        pending.data += _MESSAGE.pack(
            Opcode.MESSAGE, 22 + len(data), channel, 0, log_time_ns, log_time_ns
        )
        pending.data += data
        if len(pending.data) >= self._chunk_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the pending chunk, if it holds messages, so that ``kill -9`` cannot take it.

        Raises:
            OSError: no room; the file still ends with the last complete chunk.
        """
        pending = self._pending
        if not pending.entries:
            return
        self._pending = _Pending()
        size = len(pending.data)
        head = _CHUNK.pack(
            Opcode.CHUNK, 40 + size, pending.start_ns, pending.end_ns, size,
            zlib.crc32(pending.data), 0, size,
        )  # fmt: skip
        offset, length = self._size, len(head) + size
        index_offsets, indexes = {}, bytearray()
        for channel, entries in pending.entries.items():
            index_offsets[channel] = offset + length + len(indexes)
            indexes += encode(MessageIndex(channel_id=channel, records=entries))
        self._append(head, pending.data, indexes)
        index = ChunkIndex(
            chunk_length=length,
            chunk_start_offset=offset,
            compression="",
            compressed_size=size,
            message_end_time=pending.end_ns,
            message_index_length=len(indexes),
            message_index_offsets=index_offsets,
            message_start_time=pending.start_ns,
            uncompressed_size=size,
        )
        counts = {channel: len(entries) for channel, entries in pending.entries.items()}
        self._chunks.append(_Chunk(offset, index, counts))

    # ---------------------------------------------------------------- figures
    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._size

    def counts(self) -> dict[int, int]:
        """Messages on disk by channel."""
        total = dict.fromkeys(self._channels, 0)
        for chunk in self._chunks:
            for channel, count in chunk.counts.items():
                total[channel] += count
        return total

    def span_ns(self) -> tuple[int, int]:
        """First and last log time on disk, (0, 0) without messages."""
        if not self._chunks:
            return 0, 0
        return (
            min(chunk.index.message_start_time for chunk in self._chunks),
            max(chunk.index.message_end_time for chunk in self._chunks),
        )

    # ---------------------------------------------------------------- end
    def close(self, describe: Callable[[], str]) -> None:
        """Write the last chunk, the summary and the footer, and sync to disk.

        ``describe()`` gives the rosbag2 metadata text from :meth:`counts` and :meth:`span_ns`. On
        a full disk the last chunks give way to the summary, so that the file is complete.

        Raises:
            OSError: it did not fit; the chunks that are there remain.
        """
        try:
            self.flush()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        try:
            self._append(self._ending(describe()))
        except OSError as error:
            if error.errno not in NO_ROOM or not self._give_way(len(self._ending(describe()))):
                raise
            self._append(self._ending(describe()))
        os.fsync(self._file)
        self.abandon()

    def _give_way(self, size: int) -> bool:
        """Drop as many chunks from the end as hold ``size`` bytes; False if that is all of them."""
        for place in range(len(self._chunks) - 1, 0, -1):
            offset = self._chunks[place].offset
            if self._size - offset >= size:
                del self._chunks[place:]
                self._cut(offset)
                return True
        return False

    def abandon(self) -> None:
        """Close the file descriptor and leave the file as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _ending(self, description: str) -> bytes:
        metadata = encode(Metadata(name="rosbag2", metadata={"serialized_metadata": description}))
        metadata_offset = self._size
        data = metadata + encode(DataEnd(0))
        summary_start = self._size + len(data)
        groups: list[tuple[Opcode, list[McapRecord]]] = [
            (Opcode.SCHEMA, list(self._schemas.values())),
            (Opcode.CHANNEL, list(self._channels.values())),
            (Opcode.STATISTICS, [self._statistics()]),
            (Opcode.CHUNK_INDEX, [chunk.index for chunk in self._chunks]),
            (Opcode.METADATA_INDEX, [MetadataIndex(metadata_offset, len(metadata), "rosbag2")]),
        ]
        summary, offsets = b"", []
        for opcode, records in groups:
            body = encode(*records)
            if body:
                offsets.append(SummaryOffset(opcode, summary_start + len(summary), len(body)))
            summary += body
        offset_start = summary_start + len(summary)
        summary += encode(*offsets)
        footer = struct.pack("<BQQQ", Opcode.FOOTER, 20, summary_start, offset_start)
        crc = zlib.crc32(footer, zlib.crc32(summary))
        return data + summary + encode(Footer(summary_start, offset_start, crc)) + MAGIC

    def _statistics(self) -> Statistics:
        counts, (start_ns, end_ns) = self.counts(), self.span_ns()
        return Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts=counts,
            chunk_count=len(self._chunks),
            message_count=sum(counts.values()),
            message_end_time=end_ns,
            message_start_time=start_ns,
            metadata_count=1,
            schema_count=len(self._schemas),
        )

    # ---------------------------------------------------------------- file
    def _append(self, *parts: bytes | bytearray) -> None:
        """Write all parts or none: on failure the file is cut back to where it ended."""
        start = self._size
        try:
            for part in parts:
                self._put(memoryview(part))
        except OSError:
            self._cut(start)
            raise

    def _put(self, part: memoryview) -> None:
        while part:
            try:
                done = os.write(self._file, part)
            except OSError as error:
                if error.errno not in NO_ROOM or self.full:
                    raise
                self.full = True
                if self._make_room is not None:
                    self._make_room()
                continue
            part = part[done:]
            self._size += done

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)
        self._size = size
