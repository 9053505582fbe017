"""Shared memory that killed processes have left behind: Fast DDS cannot free it itself.

Every participant owns a segment and holds a lock (``flock``) on a file beside it, ``<name>_el``, as
long as it lives, in whichever container. A lock that can be taken belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
# A participant makes its files one after the other; nobody is that slow between two of them.
YOUNGEST_S = 60.0
_SEGMENT = re.compile(r"(fastrtps|fastdds)_[0-9a-f]{16}")


def remove_stale(folder: Path = FOLDER) -> str:
    """Removes the segments whose owners are gone, as far as they are ours to remove.

    Returns:
        One line that says how many and how much, or "" if there were none.
    """
    count = size = 0
    for segment in sorted(folder.glob("fast*")):
        if _SEGMENT.fullmatch(segment.name):
            freed = _remove(segment)
            count, size = count + (freed > 0), size + freed
    if not count:
        return ""
    return f"freed {size / 1e6:.0f} MB of shared memory that {count} killed processes had left"


def _remove(segment: Path) -> int:
    """Removes one segment and its lock if nobody holds it; returns the bytes that frees."""
    lock = segment.with_name(f"{segment.name}_el")
    with contextlib.suppress(OSError):  # in use, another user's, or gone meanwhile
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if time.time() - os.fstat(descriptor).st_mtime < YOUNGEST_S:
                return 0
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = segment.stat().st_size
            segment.unlink()
            lock.unlink()
            return size
        finally:
            os.close(descriptor)
    return 0
