"""Parts of an MCAP file: record heads, chunk heads, chunk indexes, and the contents of chunks.

Every length is held against what is there before anything is allocated for it. The format:
https://mcap.dev/spec
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mcap.opcode import Opcode

from embodied_rl.bags.storage import LARGEST_CHUNK

HEAD = struct.Struct("<BQ")  # opcode, length of the record's body
FOOTER = struct.Struct("<BQQQI")
MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQII")  # start, end, uncompressed size, crc, length of compression name
_CHUNK_INDEX = struct.Struct("<QQQQI")  # start, end, offset, length, bytes of message indexes
_SIZE = struct.Struct("<Q")
_NAMES = ("", "lz4", "zstd")
CHUNK_HEAD = HEAD.size + _CHUNK.size + 4 + _SIZE.size  # bytes, at most
LAST_TIME_NS = 2**63 - 1
MOST_RECORDS = 500_000  # at once: a list of them takes several times their memory
_FAR_NS = 3600 * 10**9  # a time that is this far from those of its chunk is damaged
_LAST_KNOWN, _FIRST_PRIVATE = 0x0F, 0x80
_IN_CHUNKS = (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE)
_OFFSETS = np.dtype([("time_ns", "<u8"), ("offset", "<u8")])
_PLACES = np.dtype([("channel", "<u2"), ("offset", "<u8")])

Buffer = bytes | bytearray | memoryview
Record = tuple[int, int, int]  # opcode, start and end of the body


class ChunkHead(NamedTuple):
    """What a chunk says of itself. Its contents are ``stored`` bytes from ``start`` on."""

    start: int  # from the record's first byte
    stored: int
    size: int  # decompressed
    crc: int  # 0: none
    compression: str
    first_ns: int
    last_ns: int

    @property
    def end(self) -> int:
        """Where the record ends."""
        return self.start + self.stored


class ChunkPlace(NamedTuple):
    """One entry of the summary's index."""

    offset: int
    length: int  # of the whole record
    index_length: int  # of the message indexes behind it
    channels: np.ndarray | None  # (N,) uint16 of the channels inside; None: unknown
    compression: str
    stored: int
    size: int
    first_ns: int
    last_ns: int

    def head(self, begin: bytes) -> ChunkHead:
        """The head that belongs to it. The check sum is only in the chunk's own, at ``begin``."""
        crc = _CHUNK.unpack_from(begin, HEAD.size)[3] if len(begin) >= CHUNK_HEAD - 12 else 0
        start = self.length - self.stored
        return ChunkHead(
            start, self.stored, self.size, crc, self.compression, self.first_ns, self.last_ns
        )


class Contents(NamedTuple):
    """Records of a chunk, what is wrong with it (empty: nothing), and where more begin."""

    records: list[Record]
    fault: str
    going_on: int  # the end of the chunk, unless it has more than :data:`MOST_RECORDS`


class IndexEntry(NamedTuple):
    """Where in a chunk's contents a message begins, from the index behind the chunk."""

    offset: int
    channel: int
    time_ns: int


def is_record(opcode: int, length: int, room: int) -> bool:
    """Whether a record can begin like this with ``room`` bytes left for its body."""
    known = 0 < opcode <= _LAST_KNOWN or opcode >= _FIRST_PRIVATE
    if opcode in (Opcode.DATA_END, Opcode.FOOTER):
        return length == (4 if opcode == Opcode.DATA_END else 20)
    return known and length <= room


def parse_chunk_head(data: Buffer) -> ChunkHead | None:
    """The head of the chunk record at the start of ``data``; None where it contradicts itself."""
    if len(data) < HEAD.size + _CHUNK.size or data[0] != Opcode.CHUNK:
        return None
    _, length = HEAD.unpack_from(data)
    first_ns, last_ns, size, crc, letters = _CHUNK.unpack_from(data, HEAD.size)
    start = HEAD.size + _CHUNK.size + letters
    if letters > 4 or len(data) < start + _SIZE.size:
        return None
    compression = bytes(data[start - letters : start]).decode("ascii", "replace")
    (stored,) = _SIZE.unpack_from(data, start)
    start += _SIZE.size
    if start + stored != HEAD.size + length or compression not in _NAMES:
        return None
    return ChunkHead(start, stored, size, crc, compression, first_ns, last_ns)


def guess_chunk_head(data: Buffer) -> ChunkHead | None:
    """Like :func:`parse_chunk_head`, but the inner length is believed, not the record's."""
    if len(data) < CHUNK_HEAD:
        return None
    (letters,) = struct.unpack_from("<I", data, HEAD.size + _CHUNK.size - 4)
    if letters > 4:
        return None
    (stored,) = _SIZE.unpack_from(data, HEAD.size + _CHUNK.size + letters)
    length = _CHUNK.size + letters + _SIZE.size + stored
    if length >= 1 << 63:
        return None
    return parse_chunk_head(HEAD.pack(Opcode.CHUNK, length) + bytes(data[HEAD.size : CHUNK_HEAD]))


def parse_chunk_place(body: bytes, end: int) -> ChunkPlace:
    """A chunk index record of a file whose data end at ``end``.

    Raises:
        ValueError, struct.error: it points outside of the data, or is cut.
    """
    first_ns, last_ns, offset, length, count = _CHUNK_INDEX.unpack_from(body)
    at = _CHUNK_INDEX.size
    places = np.frombuffer(body[at : at + count], _PLACES)
    at += count
    index_length, letters = struct.unpack_from("<QI", body, at)
    at += 12
    compression = body[at : at + letters].decode()
    stored, size = struct.unpack_from("<QQ", body, at + letters)
    if offset + length + index_length > end or stored + HEAD.size > length:
        raise ValueError(f"a chunk at byte {offset} of {length} bytes in {end} bytes of data")
    # without message indexes the summary cannot tell what is inside
    channels = places["channel"].copy() if count else None
    return ChunkPlace(
        offset, length, index_length, channels, compression, stored, size, first_ns, last_ns
    )


