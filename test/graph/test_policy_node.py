"""Bad input over real topics: what the policy node refuses, and that it says so."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.window import Sample
from embodied_rl.nodes.messages import encode_topic

from .conftest import EMBODIMENT

PERIOD_S = 0.02  # every stream is fed at 50 Hz, enough for all of them


class Robot:
    """Publishes the four state streams of the embodiment from wall-clock timers."""

    def __init__(self, probe):
        self.embodiment = Embodiment.load(EMBODIMENT)
        self.node = probe.node
        self.spoil: dict[str, object] = {}  # topic -> function that damages a message
        self.skip = {"joint_states": 0, "tcp_pose_broadcaster/pose": 0, "object_pose": 0}
        self._count = 0
        self._publishers = {
            topic: self.node.create_publisher(
                JointState if topic == "joint_states" else PoseStamped,
                topic,
                # A driver may offer no more than this; the node has to settle for it.
                qos_profile_sensor_data if topic == "object_pose" else 50,
            )
            for topic in self.skip
        }
        self._timer = self.node.create_timer(PERIOD_S, self._publish)

    def _publish(self) -> None:
        self._count += 1
        now_ns = self.node.get_clock().now().nanoseconds
        for topic, publisher in self._publishers.items():
            if self.skip[topic] and self._count % self.skip[topic]:
                continue
            group = self.embodiment.topics()[topic]
            samples = {s.key: Sample(now_ns, np.full(s.shape, 0.1)) for s in group}
            message = encode_topic(group, samples, "base_link")
            if topic in self.spoil:
                self.spoil[topic](message)
            publisher.publish(message)


@pytest.fixture
def robot(probe):
    return Robot(probe)


def reasons(states) -> str:
    return " ".join(
        status.message + " ".join(value.value for value in status.values)
        for _, array in states
        for status in array.status
        if status.name == "policy_node"
    )


def start(probe, processes) -> list:
    processes.start("policy_node", policy="expert", task="replace_object", embodiment=EMBODIMENT)
    states = probe.collect(DiagnosticArray, "/diagnostics")
    assert probe.change(Transition.TRANSITION_CONFIGURE)
    return states


def test_activates_with_sound_streams_only(robot, probe, processes):
    robot.skip["joint_states"] = 2  # 25 of 50 Hz
    states = start(probe, processes)
    probe.until(
        lambda: not probe.change(Transition.TRANSITION_ACTIVATE) and "saw 2" in reasons(states),
        "refusal of a slow stream",
    )
    assert "'arm_position' on joint_states: expected at least 80% of 50 Hz" in reasons(states)
    robot.skip["joint_states"] = 0
    probe.until(lambda: probe.change(Transition.TRANSITION_ACTIVATE), "activation")
    refused = probe.call(Trigger, "policy_node/next_episode")
    assert not refused.success and "has no trials" in refused.message


def test_names_the_missing_stream(robot, probe, processes):
    robot.skip["object_pose"] = 10**9
    states = start(probe, processes)
    named = "'object_position' on object_pose: expected 20 Hz, saw 0"
    probe.until(
        lambda: not probe.change(Transition.TRANSITION_ACTIVATE) and named in reasons(states),
        "refusal of a missing stream",
    )
    assert not probe.change(Transition.TRANSITION_ACTIVATE), "activated after the refusal"


def no_number(message) -> None:
    message.position[0] = float("nan")


def no_joint(message) -> None:
    message.name[0] = "somebody_elses_joint"


def from_the_future(message) -> None:
    message.header.stamp.sec += 5


def without_stamp(message) -> None:
    message.header.stamp.sec = message.header.stamp.nanosec = 0


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (no_number, "joint_states: shoulder_pan_joint: expected a finite number, saw nan"),
        (no_joint, "joint_states: expected joint shoulder_pan_joint, saw"),
        (from_the_future, "joint_states: expected a stamp not after the clock"),
        (without_stamp, "joint_states: expected a stamp in the header"),
    ],
)
def test_names_unsound_messages_and_never_acts_on_them(robot, probe, processes, spoil, line):
    states = start(probe, processes)
    probe.until(lambda: probe.change(Transition.TRANSITION_ACTIVATE), "activation")
    chunks = probe.collect(JointTrajectory, "policy/chunk")
    probe.until(lambda: len(chunks) > 2, "chunks while all is sound")
    robot.spoil["joint_states"] = spoil
    probe.until(lambda: line in reasons(states), f"line '{line}'")
    mark = time.monotonic()
    probe.until(lambda: time.monotonic() > mark + 0.4, "the last sound rows to be used up")
    count = len(chunks)
    probe.until(lambda: time.monotonic() > mark + 0.9, "half a second")
    assert len(chunks) == count, "acted on refused data"
