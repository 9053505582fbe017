"""The command gate against a robot that is as particular as a real one, over real topics."""

from __future__ import annotations

import signal
import time
from collections import deque

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Twist
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.bringup.environment import share_file
from embodied_rl.core.decode_commands import read_targets
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.heartbeat import Heartbeat
from embodied_rl.core.policy import ActionChunk
from embodied_rl.nodes import messages

ARM = """
name: two_joints
control_rate_hz: 20
streams:
  arm: {topic: joint_states, type: sensor_msgs/msg/JointState, field: position,
        joints: [lift, turn], unit: rad, rate_hz: 50, max_age_s: 1.0}
commands:
  arm: {topic: arm_controller/joint_trajectory, type: trajectory_msgs/msg/JointTrajectory,
        joints: [lift, turn], unit: rad, lower: [-3, -3], upper: [3, 3], max_velocity: [2, 2]}
"""
TOOL = """
name: cartesian
control_rate_hz: 20
streams:
  place: {topic: tcp_pose, type: geometry_msgs/msg/PoseStamped, field: position,
          rate_hz: 50, max_age_s: 1.0}
  turn: {topic: tcp_pose, type: geometry_msgs/msg/PoseStamped, field: orientation,
         rate_hz: 50, max_age_s: 1.0}
commands:
  tool: {topic: cartesian_motion_controller/target_frame, type: geometry_msgs/msg/PoseStamped,
         dimensions: [x, y, z, rx, ry, rz], orientation: [1, 0, 0, 0],
         lower: [0.2, -1, 0.2, -1, -1, -1], upper: [1.2, 1, 1.2, 1, 1, 1],
         max_velocity: [0.5, 0.5, 0.5, 1, 1, 1]}
"""
BASE = share_file("sim_worlds/arena/diff_drive.yaml")
SESSION = "beef"


