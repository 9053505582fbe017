"""Unpacking zstd and lz4 that others wrote: no claim of a size is believed before it is checked."""

from __future__ import annotations

from pathlib import Path

import lz4.frame
import zstandard

from embodied_rl.bags.storage import LARGEST_CHUNK, LARGEST_MESSAGE

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message begins like this
SPOILT = (zstandard.ZstdError, RuntimeError, EOFError, ValueError)
_STEP = 1 << 10  # bytes; the densest zstd makes 32 MiB of them
_BLOCK = 1 << 20
_LARGEST_PART = 64 << 20  # bytes; more memory is taken only as it is filled
_DENSE, _DENSE_FROM = 1000, 256 << 20  # a file that is this dense and large holds no recording


class TooMuch(ValueError):
    """Something unpacks to more than it may."""


def unpack_chunk(name: str, data: bytes | memoryview, size: int) -> bytes | bytearray:
    """Contents of a chunk of one or more frames; of a cut one as much as its bytes give.

    Raises:
        TooMuch: more than ``size`` bytes, or more than :data:`LARGEST_CHUNK`.
        SPOILT: damaged, or another format.
    """
    if size > LARGEST_CHUNK:
        raise TooMuch(f"{size} bytes claimed, more than {LARGEST_CHUNK} are not unpacked")
    found: bytes | bytearray
    if name == "zstd":
        found = _zstd(data, size)
    elif name == "lz4":
        found = _lz4(data, size)
    else:
        raise ValueError(f"unknown compression '{name}'")
    if len(found) > size:
        raise TooMuch(f"more than the {size} bytes claimed")
    return found


def unpack_message(data: bytes | memoryview) -> bytes:
    """One message that was compressed by itself; it must be there in full.

    Raises:
        TooMuch: more than :data:`LARGEST_MESSAGE` bytes.
        SPOILT: damaged or cut.
    """
    size = zstandard.frame_content_size(data)
    if size > LARGEST_MESSAGE:
        raise TooMuch(f"{size} bytes claimed, more than {LARGEST_MESSAGE} are not unpacked")
    if size >= 0:
        return zstandard.ZstdDecompressor().decompress(data)
    frame = zstandard.ZstdDecompressor().decompressobj()
    parts, total = [], 0
    for start in range(0, len(data), _STEP):
        parts.append(frame.decompress(data[start : start + _STEP]))
        total += len(parts[-1])
        if total > LARGEST_MESSAGE:
            raise TooMuch(f"more than {LARGEST_MESSAGE} bytes")
        if frame.eof:
            return b"".join(parts)
    raise EOFError("the compressed message is cut")


def unpack_file(source_path: Path, target: Path) -> None:
    """A zstd file, as far as it goes.

    Raises:
        TooMuch: so dense that it can only be meant to fill the disk.
        SPOILT: damaged; what lies before is in ``target``.
        OSError: it cannot be read, or the disk is full.
    """
    total = 0
    with open(source_path, "rb") as source, open(target, "wb") as sink:
        reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        while part := reader.read(_BLOCK):
            sink.write(part)
            total += len(part)
            if total > _DENSE_FROM and total > _DENSE * source.tell():
                raise TooMuch(f"more than {total} bytes in {source.tell()}")


def _zstd(data: bytes | memoryview, size: int) -> bytes | bytearray:
    if zstandard.frame_content_size(data) == size and size:
        try:
            return zstandard.ZstdDecompressor().decompress(data)
        except zstandard.ZstdError:
            pass  # damaged: taken again below, as far as it goes or with its error
    found = bytearray()
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        try:
            while len(found) <= size and (part := reader.read(min(size + 1 - len(found), _BLOCK))):
                found += part
        except zstandard.ZstdError:
            if not found:
                raise
    return found


def _lz4(data: bytes | memoryview, size: int) -> bytes | bytearray:
    found = bytearray()
    while len(data) and len(found) <= size:
        frame = lz4.frame.LZ4FrameDecompressor()
        part = frame.decompress(data, max_length=min(size + 1 - len(found), _LARGEST_PART))
        while part:
            if not found and frame.eof and not frame.unused_data:
                return part  # the usual chunk: one frame, not copied
            found += part
            if frame.eof or len(found) > size:
                break
            part = frame.decompress(b"", max_length=min(size + 1 - len(found), _LARGEST_PART))
        if not frame.eof:
            break
        data = frame.unused_data or b""
    return found
