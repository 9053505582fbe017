"""From the bytes of a recorded message to an object with the message's fields, without ROS."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.store import Typestore

from embodied_rl.bags.definitions import Refused, types_of
from embodied_rl.bags.report import Report
from embodied_rl.bags.storage import TopicInfo
from embodied_rl.core.decode import StreamDecoder, stamp_ns
from embodied_rl.core.embodiment import IMAGE, JOINT_STATE, Stream
from embodied_rl.core.errors import MessageError, NotForThisStream, quoted
from embodied_rl.core.images import verbatim
from embodied_rl.core.message_types import GRIPPER_COMMAND, TRAJECTORY_FEEDBACK
from embodied_rl.core.streams import HEADER
from embodied_rl.core.window import Sample

GOAL_ID_BYTES = 16  # before the feedback of an action
_ENDIAN = {b"\x00\x00": ">", b"\x00\x01": "<"}  # plain CDR, big and little
_UNREADABLE = (
    SerdeError, struct.error, ValueError, IndexError, KeyError, TypeError, AssertionError,
    OverflowError, MemoryError, RecursionError,
)  # fmt: skip


# of packages that the store below lacks
_MORE = {GRIPPER_COMMAND: "float64 position\nfloat64 max_effort\n"}


def _new_store() -> Typestore:
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, definition in _MORE.items():
        store.register(get_types_from_msg(definition, name))
    return store


@cache
def standard_types() -> Typestore:
    """The messages of ROS 2 Jazzy; building this store takes a fifth of a second."""
    return _new_store()


@dataclass(frozen=True, slots=True)
class Time:
    sec: int
    nanosec: int


@dataclass(frozen=True, slots=True)
class Header:
    stamp: Time
    frame_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """The fields of sensor_msgs/Image; ``data`` is a view into the recorded bytes."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class JointState:
    """The fields of sensor_msgs/JointState; the arrays are views into the recorded bytes."""

    header: Header
    name: tuple[str, ...]
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


class Decoder:
    """Deserialises the messages of one bag.

    Standard types are known beforehand; others are learnt from the definitions in the bag. Images
    and joint states take paths of their own, since the ones are nearly all bytes of a bag and the
    others nearly all messages: pixels stay where they are, and joint names, which do not change
    from message to message, are read once.
    """

    def __init__(self, topics: Iterable[TopicInfo] = ()):
        self._store = standard_types()
        self._refused: dict[str, str] = {}  # type -> what is wrong with its definition
        unknown = [t for t in topics if t.type not in self._store.types and t.definition]
        if unknown:  # a store of its own: what one bag defines must not leak into the next
            self._store = _new_store()
        for topic in unknown:
            self._learn(topic)
        self._joint_states = _JointStates()

    def _learn(self, topic: TopicInfo) -> None:
        try:
            types, known = types_of(topic), self._store.types
            self._store.register({k: v for k, v in types.items() if k not in known})
        except Refused as error:
            self._refused[topic.type] = str(error)
        except TypesysError as error:
            self._refused[topic.type] = quoted(str(error))

    def __call__(self, topic: str, kind: str, data: bytes | memoryview) -> Any:
        """The message.

        Raises:
            MessageError: bytes that are not a message of this type, or an unknown type.
        """
        if kind == IMAGE:
            image = decode_image(data)
            if image is not None:
                return image
        elif kind == TRAJECTORY_FEEDBACK:
            return decode_feedback(topic, data)
        elif kind == JOINT_STATE:
            joints = self._joint_states.decode(data)
            if joints is not None:
                return joints
        if kind not in self._store.types:
            why = self._refused.get(kind)
            seen = f"{kind}, whose definition is refused: {why}" if why else kind
            raise MessageError(f"{topic}: expected a known message type, saw {seen}")
        try:
            return self._store.deserialize_cdr(data, kind)
        except _UNREADABLE as error:
            raise MessageError(
                f"{topic}: expected {kind}, saw {len(data)} bytes that are not one "
                f"({quoted(str(error))})"
            ) from error


class SampleDecoder:
    """:func:`embodied_rl.core.decode.decode` for a bag, optionally without copying pixels.

    What that function has found sound once (this stream, with this encoding, size and layout)
    needs no second look; later images of the same make are taken as views. They keep the chunk
    of the bag in memory that they lie in, so a view must not be kept for long.
    """

    def __init__(self, copy: bool):
        self._copy = copy
        self._sound: set[tuple[str, str, int, int, int, int]] = set()
        self._decoders: dict[str, StreamDecoder] = {}

    def latch(self, stream: Stream, message: Any) -> None:
        """Take a message of the stream's ``static_topic``; raises MessageError for too many
        frames."""
        self._of(stream).latch(message)

    def _of(self, stream: Stream) -> StreamDecoder:
        if stream.key not in self._decoders:
            self._decoders[stream.key] = StreamDecoder(stream)
        return self._decoders[stream.key]

    def __call__(self, stream: Stream, message: Any, received_ns: int | None = None) -> Sample:
        """The sample of a stream in a message that was recorded at ``received_ns``.

        Raises:
            NotForThisStream: it has nothing for the stream, or the stream is not whole yet.
            MessageError: the message must not reach a policy.
        """
        decode = self._of(stream)
        if self._copy or not isinstance(message, Image) or message.is_bigendian:
            return decode(message, received_ns)
        make = (
            stream.key, message.encoding, message.height, message.width, message.step,
            len(message.data),
        )  # fmt: skip
        stamp = stamp_ns(message.header)
        if make not in self._sound or stamp <= 0:
            sample = decode(message, received_ns)
            if stream.stamps == HEADER and verbatim(stream, message):
                self._sound.add(make)
            return sample
        pixels = np.frombuffer(message.data, dtype=np.dtype(stream.dtype).newbyteorder("<"))
        return Sample(stamp, pixels.astype(stream.dtype, copy=False).reshape(stream.shape))

    def by_stamp(
        self, streams: Iterable[Stream], message: Any, received_ns: int, topic: str, report: Report
    ) -> dict[int, list[tuple[str, Sample]]]:
        """Stamp -> key and sample of each stream that the message has something for; more than
        one stamp only of a message that holds several, such as TF. Faults go to the report."""
        found: dict[int, list[tuple[str, Sample]]] = {}
        for stream in streams:
            try:
                sample = self(stream, message, received_ns)
            except NotForThisStream:
                continue
            except MessageError as error:
                report.add_error(topic, error)
                continue
            found.setdefault(sample.stamp_ns, []).append((stream.key, sample))
        return found


