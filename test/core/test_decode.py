"""Messages to samples: what is read by name, and everything that is refused."""

from __future__ import annotations

import array
from types import SimpleNamespace as Msg

import numpy as np
import pytest
from core_cases import robot

from embodied_rl.core.decode import decode, stamp_ns
from embodied_rl.core.decode_commands import read_targets, read_trajectory
from embodied_rl.core.errors import MessageError, UserError

BODY = robot()
STREAMS = BODY.streams


def header(sec=12, nanosec=345):
    return Msg(stamp=Msg(sec=sec, nanosec=nanosec), frame_id="base")


def joint_state(**changes):
    fields = {
        "header": header(),
        "name": ["finger", "elbow", "other", "shoulder"],
        "position": array.array("d", [0.1, 0.2, 0.3, 0.4]),
        "velocity": array.array("d", [1, 2, 3, 4]),
        "effort": array.array("d"),
    }
    return Msg(**{**fields, **changes})


def image(key="camera", **changes):
    stream = STREAMS[key]
    pixels = np.arange(np.prod(stream.shape)).reshape(stream.shape).astype(stream.dtype)
    fields = {
        "header": header(),
        "encoding": stream.encoding,
        "height": 2,
        "width": 3,
        "step": pixels[0].nbytes,
        "data": pixels.tobytes(),
        "is_bigendian": 0,
    }
    return Msg(**{**fields, **changes})


def pose(x=1.0, y=2.0, z=3.0):
    return Msg(
        header=header(),
        pose=Msg(position=Msg(x=x, y=y, z=z), orientation=Msg(w=0.5, x=-0.5, y=0.1, z=0.7)),
    )


def test_stamps_are_whole_nanoseconds():
    assert stamp_ns(header(1_700_000_000, 999_999_999)) == 1_700_000_000_999_999_999


@pytest.mark.parametrize(
    ("key", "value"), [("arm", [0.4, 0.2]), ("speed", [2.0, 4.0]), ("grip", [0.1])]
)
def test_joints_are_taken_by_name_in_the_order_of_the_stream(key, value):
    sample = decode(STREAMS[key], joint_state())
    assert sample.stamp_ns == 12_000_000_345
    assert sample.value.tolist() == value and sample.value.dtype == np.float64


def test_poses():
    assert decode(STREAMS["thing"], pose()).value.tolist() == [1, 2, 3]
    assert decode(STREAMS["turn"], pose()).value.tolist() == [-0.5, 0.1, 0.7, 0.5]


@pytest.mark.parametrize("kind", [bytes, lambda d: array.array("B", d), np.frombuffer, bytearray])
@pytest.mark.parametrize("key", ["camera", "labels", "depth"])
def test_images_of_every_kind_of_buffer(key, kind):
    message = image(key)
    data = message.data
    message.data = np.frombuffer(data, np.uint8) if kind is np.frombuffer else kind(data)
    value = decode(STREAMS[key], message).value
    stream = STREAMS[key]
    assert value.dtype == np.dtype(stream.dtype) and value.dtype.isnative
    np.testing.assert_array_equal(value, np.arange(value.size).reshape(stream.shape))


@pytest.mark.parametrize(("key", "dtype"), [("labels", ">u2"), ("depth", ">f4")])
def test_big_endian_images(key, dtype):
    wanted = np.array([[1, 258, 3], [60000, 5, 6]])
    message = image(key, data=wanted.astype(dtype).tobytes(), is_bigendian=1)
    value = decode(STREAMS[key], message).value
    np.testing.assert_array_equal(value, wanted)
    assert value.dtype.isnative


def test_images_own_their_memory():
    data = bytearray(18)
    value = decode(STREAMS["camera"], image(data=data)).value
    data[:] = b"\xff" * 18
    assert not value.any()


def test_depth_may_hold_nan_where_nothing_was_measured():
    depth = np.array([[1, np.nan, 2], [3, np.inf, 4]], np.float32)
    value = decode(STREAMS["depth"], image("depth", data=depth.tobytes())).value
    np.testing.assert_array_equal(value, depth)


