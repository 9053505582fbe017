"""``.npy`` files that grow row by row, and are opened without being read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

_HEADER_BYTES = 256  # fixed, so that the row count can be written when it is known
_DIRECT_BYTES = 1 << 16  # rows from this size on go to the file without a copy in between
_AHEAD_BYTES = 32 << 20  # the file is extended in steps: the file system is asked less often


class ArrayWriter:
    """Appends rows ``(*shape)`` to ``path``, in the end a ``.npy`` file of ``(K, *shape)``."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str):
        self.path, self._shape, self._dtype = path, shape, np.dtype(dtype)
        self.rows = 0
        self._row_bytes = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._size = self._allocated = 0
        self._buffer = bytearray()
        self._put(self._header())

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, row: np.ndarray) -> None:
        """Add one row; its shape and type are those of the array."""
        row = np.asarray(row, dtype=self._dtype, order="C")
        if row.shape != self._shape:
            raise ValueError(f"{self.path.name}: expected rows {self._shape}, saw {row.shape}")
        self.rows += 1
        if self._row_bytes >= _DIRECT_BYTES:
            self._put(memoryview(row).cast("B"))
            return
        self._buffer += row.tobytes()
        if len(self._buffer) >= _DIRECT_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the header with the final count."""
        if self._file < 0:
            return
        try:
            self._flush()
            os.ftruncate(self._file, self._size)
            os.pwrite(self._file, self._header(), 0)
        finally:
            os.close(self._file)
            self._file = -1

    def _flush(self) -> None:
        self._put(memoryview(self._buffer))
        self._buffer = bytearray()

    def _put(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        if self._size + len(view) > self._allocated and self._row_bytes >= _DIRECT_BYTES:
            step = max(_AHEAD_BYTES, len(view))
            os.posix_fallocate(self._file, self._size, step)
            self._allocated = self._size + step
        while view:
            done = os.write(self._file, view)
            view = view[done:]
            self._size += done

    def _header(self) -> bytes:
        shape = "(" + "".join(f"{n}, " for n in (self.rows, *self._shape)).rstrip() + ")"
        text = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        length = _HEADER_BYTES - 10
        if len(text) >= length:
            raise ValueError(f"{self.path.name}: shape {shape} does not fit the header")
        padded = text.ljust(length - 1) + "\n"
        return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + padded.encode("latin1")


def copy_rows(path: Path, target: Path, rows: slice) -> None:
    """Write some of the rows of a ``.npy`` file into another."""
    np.save(target, np.load(path, mmap_mode="r")[rows])


def array_is_whole(path: Path, rows: int) -> bool:
    """Whether a ``.npy`` file has ``rows`` rows, by its header and by its size."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return bool(array.shape[:1] == (rows,))