def decode_image(data: bytes | memoryview) -> Image | None:
    """A serialised sensor_msgs/Image, its pixels as a view; None where the bytes are not plain."""
    order = _ENDIAN.get(bytes(data[:2]))
    if order is None:
        return None
    body = memoryview(data)[4:]
    try:
        sec, nanosec, length = struct.unpack_from(order + "iII", body, 0)
        frame_id, end = _text(body, 12, length)
        height, width, length = struct.unpack_from(order + "III", body, _aligned(end))
        encoding, end = _text(body, _aligned(end) + 12, length)
        is_bigendian = body[end]
        step, length = struct.unpack_from(order + "II", body, _aligned(end + 1))
    except (struct.error, UnicodeDecodeError, IndexError):
        return None
    start = _aligned(end + 1) + 8
    if start + length > len(body):
        return None
    pixels = body[start : start + length]
    header = Header(Time(sec, nanosec), frame_id)
    return Image(header, height, width, encoding, is_bigendian, step, pixels)


def decode_feedback(topic: str, data: bytes | memoryview) -> JointState:
    """The desired positions in the feedback of a FollowJointTrajectory action; what follows them
    differs between distributions.

    Raises:
        MessageError: bytes that are not such a message.
    """
    order = _ENDIAN.get(bytes(data[:2]))
    body = memoryview(data)[4:]
    try:
        if order != "<":
            raise ValueError("not little-endian")
        sec, nanosec, length = struct.unpack_from("<iII", body, GOAL_ID_BYTES)
        frame_id, end = _text(body, GOAL_ID_BYTES + 12, length)
        names, end = _texts(body, _aligned(end))
        desired, _ = _doubles(body, end)
    except (struct.error, UnicodeDecodeError, ValueError, IndexError) as error:
        raise MessageError(
            f"{topic}: expected {TRAJECTORY_FEEDBACK}, saw {len(data)} bytes that are not one "
            f"({quoted(str(error))})"
        ) from error
    none = np.zeros(0)
    return JointState(Header(Time(sec, nanosec), frame_id), names, desired, none, none)


class _JointStates:
    """Decodes sensor_msgs/JointState, given that most messages list the same joints."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._block = b""  # the names as they lie in a message

    def decode(self, data: bytes | memoryview) -> JointState | None:
        """The message; None where the bytes are not plain little-endian CDR."""
        if bytes(data[:2]) != b"\x00\x01":
            return None
        body = memoryview(data)[4:]
        try:
            sec, nanosec, length = struct.unpack_from("<iII", body, 0)
            frame_id, end = _text(body, 12, length)
            start = _aligned(end)
            end = start + len(self._block)
            if not self._block or bytes(body[start:end]) != self._block:
                self._names, end = _texts(body, start)
                self._block = bytes(body[start:end])
            position, end = _doubles(body, end)
            velocity, end = _doubles(body, end)
            effort, _ = _doubles(body, end)
        except (struct.error, UnicodeDecodeError, ValueError, IndexError):
            return None
        header = Header(Time(sec, nanosec), frame_id)
        return JointState(header, self._names, position, velocity, effort)


def _texts(body: memoryview, start: int) -> tuple[tuple[str, ...], int]:
    """A sequence of CDR strings, and where the last one ends."""
    (count,) = struct.unpack_from("<I", body, start)
    found, end = [], start + 4
    for _ in range(count):
        (length,) = struct.unpack_from("<I", body, _aligned(end))
        text, end = _text(body, _aligned(end) + 4, length)
        found.append(text)
    return tuple(found), end


def _doubles(body: memoryview, start: int) -> tuple[np.ndarray, int]:
    """A sequence of CDR float64, and where it ends."""
    start = _aligned(start)
    (count,) = struct.unpack_from("<I", body, start)
    start += 4
    if count == 0:  # not even padded for a first element
        return np.zeros(0), start
    start = (start + 7) & ~7
    return np.frombuffer(body, "<f8", count, start), start + 8 * count


def _text(body: memoryview, start: int, length: int) -> tuple[str, int]:
    """A CDR string, whose length counts the zero at its end; and where it ends."""
    if start + length > len(body):
        raise IndexError("string reaches past the message")
    return bytes(body[start : start + max(length - 1, 0)]).decode("utf-8"), start + length


def _aligned(offset: int) -> int:
    return (offset + 3) & ~3