class Robot:
    """A stand-in robot, a gate, and a policy that swings every joint, said by this process."""

    def __init__(self, probe, processes, path, **faults):
        self.probe, self.processes, self.path = probe, processes, path
        self.embodiment = Embodiment.load(path)
        text = yaml.safe_dump(faults, default_flow_style=True).strip()
        processes.start("stand_in_node", embodiment=path, faults=text)
        self.start_gate()
        node = probe.node
        self.truth: deque = deque(maxlen=200)  # (arrival in s, message)
        node.create_subscription(JointState, "stand_in/truth", self._on_truth, 10)
        self.executed = probe.collect(JointTrajectory, "command/executed")
        self.words: set[str] = set()  # of the gate, ever said on /diagnostics
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 10)
        self._chunks = node.create_publisher(JointTrajectory, "policy/chunk", 10)
        self._beats = node.create_publisher(Header, "policy/heartbeat", 10)
        self._faults = node.create_publisher(String, "stand_in/faults", 10)
        self.session, self._due_s = SESSION, 0.0
        probe.until(self._faults.get_subscription_count, "stand-in")
        probe.until(lambda: self.truth, "state of the robot")
        self.begin = self.state()

    def _on_truth(self, message) -> None:
        self.truth.append((time.monotonic(), message))

    def _on_report(self, array) -> None:
        for status in array.status:
            if status.name == "command_gate_node":
                self.words.add(status.message)
                self.words.update(f"{item.key}: {item.value}" for item in status.values)

    def start_gate(self) -> None:
        self.processes.start("command_gate_node", embodiment=self.path)

    def state(self) -> np.ndarray:
        return np.array(self.truth[-1][1].position)

    def refused(self) -> int:
        return int(self.truth[-1][1].header.frame_id)

    def faults(self, **given) -> None:
        self._faults.publish(String(data=yaml.safe_dump(given) if given else ""))

    def speak(self) -> None:
        """A chunk and a heartbeat, when they are due."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + self.embodiment.period_ns / 1e9
        period_ns = self.embodiment.period_ns
        tick_ns = time.time_ns() // period_ns * period_ns
        times_s = (tick_ns + period_ns * np.arange(1, 9)) % (60 * 10**9) / 1e9
        wave = 0.9 * np.sin(2 * times_s)[:, None]
        chunk = ActionChunk(tick_ns, period_ns, self.begin + wave)
        names = self.embodiment.action_names
        message = messages.trajectory(chunk, names, slice(0, len(names)))
        message.header.frame_id = self.session
        beat = Heartbeat(self.session, tick_ns).text()
        self._chunks.publish(message)
        self._beats.publish(Header(stamp=messages.time_message(tick_ns), frame_id=beat))

    def until(self, condition, what: str):
        """While the policy speaks."""

        def met():
            self.speak()
            return condition()

        return self.probe.until(met, what)

    def following(self) -> bool:
        return bool(self.executed) and len(self.executed[-1][1].points) > 1

    def held(self) -> bool:
        return bool(self.executed) and len(self.executed[-1][1].points) == 1

    def said(self, words: str) -> bool:
        return any(words in text for text in self.words)

    def rests(self) -> bool:
        """Whether the robot has not moved for a quarter of a second."""
        recent = [m.position for at, m in self.truth if at > time.monotonic() - 0.25]
        return len(recent) > 5 and bool(np.ptp(np.array(recent), axis=0).max() < 0.005)


@pytest.fixture
def arm_file(tmp_path):
    path = tmp_path / "two_joints.yaml"
    path.write_text(ARM)
    return path


@pytest.mark.parametrize("ahead_s", [0.19, -0.19])
def test_a_stop_is_accepted_by_a_robot_whose_clock_is_apart(probe, processes, arm_file, ahead_s):
    robot = Robot(probe, processes, arm_file, clock_offset_s=ahead_s, command_delay_s=0.05)
    robot.until(robot.following, "motion")
    stop = probe.node.create_publisher(Bool, "emergency_stop", qos_profile_sensor_data)
    probe.until(stop.get_subscription_count, "gate")

    def stopped() -> bool:
        stop.publish(Bool(data=True))  # best effort: said until it is heard
        return robot.said("emergency stop")

    robot.until(stopped, "stop")
    robot.until(robot.rests, "rest")
    robot.until(lambda: robot.said("stands_confirmed: True"), "confirmation by the measured joints")
    assert robot.refused() == 0


def test_a_tool_is_led_within_its_limits_from_its_measured_pose_and_stands_after_a_stop(
    probe, processes, tmp_path
):
    path = tmp_path / "cartesian.yaml"
    path.write_text(TOOL)
    sent = probe.collect(PoseStamped, "cartesian_motion_controller/target_frame")
    robot = Robot(probe, processes, path)
    tool, limits = robot.embodiment.commands["tool"], robot.embodiment.limits()
    robot.until(lambda: np.ptp([m.position[5] for _, m in robot.truth]) > 0.4, "motion")
    targets = np.array([read_targets(message, tool) for _, message in sent])
    assert np.all(np.abs(targets[0] - robot.begin) <= limits[2] * 0.05 + 1e-6)
    assert np.all(np.abs(np.diff(targets, axis=0)) <= limits[2] * 0.05 + 1e-6)
    robot.faults(blocked=["tool_rz"])
    robot.until(lambda: robot.said("tool_rz does not follow"), "hold of a tool that cannot turn")
    robot.faults()
    robot.until(robot.following, "motion that goes on")
    stop = probe.node.create_publisher(Bool, "emergency_stop", 10)
    probe.until(stop.get_subscription_count, "gate")

    def stopped() -> bool:
        stop.publish(Bool(data=True))
        return robot.said("state: STOPPED")

    robot.until(stopped, "stop")
    robot.until(robot.rests, "rest")
    assert np.allclose(read_targets(sent[-1][1], tool), robot.state(), atol=0.05)
    assert robot.refused() == 0


def test_a_stop_from_before_the_gate_holds_and_a_release_begins_where_the_arm_was_led(
    probe, processes, arm_file
):
    robot = Robot(probe, processes, arm_file)
    robot.until(robot.following, "motion")
    processes.kill("command_gate_node")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    button = probe.node.create_publisher(Bool, "emergency_stop", latched)
    button.publish(Bool(data=True))
    robot.executed.clear()
    robot.start_gate()
    robot.until(lambda: robot.said("state: STOPPED"), "stop that was said before")
    assert not robot.following()
    before = robot.state()
    robot.faults(freedrive={"turn": 1.5}, inactive=["arm"])
    probe.until(lambda: robot.state()[1] > before[1] + 0.9, "arm led by hand")
    robot.faults()
    probe.until(robot.rests, "rest")
    sent = []
    there = robot.state()

    def on_sent(message) -> None:
        sent.append((message.points[0], robot.state()))

    probe.node.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", on_sent, 10)
    probe.node.destroy_publisher(button)
    release = SetBool.Request(data=False)
    assert probe.call(SetBool, "command_gate_node/emergency_stop", release).success
    robot.until(robot.following, "motion after the release")
    robot.until(lambda: np.abs(robot.state() - there).max() > 0.3, "the arm on its way")
    for point, state in sent:
        # within what the limits allow from where the arm is, and what it moves on the way here
        after_s = point.time_from_start.nanosec / 1e9
        off = np.abs(np.array(point.positions) - state).max()
        assert off <= 2.0 * (after_s + 0.15) + 1e-6


def test_what_a_gate_can_not_command_it_says_and_goes_on_when_it_can(probe, processes, arm_file):
    robot = Robot(probe, processes, arm_file)
    robot.until(robot.following, "motion")
    robot.faults(inactive=["arm"], blocked=["lift", "turn"])
    robot.until(lambda: robot.said("does not follow"), "a joint that does not follow")
    robot.faults()
    robot.until(robot.following, "motion again")

    rival = probe.node.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", 10)
    robot.until(lambda: robot.said("another node publishes"), "rival")
    robot.until(robot.held, "hold")
    probe.node.destroy_publisher(rival)
    robot.executed.clear()
    robot.until(robot.following, "motion without the rival")

    zeros = probe.node.create_publisher(JointState, "joint_states", 10)

    def told_twice() -> bool:
        state = JointState(name=["lift", "turn"], position=[0.0, 0.0])
        state.header.stamp = messages.time_message(time.time_ns())
        zeros.publish(state)
        return robot.said("two publishers") and robot.held()

    robot.until(told_twice, "hold for two publishers of the same joints")
    probe.node.destroy_publisher(zeros)
    robot.executed.clear()
    robot.until(robot.following, "motion with one publisher")
    robot.session = "f00d"  # the same topics, another policy
    robot.until(lambda: robot.said("saw another one"), "refusal of a foreign policy")


def test_a_wrong_type_on_the_command_topic_is_named(probe, processes, tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE.read_text().replace("topic: cmd_vel", "topic: other/cmd_vel"))
    robot = Robot(probe, processes, path)
    probe.until(lambda: robot.words, "report of the gate")
    processes.stop("stand_in_node", signal.SIGINT)
    probe.node.create_subscription(Twist, "other/cmd_vel", lambda _: None, 10)
    probe.until(
        lambda: robot.said("expected a subscriber of geometry_msgs/msg/TwistStamped"), "its type"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_gate_that_is_told_to_end_leads_the_base_to_rest_first(probe, processes, number):
    robot = Robot(probe, processes, BASE)
    robot.begin = np.array([0.8, 0.0])
    robot.until(lambda: robot.state()[0] > 0.5, "motion")
    sent = probe.collect(messages.message_class("geometry_msgs/msg/TwistStamped"), "cmd_vel")
    robot.until(lambda: len(sent) > 2, "commands")
    ended = processes.stop("command_gate_node", number)
    probe.until(lambda: ended.poll() is not None, "end of the gate")
    assert ended.returncode == 0
    probe.until(lambda: sent[-1][1].twist.linear.x == 0.0, "last word: zero")
    told = np.array([m.twist.linear.x for _, m in sent])
    assert (np.diff(told) >= -0.1 - 1e-9).all(), "within the acceleration limit, to the end"
    assert processes.log("command_gate_node").count("Traceback") == 0


def test_a_reset_in_motion_holds_and_the_stop_after_it_is_heard(probe, processes, arm_file):
    robot = Robot(probe, processes, arm_file)
    robot.until(robot.following, "motion")
    robot.executed.clear()
    assert probe.call(Trigger, "command_gate_node/reset_episode")
    stop = SetBool.Request(data=True)
    assert probe.call(SetBool, "command_gate_node/emergency_stop", stop).success
    probe.until(robot.held, "a hold or a stop that was sent")
    probe.until(robot.rests, "rest")
