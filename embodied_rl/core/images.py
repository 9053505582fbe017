"""Pictures as drivers send them: encodings, compression, padded rows, crop and size.

A stream declares what a policy sees (``encoding``, ``shape``), and what the driver sends where
that is something else (``source_encoding``, ``source_shape``, ``crop``, ``resize``). The same
functions serve live messages and those of a bag. Depth follows REP 118: in 32FC1 metres and NaN
for no measurement (+inf and -inf for too far and too near), in 16UC1 millimetres and 0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import cv2
import numpy as np

from embodied_rl.core.errors import MessageError, quoted
from embodied_rl.core.message_types import COMPRESSED_IMAGE, ENCODINGS, IMAGE
from embodied_rl.core.schema import Section

cv2.setNumThreads(1)  # a picture takes a millisecond or two; threads would steal the policy's cores

# what a driver may send: encoding -> (dtype, channels in memory)
SOURCES: dict[str, tuple[str, int]] = {
    **ENCODINGS,
    "bgr8": ("uint8", 3),
    "rgba8": ("uint8", 4),
    "bgra8": ("uint8", 4),
    "yuv422": ("uint8", 2),  # U Y V Y
    "uyvy": ("uint8", 2),  # the newer name of the same
    "yuv422_yuy2": ("uint8", 2),  # Y U Y V
    "yuyv": ("uint8", 2),
    "bayer_rggb8": ("uint8", 1),
    "bayer_bggr8": ("uint8", 1),
    "bayer_gbrg8": ("uint8", 1),
    "bayer_grbg8": ("uint8", 1),
}
# OpenCV names a mosaic by the second and third pixel of its second row, ROS by its first four.
_TO_RGB: dict[str, int] = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
}
_DEPTH = ("16UC1", "32FC1")
_HALVED = ("yuv422", "uyvy", "yuyv")  # two pixels side by side share their colour
_SHARING = (*_HALVED, "bayer")  # prefixes of encodings in which pixels share colours
# declared encoding -> those that it can be made from
CONVERTIBLE: dict[str, tuple[str, ...]] = {
    "rgb8": tuple(_TO_RGB),
    "mono8": ("rgb8", "mono16", *(name for name in _TO_RGB if name != "mono8")),
    "mono16": ("mono8",),
    "16UC1": ("32FC1", "mono16"),
    "32FC1": ("16UC1",),
}
RESIZES = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}
_REDUCED = {  # (channels, divisor) -> flag
    (1, 2): cv2.IMREAD_REDUCED_GRAYSCALE_2,
    (1, 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
    (1, 8): cv2.IMREAD_REDUCED_GRAYSCALE_8,
    (3, 2): cv2.IMREAD_REDUCED_COLOR_2,
    (3, 4): cv2.IMREAD_REDUCED_COLOR_4,
    (3, 8): cv2.IMREAD_REDUCED_COLOR_8,
}
DEPTH_HEADER = struct.Struct("<iff")  # of compressed_depth_image_transport: format, A, B
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
TAIL = 64  # bytes in which a JPEG's end must be; some drivers pad


@dataclass(frozen=True)
class Source:
    """The picture that a driver sends: its encoding, size and what is taken of it."""

    encoding: str
    shape: tuple[int, int]  # height, width in px
    crop: tuple[int, int, int, int] | None = None  # left, top, width, height
    resize: str = ""


def parse_source(part: Section, encoding: str, shape: tuple[int, ...], compressed: bool) -> Source:
    """The keys of a stream that say what its driver sends.

    Raises:
        UserError: an encoding that the declared one cannot be made from, or sizes that do not fit.
    """
    sent = part.choice("source_encoding", SOURCES, default=encoding)
    if sent != encoding and sent not in CONVERTIBLE[encoding]:
        part.fail("source_encoding", f"one of {[encoding, *CONVERTIBLE[encoding]]}", f"'{sent}'")
    if compressed and sent.startswith(_SHARING):
        part.fail("source_encoding", "an encoding that a JPEG or PNG can hold", f"'{sent}'")
    size = (shape[0], shape[1])
    whole = size
    if part.value("source_shape", None) is not None:
        given = part.shape("source_shape")
        if len(given) != 2:
            part.fail("source_shape", "[height, width]", list(given))
        whole = (given[0], given[1])
    if sent.startswith(_HALVED) and whole[1] % 2:
        part.fail("source_shape", "an even width, since two pixels share a colour", list(whole))
    crop = _crop(part, whole)
    cut = whole if crop is None else (crop[3], crop[2])
    resize = "" if part.value("resize", None) is None else part.choice("resize", RESIZES)
    if cut != size and not resize:
        key = "shape" if whole == size else "resize"
        part.fail(key, f"one of {list(RESIZES)}, to make {list(size)} px of {list(cut)}", "none")
    if resize and resize != "nearest" and encoding not in ("rgb8", "mono8"):
        part.fail("resize", f"nearest: a mean of {encoding} pixels is nothing seen", f"'{resize}'")
    return Source(sent, whole, crop, resize if cut != size else "")


def _crop(part: Section, whole: tuple[int, int]) -> tuple[int, int, int, int] | None:
    inner = part.optional_child("crop")
    if inner is None:
        return None
    if part.value("source_shape", None) is None:
        part.fail("source_shape", "the size of the picture that is cropped", "none")
    left, top = inner.whole("left"), inner.whole("top")
    width, height = inner.count("width"), inner.count("height")
    inner.done()
    if left + width > whole[1] or top + height > whole[0]:
        part.fail("crop", f"a part of {whole[1]}x{whole[0]} px", [left, top, width, height])
    return left, top, width, height


def source_of(stream: Any) -> Source:
    """What the driver sends; by default what the policy sees."""
    return stream.source or Source(stream.encoding, (stream.shape[0], stream.shape[1]))


def verbatim(stream: Any, message: Any) -> bool:
    """Whether the bytes of a sensor_msgs/Image that proved sound are the stream's pixels."""
    return (
        message.encoding == stream.encoding
        and source_of(stream).crop is None
        and (message.height, message.width) == stream.shape[:2]
        and message.step * message.height == len(message.data)
        and message.step == _row_bytes(message.encoding, message.width)
    )


