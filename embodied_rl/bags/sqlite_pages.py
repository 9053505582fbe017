"""SQLite's file format, as far as a damaged ``.db3`` of rosbag2 has to be read without SQLite.

SQLite reads a table from its root down and stops at the first damaged page, and it fills a page
that was cut in the middle with zeros. Here every whole page is looked at by itself: a message is
found on its leaf page whether or not a way leads there, and counts only if its record is
consistent and all pages of its data are there. The format: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embodied_rl.bags.storage import LARGEST_MESSAGE, data_from

MAGIC = b"SQLite format 3\0"
TOPICS, MESSAGES, DEFINITIONS = "topics", "messages", "message_definitions"
_LEAF, _INTERIOR = 0x0D, 0x05  # of tables; indexes hold nothing that the tables do not
_SIZES = (4096, 65536, 32768, 16384, 8192, 2048, 1024, 512)  # of pages, the usual one first
_LOOKED_AT = 300  # pages from which the layout is told
_BLOCK = 1 << 20  # bytes looked through at once
INDEX = np.dtype([("row", "i8"), ("topic", "i8"), ("time_ns", "i8"), ("cell", "i8"), ("n", "i8")])

Value = int | float | str | bytes | None


class Spoilt(Exception):
    """A page, cell or record that contradicts the format."""


class _Cell(NamedTuple):
    """One row on a leaf page: ``size`` bytes of record, the first ``local`` of them in ``page``."""

    row: int
    size: int
    page: bytes
    start: int
    local: int
    overflow: int  # number of the page where the record goes on, 0: nowhere


class SqlitePages:
    """The rows that can be found in a database file without its directory.

    Attributes:
        lost: what was found damaged -> how often.

    Raises:
        Spoilt: no page of the file holds rows.
    """

    def __init__(self, path: Path):
        self.lost: Counter[str] = Counter()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._size = os.fstat(self._file).st_size
            self._page_size, self._usable = self._layout(os.pread(self._file, 100, 0))
            self._count = self._size // self._page_size  # whole pages; the rest is not one
            if not self._count:
                raise Spoilt("not one whole page")
            self._taken = np.zeros(self._count + 1, np.uint8)  # by page: belongs to something
            self._leaves = self._sort_pages()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # ---------------------------------------------------------------- rows
    def rows(self, table: str) -> Iterator[tuple[int, list[Value]]]:
        """Number and columns of each row of a table."""
        for number in self._leaves[table]:
            for cell, _ in self._cells(number):
                try:
                    yield cell.row, _record(self._payload(cell))
                except (Spoilt, UnicodeDecodeError):
                    self.lost[f"damaged rows of table {table}"] += 1

    def index(self) -> np.ndarray:
        """``(N,)`` of row, topic number, log time, place and size of each message, by row.

        A message that is there twice, as after an interrupted reordering of pages, counts once.
        """
        found = []
        for number in self._leaves[MESSAGES]:
            for cell, offset in self._cells(number):
                try:
                    if not _is_message(_head(cell)) or cell.size > LARGEST_MESSAGE:
                        raise Spoilt
                    values = _values(cell.page[cell.start : cell.start + cell.local], count=3)
                    self._check_chain(cell)
                except Spoilt:
                    self.lost["messages that are cut off or damaged"] += 1
                    continue
                place = number * self._page_size + offset
                found.append((cell.row, values[1], values[2], place, cell.size))
        index = np.array(found, INDEX)
        index = index[np.argsort(index["row"], kind="stable")]
        if len(index) > 1:
            same = np.ones(len(index) - 1, bool)
            for name in ("row", "topic", "time_ns", "n"):
                same &= index[name][1:] == index[name][:-1]
            index = index[np.concatenate([[True], ~same])]
        return index

    def data(self, place: int) -> bytes:
        """The bytes of the message at ``place`` of :meth:`index`."""
        number, offset = divmod(place, self._page_size)
        payload = self._payload(self._cell(self._page(number), offset))
        data = _record(payload)[3]
        assert isinstance(data, bytes)  # index() has looked
        return data

    # ---------------------------------------------------------------- pages
    def _layout(self, head: bytes) -> tuple[int, int]:
        """Size of a page, and how much of it SQLite uses, from the header or by trying."""
        tried = [(size, size) for size in _SIZES]
        best, layout = 0, (0, 0)
        if head.startswith(MAGIC):
            (size,) = struct.unpack_from(">H", head, 16)
            size = 65536 if size == 1 else size
            if size in _SIZES:
                layout = (size, size - head[20] if size - head[20] >= 480 else size)
                tried[:0] = [layout, (size, size)]
        for size, usable in tried:
            self._page_size, self._usable = size, usable
            numbers = range(2, min(self._size // size, _LOOKED_AT) + 1) if usable >= 480 else ()
            fit = sum(self._kind(n) == _LEAF and self._is_full_leaf(n) for n in numbers)
            if fit > best:
                best, layout = fit, (size, usable)
        if not layout[0]:
            raise Spoilt("no page with rows")
        return layout

    def _is_full_leaf(self, number: int) -> bool:
        """Whether a page's rows reach exactly to its end, where SQLite puts the first of them."""
        ends = [
            cell.start + cell.local + 4 * (cell.overflow > 0)
            for cell, _ in self._cells(number, quiet=True)
        ]
        (count,) = struct.unpack_from(">H", self._page(number), 3)
        return len(ends) == count and max(ends, default=0) == self._usable

    def _page(self, number: int) -> bytes:
        if not 1 <= number <= self._size // self._page_size:
            raise Spoilt(f"page {number} is missing")
        try:
            return os.pread(self._file, self._page_size, (number - 1) * self._page_size)
        except OSError as error:
            raise Spoilt(f"page {number}: {error.strerror}") from error

    def _kind(self, number: int) -> int:
        page = self._page(number)
        return page[100 if number == 1 else 0]

    def _sort_pages(self) -> dict[str, list[int]]:
        """Table -> its leaf pages: those below its root, and lost ones that look like its own."""
        self._take_free_pages()
        leaves: dict[str, list[int]] = {TOPICS: [], MESSAGES: [], DEFINITIONS: []}
        self._taken[1] = 1
        # our tables first: where a damaged directory names one page twice, it is theirs
        for name, root in sorted(self._roots(), key=lambda entry: entry[0] not in leaves):
            for number in self._below(root):
                if name in leaves:
                    leaves[self._looks_like(number) or name].append(number)
        for number in self._candidates():
            if self._taken[number]:
                continue
            table = self._looks_like(number)
            if table:
                leaves[table].append(number)
                self._taken[number] = 1
        return leaves

    def _take_free_pages(self) -> None:
        """Pages that were given back keep their old rows, which must not come to life again."""
        head = os.pread(self._file, 100, 0)
        (trunk,) = struct.unpack_from(">I", head.ljust(100, b"\0"), 32)
        while 1 < trunk <= self._count and not self._taken[trunk]:
            self._taken[trunk] = 1
            page = self._page(trunk)
            trunk, count = struct.unpack_from(">II", page)
            for number in struct.unpack_from(f">{min(count, self._usable // 4 - 2)}I", page, 8):
                if 1 < number <= self._count:
                    self._taken[number] = 1

    def _roots(self) -> Iterator[tuple[str, int]]:
        """Name and root page of each table that the first page lists."""
        for number in self._below(1):
            for cell, _ in self._cells(number):
                try:
                    kind, name, _, root, *_ = _record(self._payload(cell))
                except (Spoilt, UnicodeDecodeError, ValueError):
                    continue
                if kind == "table" and isinstance(name, str) and isinstance(root, int):
                    yield name, root

    def _below(self, root: int) -> list[int]:
        """Leaf pages of a table in order. A page has one parent; further claims are ignored."""
        found, waiting = [], [root]
        while waiting:
            number = waiting.pop()
            if not 1 <= number <= self._count or (self._taken[number] and number != 1):
                continue
            kind = self._kind(number)
            if kind == _LEAF:
                found.append(number)
            elif kind == _INTERIOR:
                page, start = self._page(number), 100 if number == 1 else 0
                (count,) = struct.unpack_from(">H", page, start + 3)
                children = []
                for place in range(min(count, self._usable // 2 - 64)):
                    (offset,) = struct.unpack_from(">H", page, start + 12 + 2 * place)
                    if offset + 4 <= self._usable:
                        children.append(struct.unpack_from(">I", page, offset)[0])
                children.append(struct.unpack_from(">I", page, start + 8)[0])
                waiting.extend(reversed(children))
            else:
                continue
            self._taken[number] = 1
        return found

    def _candidates(self) -> Iterator[int]:
        """Pages that begin as leaf pages of tables do. Holes of the file are skipped."""
        offset, step = 0, max(_BLOCK // self._page_size, 1) * self._page_size
        end = self._count * self._page_size
        while offset < end:
            offset = data_from(self._file, offset, end) // self._page_size * self._page_size
            block = os.pread(self._file, min(step, end - offset), offset)
            kinds = np.frombuffer(block, np.uint8)[:: self._page_size]
            first = offset // self._page_size + 1
            yield from (first + int(i) for i in np.flatnonzero(kinds == _LEAF))
            offset += len(block)

    def _looks_like(self, number: int) -> str:
        """The table that a lost page's rows belong to by their form, or ````."""
        for cell, _ in self._cells(number, quiet=True):
            try:
                kinds = _head(cell)
            except Spoilt:
                continue
            if kinds[0] == 0 and _is_message(kinds):
                return MESSAGES
            if kinds[0] == 0 and len(kinds) in (4, 5, 6) and all(map(_is_text, kinds[1:4])):
                return self._topics_or_definitions(cell)
        return ""

    def _topics_or_definitions(self, cell: _Cell) -> str:
        """Both tables have rows of texts; a topic's name begins the one, a type the other."""
        try:
            columns = _record(self._payload(cell))
        except (Spoilt, UnicodeDecodeError):
            return ""
        return DEFINITIONS if str(columns[2]) in ("ros2msg", "ros2idl") else TOPICS

    # ---------------------------------------------------------------- cells
    def _cells(self, number: int, quiet: bool = False) -> Iterator[tuple[_Cell, int]]:
        """Cells of a leaf page, with their offset in it."""
        page, start = self._page(number), 100 if number == 1 else 0
        (count,) = struct.unpack_from(">H", page, start + 3)
        first = start + 8 + 2 * count
        if first > self._usable:
            if not quiet:
                self.lost["damaged pages"] += 1
            return
        seen = set()
        for offset in struct.unpack_from(f">{count}H", page, start + 8):
            try:
                if not first <= offset < self._usable or offset in seen:
                    raise Spoilt
                seen.add(offset)
                yield self._cell(page, offset), offset
            except Spoilt:
                if not quiet:
                    self.lost["damaged rows"] += 1

    def _cell(self, page: bytes, offset: int) -> _Cell:
        size, offset = _varint(page, offset)
        row, offset = _varint(page, offset)
        usable = self._usable
        local = size
        if size > usable - 35:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (usable - 4)
            if local > usable - 35:
                local = least
        end = offset + local
        if size > self._size or end + 4 * (local < size) > usable:
            raise Spoilt
        overflow = struct.unpack_from(">I", page, end)[0] if local < size else 0
        return _Cell(row, size, page, offset, local, overflow)

    def _chain(self, cell: _Cell) -> Iterator[tuple[int, int]]:
        """Number, and bytes used, of each page on which a record goes on."""
        left, number = cell.size - cell.local, cell.overflow
        while left:
            if not 2 <= number <= self._count:
                raise Spoilt
            used = min(left, self._usable - 4)
            yield number, used
            left -= used
            head = os.pread(self._file, 4, (number - 1) * self._page_size)
            (number,) = struct.unpack(">I", head)
        if number:
            raise Spoilt  # the pages go on where the record has ended: they are not its own

    def _check_chain(self, cell: _Cell) -> None:
        """All pages of a record are there, and nobody else's."""
        if cell.local == cell.size:
            return
        numbers = [number for number, _ in self._chain(cell)]
        if self._taken[numbers].any() or len(set(numbers)) < len(numbers):
            raise Spoilt
        self._taken[numbers] = 1

    def _payload(self, cell: _Cell) -> bytes:
        parts = [cell.page[cell.start : cell.start + cell.local]]
        for number, used in self._chain(cell):
            parts.append(os.pread(self._file, used, (number - 1) * self._page_size + 4))
        return b"".join(parts)


def by_topic(index: np.ndarray, topics: Collection[int]) -> np.ndarray:
    """The rows of an index (see :meth:`SqlitePages.index`) that belong to some topics."""
    return index[np.isin(index["topic"], list(topics))]


# -------------------------------------------------------------------- records
def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """A signed integer of 1 to 9 bytes, and where it ends."""
    if offset < len(data) and data[offset] < 0x80:  # most are this short
        return data[offset], offset + 1
    value = 0
    for place in range(offset, offset + 9):
        if place >= len(data):
            raise Spoilt
        byte = data[place]
        if place == offset + 8:
            value = value << 8 | byte
            return value - (1 << 64) if value >> 63 else value, place + 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    raise AssertionError


def _head(cell: _Cell) -> list[int]:
    """Serial types of the columns of a record, which must add up to its size."""
    page, start = cell.page, cell.start
    size, offset = _varint(page, start)
    if not 0 < size <= cell.local:
        raise Spoilt
    kinds, total = [], size
    while offset < start + size:
        kind, offset = _varint(page, offset)
        total += _width(kind)
        kinds.append(kind)
    if offset != start + size or total != cell.size or not kinds:
        raise Spoilt
    return kinds


def _width(kind: int) -> int:
    """Bytes of a column of this serial type."""
    if kind < 0 or kind in (10, 11):
        raise Spoilt
    return (kind - 12) // 2 if kind >= 12 else (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind]


def _is_message(kinds: list[int]) -> bool:
    """Whether columns are number of the row, topic, time and bytes."""
    return (
        len(kinds) == 4 and _is_int(kinds[1]) and _is_int(kinds[2])
        and kinds[3] >= 12 and kinds[3] % 2 == 0
    )  # fmt: skip


def _is_int(kind: int) -> bool:
    return 1 <= kind <= 6 or kind in (8, 9)


def _is_text(kind: int) -> bool:
    return kind >= 13 and kind % 2 == 1


def _record(data: bytes) -> list[Value]:
    """The columns of a record that is there in full."""
    return _values(data, count=100)


def _values(data: bytes, count: int) -> list[Value]:
    """The first ``count`` columns; the record may be cut behind them."""
    size, offset = _varint(data, 0)
    values: list[Value] = []
    place = size
    while offset < size and len(values) < count:
        kind, offset = _varint(data, offset)
        width = _width(kind)
        raw = data[place : place + width]
        if len(raw) < width:
            raise Spoilt
        place += width
        values.append(_value(kind, raw))
    return values


def _value(kind: int, raw: bytes) -> Value:
    if kind == 0:
        return None
    if kind == 7:
        return float(struct.unpack(">d", raw)[0])
    if kind in (8, 9):
        return kind - 8
    if kind < 7:
        return int.from_bytes(raw, "big", signed=True)
    return raw.decode("utf-8") if _is_text(kind) else raw
