"""Live streams as drivers send them: parts of one topic, no header, and a frame turned about."""

from __future__ import annotations

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.nodes import messages, qos
from embodied_rl.nodes.stream_input import StreamInput

JOINTS = (
    "topic: joint_states, type: sensor_msgs/msg/JointState, field: position, unit: rad, "
    "rate_hz: 50, max_age_s: 0.1"
)
ROBOT = f"""
name: parts
control_rate_hz: 10
frames: {{base: {{parent: base_link, xyz: [0, 0, 0.5], rpy: [0, 0, 3.141592653589793]}}}}
streams:
  arm: {{{JOINTS}, joints: [a, b], prefix: left_}}
  grip: {{{JOINTS}, joints: [g]}}
  all: {{{JOINTS}, joints: [g, h], split: true}}
  force: {{topic: force, type: std_msgs/msg/Float64, stamps: receive, rate_hz: 20, max_age_s: 0.2}}
  tool: {{topic: tool, type: geometry_msgs/msg/PoseStamped, field: position, rate_hz: 20,
         max_age_s: 0.2}}
commands:
  grip: {{topic: grip, type: std_msgs/msg/Float64, joints: [g], lower: [0], upper: [1],
         max_velocity: [5]}}
"""


def test_parts_headerless_and_turned_messages_arrive_without_a_complaint(probe):
    node, robot, found = probe.node, Embodiment.parse(ROBOT, "parts.yaml"), {}
    ear = StreamInput(
        node, robot, robot.streams, lambda key, sample, _: found.setdefault(key, sample)
    )
    speak = {
        topic: node.create_publisher(kind, topic, qos.reliable(10))
        for topic, kind in (("joint_states", JointState), ("force", Float64), ("tool", PoseStamped))
    }
    probe.until(lambda: all(p.get_subscription_count() for p in speak.values()), "subscriptions")
    stamp = messages.time_message(messages.now_ns(node))
    parts = [{"left_a": 0.5, "left_b": 0.25}, {"g": 0.125}, {"h": 1.0}]
    for part in parts:
        message = JointState(name=list(part), position=list(part.values()))
        message.header.stamp = stamp
        speak["joint_states"].publish(message)
    speak["force"].publish(Float64(data=7.0))
    tool = PoseStamped()
    tool.header.stamp, tool.header.frame_id = stamp, "base"
    tool.pose.position.x, tool.pose.orientation.w = 1.0, 1.0
    speak["tool"].publish(tool)
    probe.until(lambda: len(found) == len(robot.streams), "a sample of every stream")
    values = {key: sample.value.round(12).tolist() for key, sample in found.items()}
    assert values == {
        "arm": [0.5, 0.25], "grip": [0.125], "all": [0.125, 1.0], "force": [7.0],
        "tool": [-1.0, 0.0, 0.5],
    }  # fmt: skip
    assert not any(meter.refused for meter in ear.meters.values())
    assert ear.meters["arm"].others == 2 and ear.meters["grip"].others == 2
    ear.close()