def read_image(stream: Any, message: Any) -> np.ndarray:
    """Pixels ``stream.shape`` of a sensor_msgs/Image or CompressedImage; owns its memory, since
    messages are short-lived.

    Raises:
        MessageError: another encoding or size than declared, or bytes that do not fit them.
    """
    source, part = source_of(stream), 1
    if stream.type == COMPRESSED_IMAGE:
        encoding, pixels, part = _decompressed(stream, message)
    else:
        encoding, pixels = _plain(stream, message)
    # else it is of the size that the policy sees already
    whole = (pixels.shape[0] * part, pixels.shape[1] * part) == source.shape
    if source.crop is not None and whole:
        left, top, width, height = (number // part for number in source.crop)
        if encoding.startswith(_SHARING):
            pixels, encoding = _converted(pixels, encoding, stream.encoding), stream.encoding
        pixels = pixels[top : top + height, left : left + width]
    pixels = _converted(pixels, encoding, stream.encoding)
    if source.resize and whole:
        size = (stream.shape[1], stream.shape[0])
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=RESIZES[source.resize]))
    return np.ascontiguousarray(pixels)


def as_rgb(topic: str, message: Any) -> np.ndarray | None:
    """Pixels ``(H, W, 3)`` of any sensor_msgs/Image of colours or grey, for people to look at;
    None of other encodings.

    Raises:
        MessageError: the bytes do not fit the size.
    """
    if message.encoding != "rgb8" and message.encoding not in _TO_RGB:
        return None
    size = (message.height, message.width)
    source = Source(message.encoding, size)
    made = SimpleNamespace(
        topic=topic, type=IMAGE, encoding="rgb8", shape=(*size, 3), source=source
    )
    return read_image(made, message)