REFUSED = [
    ("arm", joint_state(header=header(0, 0)), "joint_states: expected a stamp"),
    ("arm", joint_state(header=header(-1, 5)), "joint_states: expected a stamp"),
    ("camera", image(header=header(0, 0)), "camera/fixed/image_raw: expected a stamp"),
    ("arm", joint_state(position=[1.0, 2.0]), "expected 4 values of position, saw 2"),
    ("speed", joint_state(velocity=[]), "expected 4 values of velocity, saw 0"),
    (
        "arm",
        joint_state(name=["a", "b"], position=[1.0, 2.0]),
        "expected joint shoulder, saw ['a', 'b']",
    ),
    (
        "arm",
        joint_state(name=["elbow", "shoulder", "elbow", "x"]),
        "expected each joint once, saw ['elbow'",
    ),
    ("arm", joint_state(position=[0, np.nan, 0, 0]), "elbow: expected a finite number, saw nan"),
    ("arm", joint_state(position=[0, 0, 0, -np.inf]), "shoulder: expected a finite number"),
    ("thing", pose(y=np.nan), "thing: position[1]: expected a finite number, saw nan"),
    (
        "camera",
        image(encoding="bgr8"),
        "saw 'bgr8'; if the driver sends that, declare 'source_encoding: bgr8'",
    ),
    ("labels", image("labels", encoding="mono8"), "expected encoding mono16, saw 'mono8'"),
    ("camera", image(width=2, height=3), "expected 3x2 px, saw 2x3"),
    ("camera", image(step=12), "expected rows of 9 bytes and 18 in all, saw 12 and 18"),
    ("camera", image(data=b"x" * 17), "saw 9 and 17"),
    ("camera", image(data=b""), "saw 9 and 0"),
]


@pytest.mark.parametrize(("key", "message", "said"), REFUSED)
def test_refusals_name_topic_and_what_was_seen(key, message, said):
    with pytest.raises(MessageError) as caught:
        decode(STREAMS[key], message)
    text = str(caught.value)
    assert text.startswith(f"{STREAMS[key].topic}: ") and said in text and "\n" not in text
    assert isinstance(caught.value, UserError)


def test_joints_that_no_stream_names_may_be_anything():
    message = joint_state(position=[0.1, 0.2, np.nan, 0.4])
    assert decode(STREAMS["arm"], message).value.tolist() == [0.4, 0.2]


# Commands

NAMES = ("shoulder", "elbow")


def trajectory(
    offsets=((0, 100_000_000), (1, 5)), rows=((1.0, 2.0), (3.0, 4.0)), names=NAMES[::-1]
):
    points = [
        Msg(positions=row, time_from_start=Msg(sec=sec, nanosec=nanosec))
        for (sec, nanosec), row in zip(offsets, rows, strict=True)
    ]
    return Msg(header=header(), joint_names=list(names), points=points)


def test_trajectories_are_reordered_by_name():
    stamp, times, values = read_trajectory(trajectory(), NAMES, "t")
    assert stamp == 12_000_000_345
    assert times.tolist() == [stamp + 100_000_000, stamp + 1_000_000_005]
    assert values.tolist() == [[2, 1], [4, 3]]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (trajectory(names=["elbow"]), "expected the joints ['shoulder', 'elbow'], saw ['elbow']"),
        (trajectory(names=["elbow", "shoulder", "elbow"]), "expected the joints"),
        (trajectory(names=["elbow", "wrist"]), "expected the joints"),
        (trajectory(offsets=(), rows=()), "expected points, saw none"),
        (trajectory(rows=((1.0, 2.0), (3.0,))), "expected 2 positions a point"),
        (trajectory(rows=((), ())), "expected 2 positions a point"),
        (trajectory(offsets=((0, 0), (1, 0))), "rising times_from_start above 0"),
        (trajectory(offsets=((1, 0), (1, 0))), "rising times_from_start above 0"),
        (trajectory(offsets=((2, 0), (1, 0))), "rising times_from_start above 0"),
        (trajectory(rows=((1.0, 2.0), (np.nan, 4.0))), "elbow: point 1 is not finite"),
    ],
)
def test_unsound_trajectories_are_refused(message, said):
    with pytest.raises(MessageError) as caught:
        read_trajectory(message, NAMES, "arm/go")
    assert str(caught.value).startswith("arm/go: ") and said in str(caught.value)


def test_plain_position_commands():
    command = BODY.commands["fingers"]
    assert read_targets(Msg(data=array.array("d", [0.5])), command).tolist() == [0.5]
    for data in ([], [0.1, 0.2], [np.nan], [np.inf]):
        with pytest.raises(MessageError, match="gripper/commands: expected 1 finite values"):
            read_targets(Msg(data=data), command)
