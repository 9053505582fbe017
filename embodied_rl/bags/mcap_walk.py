"""The way through an MCAP file from record to record, and past damage.

Where the summary lists a chunk, the way leads there whatever lies before it. Elsewhere a record is
believed if it can be one; behind damage the next chunk, or the next run of messages, is searched.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from mcap.opcode import Opcode

from embodied_rl.bags.mcap_records import (
    CHUNK_HEAD,
    HEAD,
    LAST_TIME_NS,
    MESSAGE,
    ChunkHead,
    ChunkPlace,
    guess_chunk_head,
    is_record,
    parse_chunk_head,
)
from embodied_rl.bags.mcap_writer import MAGIC
from embodied_rl.bags.storage import data_from

_BLOCK = 1 << 20  # bytes searched at once
_TRIES = 200_000  # places that are looked at more closely in one search
_RUN = 3  # records in a row that are no accident
_NEAR_NS = 24 * 3600 * 10**9  # messages in a row lie closer together
_LARGE = (Opcode.CHUNK, Opcode.ATTACHMENT)  # not searched: an attachment may be an MCAP file
_BEGIN = max(CHUNK_HEAD, HEAD.size + MESSAGE.size)

Note = Callable[[str, str], None]  # expected, seen


class TopLevel(NamedTuple):
    """One record of the file's data section. A chunk has a head, and may have a place in the
    summary."""

    offset: int
    opcode: int
    length: int  # with its head, as far as the file reaches
    whole: bool = True
    head: ChunkHead | None = None
    place: ChunkPlace | None = None


class Walk:
    """Iterates over the records of ``file`` up to ``end``, where the summary begins."""

    def __init__(
        self,
        file: int,
        size: int,
        end: int,
        places: Mapping[int, ChunkPlace],
        channels: Collection[int],
        note: Note,
    ):
        self._file, self._size, self._end = file, size, end
        self._places, self._channels, self._note = places, channels, note
        self._offsets = sorted(places)
        self._sums: bool | None = None  # chunks have check sums; None: not yet looked

    def __iter__(self) -> Iterator[TopLevel]:
        offset = len(MAGIC)
        # A message is held back until a record begins where it ends: its length may be damaged.
        held: TopLevel | None = None
        while offset < self._end:
            begin = os.pread(self._file, _BEGIN, offset)
            place = self._places.get(offset)
            if place is not None:
                yield from _given(held)
                held = None
                record = self._listed(begin, offset, place)
                yield record
                offset += record.length
                if record.length == place.length:
                    offset += place.index_length
                continue
            record = self._record(begin, offset)
            if record is None:
                believed, offset = self._doubt(held, begin, offset)
                yield from _given(believed)
                held = None
                begin = os.pread(self._file, _BEGIN, offset)
                following = self._resume(offset, parse_chunk_head(begin) is not None)
                self._note_gap(offset, begin, following)
                if following is None:
                    yield from self._cut(begin, offset)
                    return
                offset = following
                continue
            yield from _given(held)
            held = record
            if record.opcode in (Opcode.DATA_END, Opcode.FOOTER) and not self._more(offset):
                return
            offset += record.length
        yield from _given(held)

    def _listed(self, begin: bytes, offset: int, place: ChunkPlace) -> TopLevel:
        """A chunk of the summary. Its own head counts, unless that contradicts itself."""
        head = parse_chunk_head(begin)
        if head is None or head.end > self._size - offset:
            self._note("a sound chunk head", f"damage at byte {offset}; read by the file's index")
            head = place.head(begin)
        return TopLevel(offset, Opcode.CHUNK, head.end, head=head, place=place)

    def _record(self, begin: bytes, offset: int) -> TopLevel | None:
        """The record at ``offset``, if it is one and whole."""
        if len(begin) < HEAD.size:
            return None
        opcode, length = HEAD.unpack_from(begin)
        room = self._size - offset - HEAD.size
        if opcode == Opcode.CHUNK:
            head = parse_chunk_head(begin)
            if head is None or head.end > self._size - offset:
                head = guess_chunk_head(begin)
                if head is None or not self._can_begin(offset + head.end):
                    return None
                self._note("a sound chunk head", f"a wrong length at byte {offset}")
            return TopLevel(offset, opcode, head.end, head=head)
        if not is_record(opcode, length, room):
            if opcode == 0 or length > room or not self._can_begin(offset + HEAD.size + length):
                return None
            self._note("known records", f"one with opcode {opcode}")
        return TopLevel(offset, opcode, HEAD.size + length)

    def _can_begin(self, offset: int) -> bool:
        """Whether a record can begin here, or the file ends here."""
        if offset >= self._size:
            return offset == self._size
        head = os.pread(self._file, HEAD.size, offset)
        return len(head) == HEAD.size and is_record(
            *HEAD.unpack(head), self._size - offset - HEAD.size
        )

    def _more(self, offset: int) -> bool:
        """Whether the summary lists chunks behind this place."""
        return bisect_right(self._offsets, offset) < len(self._offsets)

    # ---------------------------------------------------------------- damage
    def _cut(self, begin: bytes, offset: int) -> Iterator[TopLevel]:
        """What is left of a chunk that the end of the file cuts."""
        if len(begin) < CHUNK_HEAD or begin[0] != Opcode.CHUNK:
            return
        head = parse_chunk_head(begin) or guess_chunk_head(begin)
        if head is not None:
            length = min(head.end, self._size - offset)
            yield TopLevel(offset, Opcode.CHUNK, length, whole=False, head=head)

    def _note_gap(self, offset: int, begin: bytes, following: int | None) -> None:
        if following is not None:
            seen = f"{following - offset} bytes at byte {offset} that are none"
            self._note("MCAP records", seen)
            return
        cut = len(begin) < HEAD.size
        if not cut:
            opcode, length = HEAD.unpack_from(begin)
            cut = is_record(opcode, length, length) and length > self._size - offset - HEAD.size
        if cut:
            seen = f"a record cut at byte {offset} of {self._size}"
            self._note("whole records to the end of the file", seen)
        else:
            lost = self._end - offset
            self._note("MCAP records", f"{lost} bytes at byte {offset} that are none")

    def _doubt(
        self, held: TopLevel | None, begin: bytes, offset: int
    ) -> tuple[TopLevel | None, int]:
        """Whether the record before damage is believed, and from where on to search: its length
        may be what is damaged, and hide others."""
        if held is None or held.opcode in _LARGE or parse_chunk_head(begin) is not None:
            return held, offset  # what the file's end cuts is no reason for doubt
        if held.opcode != Opcode.MESSAGE:
            return held, held.offset
        sound = self._resembles_message(begin, held)
        return (held, offset) if sound else (None, held.offset)

    def _resembles_message(self, begin: bytes, held: TopLevel) -> bool:
        """Whether a message after ``held`` began here before its head was damaged or cut off."""
        if len(begin) < HEAD.size + MESSAGE.size:
            return True
        before = os.pread(self._file, MESSAGE.size, held.offset + HEAD.size)
        if len(before) < MESSAGE.size:
            return False
        return abs(_time_ns(begin[HEAD.size :]) - _time_ns(before)) < _NEAR_NS

    def _resume(self, offset: int, cut: bool) -> int | None:
        """Where the next record begins behind damage at ``offset``; only what the summary lists
        can come behind a sound chunk that is ``cut`` by the end of the file."""
        following = bisect_right(self._offsets, offset)
        if cut:
            return self._offsets[following] if following < len(self._offsets) else None
        limit = self._offsets[following] if following < len(self._offsets) else self._end
        found = self._search(offset + 1, limit)
        if found is None and following < len(self._offsets):
            return limit
        return found

    def _have_sums(self) -> bool:
        """Whether the file's chunks have check sums. Messages that lie about in such a file come
        from a chunk of which the sum is lost, and must not pass unverified."""
        if self._sums is None:
            self._sums = True  # for the search
            offset = self._search(len(MAGIC), self._end)
            head = parse_chunk_head(os.pread(self._file, CHUNK_HEAD, offset)) if offset else None
            self._sums = head is not None and head.crc > 0
        return self._sums

    def _search(self, start: int, end: int) -> int | None:
        """The first chunk, or the first of some messages in a row, between two places."""
        tries, runs = 0, not self._have_sums()
        while start < end:
            start = data_from(self._file, start, end)
            block = os.pread(self._file, min(_BLOCK + HEAD.size, end - start), start)
            if not block:
                return None
            for place in _heads(block):
                tries += 1
                if self._is_chunk(start + place) or (runs and self._is_run(start + place)):
                    return start + place
            if tries > _TRIES or len(block) <= _BLOCK:
                return None
            start += _BLOCK
        return None

    def _is_chunk(self, offset: int) -> bool:
        head = parse_chunk_head(os.pread(self._file, CHUNK_HEAD, offset))
        return (
            head is not None
            and head.end <= self._size - offset
            and head.first_ns <= head.last_ns <= LAST_TIME_NS
            and self._can_begin(offset + head.end)
        )

    def _is_run(self, offset: int) -> bool:
        """Whether messages of known channels, near in time, follow each other from here on."""
        first_ns = None
        for _ in range(_RUN):
            begin = os.pread(self._file, HEAD.size + MESSAGE.size, offset)
            if len(begin) < HEAD.size + MESSAGE.size:
                return first_ns is not None and offset == self._size
            opcode, length = HEAD.unpack_from(begin)
            if opcode in (Opcode.DATA_END, Opcode.FOOTER) and first_ns is not None:
                return is_record(opcode, length, length)
            if opcode != Opcode.MESSAGE or length > self._size - offset - HEAD.size:
                return False
            channel, _, time_ns, _ = MESSAGE.unpack_from(begin, HEAD.size)
            first_ns = time_ns if first_ns is None else first_ns
            if channel not in self._channels or abs(time_ns - first_ns) > _NEAR_NS:
                return False
            offset += HEAD.size + length
        return True


def _given(held: TopLevel | None) -> Iterator[TopLevel]:
    if held is not None:
        yield held


def _heads(block: bytes) -> list[int]:
    """Where a chunk of less than 2^40 bytes, or a message of less than 2^32, may begin."""
    if len(block) < HEAD.size:
        return []
    data = np.frombuffer(block, np.uint8)
    count = len(data) - HEAD.size + 1
    opcodes = data[:count]
    maybe = np.flatnonzero((opcodes == Opcode.CHUNK) | (opcodes == Opcode.MESSAGE))
    high = data[maybe + 6] | data[maybe + 7] | data[maybe + 8]
    high |= np.where(opcodes[maybe] == Opcode.MESSAGE, data[maybe + 5], 0).astype(np.uint8)
    return [int(place) for place in maybe[high == 0]]


def _time_ns(message: bytes) -> int:
    return int(MESSAGE.unpack_from(message)[2])