def compress(pixels: np.ndarray) -> bytes:
    """A PNG, without loss, of pixels as a stream of rgb8 or of one channel of integers has them."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", pixels)[1])


def _plain(stream: Any, message: Any) -> tuple[str, np.ndarray]:
    """Encoding and pixels ``(H, W[, C])`` of a sensor_msgs/Image, without padding."""
    encoding = _checked(stream, message.encoding)
    _check_size(stream, message.height, message.width)
    dtype, channels = SOURCES[encoding]
    height, row_bytes = message.height, _row_bytes(encoding, message.width)
    length = len(message.data)
    if message.step < row_bytes or not (
        message.step * (height - 1) + row_bytes <= length <= message.step * height
    ):
        raise MessageError(
            f"{stream.topic}: expected rows of {row_bytes} bytes and {row_bytes * height} in all, "
            f"saw {message.step} and {length}"
        )
    order: Literal[">", "<"] = ">" if message.is_bigendian else "<"
    raw = np.frombuffer(message.data, dtype=np.uint8)
    if message.step != row_bytes:
        padding = message.step * height - length  # the last row may lack its own
        raw = np.pad(raw, (0, padding)) if padding else raw
        raw = np.ascontiguousarray(raw.reshape(height, message.step)[:, :row_bytes])
    pixels = raw.reshape(-1).view(np.dtype(dtype).newbyteorder(order)).astype(dtype)
    shape = (height, message.width, channels)[: 3 if channels > 1 else 2]
    return encoding, pixels.reshape(shape)


def _row_bytes(encoding: str, width: int) -> int:
    dtype, channels = SOURCES[encoding]
    return width * channels * np.dtype(dtype).itemsize


def _checked(stream: Any, encoding: str) -> str:
    """The encoding of a message, if it is the declared one, or what the policy sees already."""
    source = source_of(stream)
    if encoding in (source.encoding, stream.encoding):
        return encoding
    if encoding in CONVERTIBLE[stream.encoding]:
        hint = f"; if the driver sends that, declare 'source_encoding: {encoding}'"
    else:
        hint = f"; {stream.encoding} is made of {', '.join(CONVERTIBLE[stream.encoding])} only"
    raise MessageError(
        f"{stream.topic}: expected encoding {source.encoding}, saw {quoted(encoding)}{hint}"
    )


def _check_size(stream: Any, height: int, width: int) -> None:
    source = source_of(stream)
    if (height, width) in (source.shape, stream.shape[:2]):
        return
    tall, wide = source.shape
    raise MessageError(
        f"{stream.topic}: expected {wide}x{tall} px, saw {width}x{height}; if the driver sends "
        f"that, declare 'source_shape: [{height}, {width}]' and how to 'crop' or 'resize' it"
    )


def _converted(pixels: np.ndarray, encoding: str, wanted: str) -> np.ndarray:
    """Pixels of another encoding; ``(H, W, C)`` in memory order, ``(H, W)`` of one channel."""
    if encoding == wanted:
        return pixels
    if wanted == "rgb8":
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), _TO_RGB[encoding]))
    if wanted == "mono8":
        if encoding == "mono16":  # 65535 reads as 255
            return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        rgb = _converted(pixels, encoding, "rgb8")
        return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    if wanted == "mono16":
        return pixels.astype(np.uint16) * np.uint16(257)
    if wanted == "32FC1":
        metres = pixels.astype(np.float32) / np.float32(1000)
        metres[pixels == 0] = np.nan
        return metres
    if encoding == "mono16":  # 16UC1 by another name
        return pixels
    with np.errstate(invalid="ignore"):
        millimetres = np.rint(pixels.astype(np.float64) * 1000)
        sound = (millimetres > 0) & (millimetres <= np.iinfo(np.uint16).max)
    return np.where(sound, millimetres, 0).astype(np.uint16)


def _decompressed(stream: Any, message: Any) -> tuple[str, np.ndarray, int]:
    """Encoding and pixels of a JPEG, a PNG or a compressed depth image, and by what number its
    sides have been divided.

    The size is read from the file's head first: nobody may make us unpack a huge picture.
    """
    data = bytes(message.data)
    depth = "compressedDepth" in message.format
    scale: tuple[float, float] | None = None
    if depth:
        kind = message.format.split(";")[0].strip()
        encoding = _checked(stream, kind if kind in _DEPTH else source_of(stream).encoding)
        if len(data) < DEPTH_HEADER.size:
            raise MessageError(f"{stream.topic}: expected a compressed depth image, saw no header")
        _, a, b = DEPTH_HEADER.unpack_from(data)
        scale = (a, b) if encoding == "32FC1" else None
        data = data[DEPTH_HEADER.size :]
    head, colours = _head_of(data)
    if head is None or (depth and not data.startswith(_PNG)):
        raise MessageError(
            f"{stream.topic}: expected a whole {'PNG' if depth else 'JPEG or PNG'}, saw other "
            f"bytes (format {quoted(message.format)})"
        )
    _check_size(stream, *head)
    part = _reduction(stream, head) if colours else 1
    flags = cv2.IMREAD_UNCHANGED
    if part > 1:
        flags = _REDUCED[colours, part] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        found = None
    if found is None or found.shape[:2] != (head[0] // part, head[1] // part):
        raise MessageError(f"{stream.topic}: expected a sound picture, saw one that is damaged")
    if depth:
        return encoding, _depth(stream, np.asarray(found), scale), 1
    pixels = np.asarray(found)
    return _stored(stream, pixels), pixels, part


def _reduction(stream: Any, head: tuple[int, int]) -> int:
    """By how much a JPEG can be made smaller while it is unpacked, which saves half the time: it
    is to become smaller still, by means of areas, and all its edges stay whole pixels."""
    source = source_of(stream)
    if source.resize != "area" or head != source.shape:
        return 1
    tall, wide = source.shape
    left, top, width, height = source.crop or (0, 0, wide, tall)
    for part in (8, 4, 2):
        exact = not any(number % part for number in (tall, wide, left, top, width, height))
        if exact and height // part >= stream.shape[0] and width // part >= stream.shape[1]:
            return part
    return 1


def _stored(stream: Any, pixels: np.ndarray) -> str:
    """The encoding of what OpenCV unpacks; refuses another than declared."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    wanted = source_of(stream).encoding
    kinds = {
        ("uint8", 1): ("mono8",),
        ("uint8", 3): ("bgr8", "rgb8"),
        ("uint8", 4): ("bgra8", "rgba8"),
        ("uint16", 1): ("16UC1", "mono16"),
    }
    names = kinds.get((str(pixels.dtype), channels), (f"{channels} x {pixels.dtype}",))
    if wanted in names or stream.encoding in names:
        return names[0] if channels > 1 else wanted if wanted in names else stream.encoding
    return _checked(stream, names[-1])


def _depth(stream: Any, stored: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """Depth ``(H, W)`` of a compressed depth image: millimetres, or metres ``a / (stored - b)``."""
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise MessageError(f"{stream.topic}: expected 16 bits a pixel, saw {stored.dtype}")
    if scale is None:
        return stored
    metres = np.full(stored.shape, np.nan, dtype=np.float32)
    seen = stored > 0
    a, b = (np.float32(value) for value in scale)
    with np.errstate(divide="ignore"):
        metres[seen] = a / (stored[seen].astype(np.float32) - b)
    return metres


def _head_of(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """Height and width that the head of a JPEG or PNG names, None of anything else; and of a JPEG
    of grey or colours the number of its channels, else 0."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return (height, width), 0
    if not data.startswith(_JPEG) or b"\xff\xd9" not in data.rstrip(b"\0")[-TAIL:]:
        return None, 0  # no JPEG, or one cut short, whose lower part would come out grey
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, (length,) = data[place + 1], struct.unpack_from(">H", data, place + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            channels = data[place + 9]
            return (height, width), channels if channels in (1, 3) else 0
        place += 2 + length
    return None, 0
