"""Streams of tf in a live node: what is latched on tf_static reaches the decoders that need it."""

from __future__ import annotations

from types import SimpleNamespace as Msg

import pytest
import yaml

pytest.importorskip("rclpy")

from rclpy.qos import DurabilityPolicy  # noqa: E402

from embodied_rl.core.embodiment import Embodiment  # noqa: E402
from embodied_rl.nodes import messages  # noqa: E402
from embodied_rl.nodes.stream_input import StreamInput  # noqa: E402

KIND = "tf2_msgs/msg/TFMessage"
NOW_NS = 7 * 10**9
TF = {"topic": "tf", "type": KIND, "child_frame": "tool", "rate_hz": 50, "max_age_s": 0.1}


class Node:
    """Keeps what subscribes, by topic."""

    def __init__(self):
        self.ears, self.lines = {}, []

    def create_subscription(self, kind, topic, callback, profile, **_):
        assert topic not in self.ears
        self.ears[topic] = (callback, profile)

    def get_clock(self):
        return Msg(now=lambda: Msg(nanoseconds=NOW_NS))

    def get_logger(self):
        return Msg(error=self.lines.append)


def transforms(*edges):
    def stamped(parent, child, x):
        return Msg(
            header=Msg(stamp=Msg(sec=7, nanosec=0), frame_id=parent),
            child_frame_id=child,
            transform=Msg(
                translation=Msg(x=x, y=0.0, z=0.0), rotation=Msg(x=0.0, y=0.0, z=0.0, w=1.0)
            ),
        )

    return Msg(transforms=[stamped(*edge) for edge in edges])


@pytest.fixture
def heard(monkeypatch):
    """A node's input, and the samples that it hands on."""
    monkeypatch.setattr(messages, "message_class", lambda kind: kind)  # tf2_msgs has no wheel
    joints = {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "field": "position",
              "joints": ["a"], "rate_hz": 50, "max_age_s": 0.1}  # fmt: skip
    data = {
        "name": "own",
        "control_rate_hz": 10,
        "streams": {"arm": joints, "place": {**TF, "field": "position"},
                    "turn": {**TF, "field": "orientation"}},
        "commands": {"arm": {"topic": "arm", "type": "std_msgs/msg/Float64", "joints": ["a"],
                             "lower": [0], "upper": [1], "max_velocity": [1]}},
    }  # fmt: skip
    robot, node, found = Embodiment.parse(yaml.safe_dump(data), "own.yaml"), Node(), []
    StreamInput(node, robot, robot.streams, lambda key, sample, _: found.append((key, sample)))
    return node, found


def test_one_latched_subscription_serves_all_streams_of_a_topic(heard):
    node, found = heard
    assert set(node.ears) == {"joint_states", "tf", "tf_static"}
    say = {topic: lambda m, c=callback: c(m, {}) for topic, (callback, _) in node.ears.items()}
    assert node.ears["tf_static"][1].durability == DurabilityPolicy.TRANSIENT_LOCAL
    say["tf"](transforms(("base_link", "arm", 1.0)))
    assert found == []  # nobody has said where the tool is on the arm
    say["tf_static"](transforms(("arm", "tool", 0.25)))
    say["tf"](transforms(("base_link", "arm", 1.0)))
    assert [key for key, _ in found] == ["place", "turn"]
    assert found[0][1].value.tolist() == [1.25, 0, 0] and found[0][1].stamp_ns == NOW_NS
    assert found[1][1].value.tolist() == [0, 0, 0, 1] and node.lines == []


def test_more_frames_than_are_remembered_are_refused(heard):
    node, _ = heard
    callback, _ = node.ears["tf_static"]
    callback(transforms(*[("base_link", f"f{i}", 0.0) for i in range(1025)]), {})
    assert any("tf: expected at most 1024 frames, saw more" in line for line in node.lines)
