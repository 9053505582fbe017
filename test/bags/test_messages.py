"""The fast way to an image against the general one."""

from __future__ import annotations

from dataclasses import replace

import bag_maker as maker
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.bags.messages import Decoder, SampleDecoder, decode_image
from embodied_rl.bags.storage import TopicInfo
from embodied_rl.core.decode import decode
from embodied_rl.core.embodiment import IMAGE, JOINT_STATE, Stream
from embodied_rl.core.errors import MessageError


def raw(message) -> bytes:
    return maker.Entry(0, "", message).raw()


@given(
    stamp=st.integers(1, 2**31 * 10**9 - 1),
    frame=st.text(max_size=12),
    encoding=st.sampled_from(["rgb8", "mono8", "mono16", "32FC1", "", "bayer_rggb8"]),
    size=st.tuples(st.integers(0, 5), st.integers(0, 7)),
    big=st.booleans(),
)
def test_fields_equal_the_general_decoder(stamp, frame, encoding, size, big):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    message = replace(maker.image(stamp, pixels, encoding, frame), is_bigendian=int(big))
    data = raw(message)
    general, fast = maker.STORE.deserialize_cdr(data, IMAGE), decode_image(memoryview(data))
    assert fast is not None
    for name in "height", "width", "encoding", "is_bigendian", "step":
        assert getattr(fast, name) == getattr(general, name)
    assert fast.header.frame_id == general.header.frame_id
    assert fast.header.stamp.sec == general.header.stamp.sec
    assert fast.header.stamp.nanosec == general.header.stamp.nanosec
    assert bytes(fast.data) == general.data.tobytes()


@pytest.mark.parametrize(
    ("encoding", "dtype", "shape"),
    [
        ("rgb8", "uint8", (4, 5, 3)),
        ("mono8", "uint8", (4, 5)),
        ("mono16", "uint16", (4, 5)),
        ("16UC1", "uint16", (4, 5)),
        ("32FC1", "float32", (4, 5)),
    ],
)
@pytest.mark.parametrize("frame", ["", "a", "ab", "abc"])  # every alignment of the pixels
def test_samples_are_identical(encoding, dtype, shape, frame):
    stream = Stream("camera", "camera", IMAGE, shape, dtype, 10.0, 1.0, encoding=encoding)
    pixels = np.random.default_rng(1).integers(0, 255, shape).astype(dtype)
    data = raw(maker.image(7, pixels, encoding, frame))
    fast = decode(stream, decode_image(data))
    general = decode(stream, maker.STORE.deserialize_cdr(data, IMAGE))
    assert fast.stamp_ns == general.stamp_ns == 7
    assert fast.value.dtype == general.value.dtype == np.dtype(dtype)
    assert fast.value.tobytes() == general.value.tobytes() == pixels.tobytes()
    views = SampleDecoder(copy=False)
    views(stream, decode_image(data))  # from the second on, images of one make are views
    view = views(stream, decode_image(data))
    assert view.stamp_ns == 7 and view.value.dtype == general.value.dtype
    assert view.value.shape == shape and view.value.tobytes() == pixels.tobytes()
    other = decode_image(raw(maker.image(8, pixels[:2], encoding, frame)))
    with pytest.raises(MessageError, match="expected 5x4 px, saw 5x2"):
        views(stream, other)
    with pytest.raises(MessageError, match="stamp"):
        views(stream, decode_image(raw(maker.image(0, pixels, encoding, frame))))


names = st.lists(st.text(max_size=6), max_size=4)
numbers = st.lists(st.floats(allow_nan=False, width=64), max_size=4)


@given(messages=st.lists(st.tuples(st.text(max_size=5), names, numbers, numbers, numbers)))
def test_joint_states_equal_the_general_decoder(messages):
    """Names that stay and names that change, in turn through one decoder."""
    decoder = Decoder()
    for frame, joints, *values in [*messages, *messages]:
        position, velocity, effort = (np.array(v, dtype=np.float64) for v in values)
        message = maker.make(
            JOINT_STATE, header=maker.header(5, frame), name=joints, position=position,
            velocity=velocity, effort=effort,
        )  # fmt: skip
        data = raw(message)
        general, fast = (
            maker.STORE.deserialize_cdr(data, JOINT_STATE),
            decoder("", JOINT_STATE, data),
        )
        assert type(fast).__module__ == "embodied_rl.bags.messages"
        assert list(fast.name) == list(general.name)
        assert fast.header.frame_id == frame and fast.header.stamp.nanosec == 5
        for field in "position", "velocity", "effort":
            assert getattr(fast, field).tobytes() == getattr(general, field).tobytes()


@given(cut=st.integers(0, 140), value=st.integers(0, 255), place=st.integers(0, 139))
def test_spoilt_bytes_are_refused_or_read_but_never_crash(cut, value, place):
    decoder = Decoder()
    image = maker.image(7, np.zeros((3, 4, 3), np.uint8))
    for kind, message in (IMAGE, image), (JOINT_STATE, maker.joint_state(7, 0.5)):
        data = bytearray(raw(message))
        decoder("/t", kind, bytes(data))
        data[place % len(data)] = value
        try:
            decoder("/t", kind, bytes(data[:cut]))
        except MessageError as error:
            assert str(error).startswith("/t: expected ")


def test_big_endian_message():
    message = maker.image(7, np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    data = bytes(maker.STORE.serialize_cdr(message, IMAGE, little_endian=False))
    fast = decode_image(data)
    assert fast is not None and (fast.height, fast.encoding) == (2, "rgb8")
    assert bytes(fast.data) == bytes(range(12))


def test_types_of_the_bag_itself_are_learnt():
    definition = "std_msgs/Header header\nfloat64 pressure\n"
    topic = TopicInfo("/p", "acme_msgs/msg/Pressure", 1, "ros2msg", definition)
    decoder = Decoder([topic])
    header = raw(maker.header(3_000_000_000, "hose"))
    data = header + bytes(-(len(header) - 4) % 8) + np.float64(2.5).tobytes()
    message = decoder("/p", topic.type, data)
    assert message.pressure == 2.5 and message.header.frame_id == "hose"
    with pytest.raises(MessageError, match="known message type"):
        Decoder()("/p", topic.type, data)  # what one bag defines does not leak
