"""What the readers of the two storage formats have in common."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

# Larger ones are refused: no sensor sends them, but a damaged or hostile length claims them.
LARGEST_MESSAGE = 256 << 20  # bytes
_BLOCK = 4 << 20
LARGEST_CHUNK = 256 << 20  # bytes, decompressed; chunks that are not compressed may be larger


class Message(NamedTuple):
    """One serialised message as recorded."""

    topic: str
    log_time_ns: int
    data: memoryview


@dataclass(frozen=True)
class TopicInfo:
    """One recorded topic. ``definition`` is the text of its message type, if the file has it."""

    name: str
    type: str
    count: int
    encoding: str = ""  # of the definition: ros2msg or ros2idl
    definition: str = ""
    serialization: str = "cdr"
    qos: str = ""  # YAML list of the offered profiles
    type_hash: str = ""


class StorageFile(Protocol):
    """One data file of a bag. Messages come in the order they were recorded."""

    path: Path
    topics: list[TopicInfo]
    span_ns: tuple[int, int]  # first and last log time, (0, 0) without messages

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """The messages of the named topics."""

    def close(self) -> None:
        """Release the file."""


class Unreadable(Exception):
    """A file of which nothing can be used; the text says what was expected and seen."""

    def __init__(self, expected: str, seen: str):
        super().__init__(f"expected {expected}, saw {seen}")
        self.expected, self.seen = expected, seen


def data_from(file: int, offset: int, end: int) -> int:
    """The first place from ``offset`` on that is not in a hole of a sparse file; ``end`` if none.

    A file of a few bytes may claim terabytes that way.
    """
    try:
        return min(os.lseek(file, offset, os.SEEK_DATA), end)
    except OSError as error:
        return end if error.errno == errno.ENXIO else offset


def copy_data(source: Path, target: Path) -> None:
    """Copy a file; holes stay holes.

    Raises:
        OSError: it cannot be read, or there is no room.
    """
    with open(source, "rb") as reader, open(target, "wb") as writer:
        end = os.fstat(reader.fileno()).st_size
        offset = data_from(reader.fileno(), 0, end)
        while offset < end:
            block = os.pread(reader.fileno(), min(_BLOCK, end - offset), offset)
            if not block:
                break
            writer.seek(offset)
            writer.write(block)
            offset = data_from(reader.fileno(), offset + len(block), end)
        writer.truncate(end)