# -------------------------------------------------------------------- contents
def contents(
    data: Buffer,
    start: int,
    end: int,
    span_ns: tuple[int, int],
    index: Callable[[], Sequence[IndexEntry]],
    verified: bool = False,
) -> Contents:
    """The records of a chunk, ``data[start:end]``, with log times within ``span_ns``; ``verified``
    by its check sum or not.

    Behind damage reading goes on at the next message of ``index()``; what that does not name is
    lost. A record whose end nothing confirms is not believed, for its length may be what is wrong.
    """
    found, position = _in_a_row(data, start, end)
    going_on = end
    if position == end:
        foreign = next((record[0] for record in found if record[0] not in _IN_CHUNKS), 0)
        fault = f"a record with opcode {foreign}" if foreign else ""
    elif len(found) == MOST_RECORDS:
        fault, going_on = "", position
    elif entries := index():
        found, lost = _along(data, start, end, entries)
        fault = f"{lost} bytes that are no records"
    else:
        if found and not verified and not _resembles_message(data, position, end, span_ns):
            position = found.pop()[1] - HEAD.size
        fault = f"{end - position} bytes that are no records"
    strange = () if verified else _strange_times(data, found, span_ns)
    if strange:
        found = [record for record in found if record not in strange]
        fault = fault or f"{len(strange)} messages with times outside of the chunk's"
    return Contents(found, fault, going_on)


def _in_a_row(data: Buffer, start: int, end: int) -> tuple[list[Record], int]:
    """Records as long as one follows the other, and where that ends."""
    found: list[Record] = []
    unpack, head_size, position = HEAD.unpack_from, HEAD.size, start
    while position + head_size <= end and len(found) < MOST_RECORDS:
        opcode, length = unpack(data, position)
        stop = position + head_size + length
        if opcode == 0 or stop > end:
            break
        found.append((opcode, position + head_size, stop))
        position = stop
    return found, position


def _strange_times(data: Buffer, records: list[Record], span_ns: tuple[int, int]) -> list[Record]:
    """Messages whose log time lies far outside of the chunk's span, where most do not."""
    messages = [r for r in records if r[0] == Opcode.MESSAGE and r[2] - r[1] >= MESSAGE.size]
    times = [MESSAGE.unpack_from(data, start)[2] for _, start, _ in messages]
    strange = [
        record
        for record, time_ns in zip(messages, times, strict=True)
        if not span_ns[0] - _FAR_NS <= time_ns <= span_ns[1] + _FAR_NS
    ]
    return strange if 2 * len(strange) <= len(messages) else []


def _resembles_message(data: Buffer, position: int, end: int, span_ns: tuple[int, int]) -> bool:
    """Whether a message may have begun here before its head was damaged or cut off."""
    if position + HEAD.size + MESSAGE.size > end:
        return data[position] == Opcode.MESSAGE
    _, _, time_ns, _ = MESSAGE.unpack_from(data, position + HEAD.size)
    return span_ns[0] <= time_ns <= span_ns[1]


def _along(
    data: Buffer, start: int, end: int, index: Sequence[IndexEntry]
) -> tuple[list[Record], int]:
    """The records of a damaged chunk that agree with the index of its messages, and the bytes of
    the others."""
    begins = sorted(start + entry.offset for entry in index)
    sound = sorted(start + entry.offset for entry in index if _agrees(data, start, end, entry))
    known, found, lost, position = {*begins, end}, [], 0, start
    while position + HEAD.size <= end:
        opcode, length = HEAD.unpack_from(data, position)
        stop = position + HEAD.size + length
        if (
            opcode in _IN_CHUNKS and stop <= _next(begins, position, end)
            and (stop in known or _can_begin(data, stop, end))
        ):  # fmt: skip
            found.append((opcode, position + HEAD.size, stop))
            position = stop
            continue
        resumed = _next(sound, position, end)
        lost += resumed - position
        position = resumed
    return found, lost + end - position


def _next(places: list[int], position: int, end: int) -> int:
    """The first of some sorted places behind ``position``."""
    following = bisect_right(places, position)
    return places[following] if following < len(places) else end


def _can_begin(data: Buffer, position: int, end: int) -> bool:
    if position + HEAD.size > end:
        return False
    opcode, length = HEAD.unpack_from(data, position)
    return opcode in _IN_CHUNKS and position + HEAD.size + length <= end


def _agrees(data: Buffer, start: int, end: int, entry: IndexEntry) -> bool:
    """Whether the message that an index names stands there."""
    place = start + entry.offset
    if place + HEAD.size + MESSAGE.size > end or data[place] != Opcode.MESSAGE:
        return False
    channel, _, time_ns, _ = MESSAGE.unpack_from(data, place + HEAD.size)
    return bool((channel, time_ns) == (entry.channel, entry.time_ns))


def parse_message_index(body: bytes) -> list[IndexEntry]:
    """The entries of one message index record; none if it is damaged."""
    if len(body) < 6:
        return []
    channel, size = struct.unpack_from("<HI", body)
    if size != len(body) - 6 or size % _OFFSETS.itemsize:
        return []
    entries = np.frombuffer(body[6:], _OFFSETS)
    return [
        IndexEntry(int(offset), channel, int(time_ns))
        for time_ns, offset in entries.tolist()
        if offset <= LARGEST_CHUNK
    ]


# -------------------------------------------------------------------- memory
class Buffers:
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
