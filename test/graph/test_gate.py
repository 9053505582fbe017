"""The command gate over real topics: silence, emergency stop, refusals."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, Header
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodied_rl.core.embodiment import Embodiment

from .conftest import EMBODIMENT

ARM = "joint_trajectory_controller/joint_trajectory"
PERIOD_S = 0.1
SCHEDULING_S = 1.0  # what a busy test machine may add between the gate's timer and this process


@pytest.fixture
def moving(probe, processes):
    """An arm in motion in real time; gives what the gate sends to it."""
    common = {"embodiment": EMBODIMENT, "use_sim_time": True, "mode": "realtime"}
    processes.start("sim_node", mode="realtime")
    processes.start("command_gate_node", **common)
    policy = processes.start("policy_node", policy="expert", task="replace_object", **common)
    probe.activate_policy()
    sent = probe.collect(JointTrajectory, ARM)
    probe.until(lambda: probe.node.count_publishers(ARM), "gate")
    probe.reset_simulator()
    probe.until(lambda: len(sent) > 15, "commands")
    return policy, sent


def held(message: JointTrajectory) -> tuple:
    return tuple(message.points[-1].positions)


def test_killed_policy_in_motion_is_held_within_two_periods(moving, probe):
    policy, sent = moving
    before = np.array(held(sent[-1][1])) - np.array(held(sent[-6][1]))
    assert np.abs(before).max() > 0.02, "the arm was meant to be moving"
    policy.send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    states = probe.collect(DiagnosticArray, "/diagnostics")

    def holding():
        return [
            status.message
            for _, array in states
            for status in array.status
            if status.name == "command_gate_node" and "holding still" in status.message
        ]

    reason = probe.until(holding, "hold")[0]
    assert "no heartbeat" in reason or "run out" in reason
    after = [(stamp, message) for stamp, message in sent if stamp > killed_s]
    last_s, hold = after[-1]
    assert last_s - killed_s <= 2 * PERIOD_S + SCHEDULING_S
    probe.until(lambda: time.monotonic() > last_s + 0.5, "half a second")
    later = [message for stamp, message in sent if stamp >= last_s]
    assert all(held(message) == held(hold) for message in later), "moved after the hold"
    assert len(hold.points) == 1
    for message in later:  # "now" by the controller's own clock: never one that is over
        assert message.header.stamp == Time() and message.points[0].time_from_start.nanosec > 0


def test_emergency_stop_holds_until_released(moving, probe):
    _, sent = moving
    stop = "command_gate_node/emergency_stop"
    assert probe.call(SetBool, stop, SetBool.Request(data=True)).success
    at_stop = held(sent[-1][1])
    mark = time.monotonic()
    probe.until(lambda: time.monotonic() > mark + 0.5, "half a second")
    assert held(sent[-1][1]) == at_stop
    count = len(sent)
    assert probe.call(SetBool, stop, SetBool.Request(data=False)).success
    probe.until(lambda: len(sent) > count + 3, "commands after the release")


def test_unsound_chunks_are_refused_and_named(probe, processes):
    processes.start("sim_node", mode="realtime")
    processes.start("command_gate_node", embodiment=EMBODIMENT, use_sim_time=True)
    sent = probe.collect(JointTrajectory, ARM)
    states = probe.collect(DiagnosticArray, "/diagnostics")
    embodiment = Embodiment.load(EMBODIMENT)
    publisher = probe.node.create_publisher(JointTrajectory, "policy/chunk", 10)
    probe.until(publisher.get_subscription_count, "gate")
    probe.until(lambda: probe.node.count_publishers(ARM), "gate's output")

    def errors() -> str:
        return " ".join(
            value.value
            for _, array in states
            for status in array.status
            if status.name == "command_gate_node"
            for value in status.values
            if value.key == "last_error"
        )

    def send(names, positions) -> None:
        message = JointTrajectory(joint_names=names)
        message.header.stamp.sec = 1
        point = JointTrajectoryPoint(positions=positions)
        point.time_from_start.nanosec = embodiment.period_ns
        message.points = [point]
        publisher.publish(message)

    names = list(embodiment.action_names)
    send(names, [0.0] * (len(names) - 1) + [float("nan")])
    probe.until(lambda: f"{names[-1]}: point 0 is not finite" in errors(), "refusal of NaN")
    send(names[1:], [0.0] * (len(names) - 1))
    probe.until(lambda: "expected the joints" in errors(), "refusal of missing joints")
    beats = probe.node.create_publisher(Header, "policy/heartbeat", 10)
    probe.until(beats.get_subscription_count, "gate's ear for the heartbeat")
    beats.publish(Header(frame_id="map"))
    probe.until(lambda: "policy/heartbeat: frame_id" in errors(), "refusal of a foreign heartbeat")
    assert not sent


class Script:
    """A gate of its own, and everything that it hears said by hand."""

    def __init__(self, probe, processes, mode: str, joints_quality=10):
        processes.start("command_gate_node", embodiment=EMBODIMENT, use_sim_time=True, mode=mode)
        self.sent = probe.collect(JointTrajectory, ARM)
        self.executed = probe.collect(JointTrajectory, "command/executed")
        probe.collect(Float64MultiArray, "gripper_controller/commands")  # its controller
        node = probe.node
        self._clock = node.create_publisher(Clock, "/clock", 1)
        self._joints = node.create_publisher(JointState, "joint_states", joints_quality)
        self._chunks = node.create_publisher(JointTrajectory, "policy/chunk", 10)
        self._beats = node.create_publisher(Header, "policy/heartbeat", 10)
        for publisher in (self._clock, self._joints, self._chunks, self._beats):
            probe.until(publisher.get_subscription_count, "gate")
        for topic in (ARM, "command/executed"):
            probe.until(lambda topic=topic: node.count_publishers(topic), f"gate's {topic}")
        embodiment = Embodiment.load(EMBODIMENT)
        self._names, self._period_ns = list(embodiment.action_names), embodiment.period_ns
        self._middle = ((embodiment.limits()[0] + embodiment.limits()[1]) / 2).tolist()

    def clock(self, second: int) -> None:
        self._clock.publish(Clock(clock=Time(sec=second)))

    def joints(self, second: int) -> None:
        """Twice, for a single sample is not believed."""
        for stamp in (Time(sec=second - 1, nanosec=980_000_000), Time(sec=second)):
            state = JointState(name=self._names, position=self._middle)
            state.header.stamp = stamp
            self._joints.publish(state)

    def chunk(self, second: int) -> None:
        """Three targets, all of them where the robot is."""
        chunk = JointTrajectory(joint_names=self._names)
        chunk.header.stamp.sec = second
        chunk.points = [
            JointTrajectoryPoint(
                positions=self._middle, time_from_start=Duration(nanosec=i * self._period_ns)
            )
            for i in (1, 2, 3)
        ]
        self._chunks.publish(chunk)

    def beat(self, second: int) -> None:
        """The policy is done with a tick, and has sent a chunk for it."""
        self._beats.publish(Header(stamp=Time(sec=second), frame_id=str(second * 10**9)))


def test_a_tick_of_the_idle_world_is_never_answered_with_the_first_chunk(probe, processes):
    """The clock of an episode's first tick may come after the policy's answer to that tick."""
    gate = Script(probe, processes, "lockstep")
    gate.clock(1)  # nobody answers: no policy is active yet
    gate.joints(1)
    assert probe.call(Trigger, "command_gate_node/reset_episode").success
    gate.joints(2)
    gate.chunk(2)
    gate.beat(2)
    probe.until(lambda: gate.executed, "the chunk to be accepted")
    mark = time.monotonic()
    probe.until(lambda: time.monotonic() > mark + 0.5, "half a second")
    assert not gate.sent, "a command for a tick of the idle world"
    gate.clock(2)
    probe.until(lambda: gate.sent, "the answer to the first tick")
    assert [message.header.stamp.sec for _, message in gate.sent] == [2]


def test_a_reset_names_those_who_may_not_know_the_gate_yet(probe, processes):
    """What they publish until they do is lost, and an episode must not begin with that."""
    reports = probe.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    Script(probe, processes, "lockstep")
    probe.until(reports.get_subscription_count, "gate's ear for reports")
    topics = ("/policy/chunk", "/policy/heartbeat", "/clock", "/joint_states")

    def named() -> bool:  # the probe's topics can be known to the gate before the probe's name
        answer = probe.call(Trigger, "command_gate_node/reset_episode")
        assert not answer.success
        return all(f"{topic}: no report of probe yet" in answer.message for topic in topics)

    probe.until(named, "refusal that names the topics", 4.0)

    def reset() -> bool:
        reports.publish(DiagnosticArray(status=[DiagnosticStatus(name="probe")]))
        return probe.call(Trigger, "command_gate_node/reset_episode").success

    probe.until(reset, "reset", 4.0)


def test_in_lockstep_a_reset_waits_for_those_whom_a_tick_waits_for(probe, processes):
    """Who has not been found yet looks like one who is not there."""
    processes.start("command_gate_node", embodiment=EMBODIMENT, use_sim_time=True, mode="lockstep")
    answer = probe.call(Trigger, "command_gate_node/reset_episode")
    assert not answer.success
    for topic in ("/policy/chunk", "/policy/heartbeat", "/joint_states"):
        assert f"{topic}: no publisher yet" in answer.message


@pytest.mark.parametrize("joints_quality", [10, qos_profile_sensor_data])
def test_a_clock_set_back_does_not_bar_the_chunks_that_follow(probe, processes, joints_quality):
    """And a driver that offers its joint states as best effort only is heard too."""
    gate = Script(probe, processes, "realtime", joints_quality)

    def answered(second: int) -> bool:
        """Show the robot at a time and ask for a command at it; whether the gate has let it by."""
        gate.clock(second)
        gate.joints(second)
        gate.chunk(second)
        # A hold has one point only.
        return any(m.header.stamp.sec == second and len(m.points) == 3 for _, m in gate.executed)

    probe.until(lambda: answered(100), "command at 100 s")
    probe.until(lambda: len(gate.executed[-1][1].points) == 1, "hold, since no heartbeat comes")
    probe.until(lambda: answered(5), "command after the clock was set back to 5 s")
    stamps = [m.header.stamp.sec for _, m in gate.executed if len(m.points) == 3]
    assert stamps[0] == 100 and stamps[-1] == 5
