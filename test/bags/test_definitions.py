"""Message definitions of others: what they may ask for, and what they may not."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from embodied_rl.bags.definitions import LARGEST, Refused, types_of
from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.storage import TopicInfo
from embodied_rl.core.errors import MessageError

NEXT = "\n" + "=" * 80 + "\n"
DOUBLED = NEXT.join(f"MSG: x/M{i}\nx/M{i + 1} a\nx/M{i + 1} b" for i in range(40))


def topic(definition: str, encoding: str = "ros2msg") -> TopicInfo:
    return TopicInfo("/a", "x/msg/A", 1, encoding, definition)


def test_a_type_of_one_s_own_is_decoded():
    definition = f"uint8[1000] a\nx/E[3] b\nstring[] c{NEXT}MSG: x/E\nfloat64 q"
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(definition, "x/msg/A"))
    inner = [store.types["x/msg/E"](q=float(i)) for i in range(3)]
    message = store.types["x/msg/A"](a=np.arange(1000).astype(np.uint8), b=inner, c=["x"])
    data = bytes(store.serialize_cdr(message, "x/msg/A"))
    found = Decoder([topic(definition)])("/a", "x/msg/A", data)
    assert [entry.q for entry in found.b] == [0, 1, 2] and found.c == ["x"]


@pytest.mark.parametrize(
    ("definition", "encoding", "why"),
    [
        ("x/A a", "ros2msg", "contains itself"),
        (f"x/B b{NEXT}MSG: x/B\nx/A a", "ros2msg", "contains itself"),
        ("x/A[] a\nuint8 q", "ros2msg", "contains itself"),
        (f"x/E[1000000000] a{NEXT}MSG: x/E\n", "ros2msg", f"more than {LARGEST}"),
        ("string[1000000] a", "ros2msg", f"more than {LARGEST}"),
        (f"x/M0 a{NEXT}{DOUBLED}{NEXT}MSG: x/M40\nuint8 q\n", "ros2msg", f"more than {LARGEST}"),
        ("uint8[" + "9" * 9999 + "] a", "ros2msg", "cannot be read"),
        ("\0\1\2", "ros2msg", "Could not parse"),
        ("uint8 a\n" * 100_000, "ros2msg", "characters"),
        ("module x { " * 2000 + " }" * 2000, "ros2idl", "cannot be read"),
    ],
)
def test_hostile_definitions_cost_one_line(definition, encoding, why):
    began = time.monotonic()
    with pytest.raises(Refused, match=why):
        types_of(topic(definition, encoding))
    with pytest.raises(MessageError, match="definition is refused") as error:
        Decoder([topic(definition, encoding)])("/a", "x/msg/A", b"\0\1\0\0" + bytes(64))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert time.monotonic() - began < 10
