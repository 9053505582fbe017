"""The simulator node on its own: what it shows around a reset."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.nodes import qos


@pytest.mark.parametrize("paused", [False, True])
def test_the_first_instant_of_an_episode_is_shown(probe, processes, paused):
    """Else the row of its first tick would lack every stream."""
    processes.start("sim_node", mode="realtime")
    seen = probe.collect(JointState, "joint_states", 100)
    probe.until(lambda: seen, "joint states of the idle world")
    if paused:
        assert probe.call(SetBool, "sim/pause", SetBool.Request(data=True)).success
    answer = probe.call(Trigger, "sim/reset")
    info = EpisodeInfo.from_yaml(answer.message, "sim/reset")
    if paused:
        assert probe.call(SetBool, "sim/pause", SetBool.Request(data=False)).success
    probe.until(lambda: stamp_ns(seen[-1][1].header) >= info.start_ns + 10**9, "a second of it")
    stamps = [stamp_ns(message.header) for _, message in seen]
    assert info.start_ns in stamps
    assert len(set(stamps)) == len(stamps) and stamps == sorted(stamps)


def test_steps_only_while_paused(probe, processes):
    processes.start("sim_node", mode="lockstep")
    seen = probe.collect(JointState, "joint_states", 100)
    probe.until(lambda: seen, "joint states of the idle world")
    assert not probe.call(Trigger, "sim/step").success
    assert probe.call(SetBool, "sim/pause", SetBool.Request(data=True)).success
    start = EpisodeInfo.from_yaml(probe.call(Trigger, "sim/reset").message, "sim/reset").start_ns
    for tick in (1, 2):
        answer = probe.call(Trigger, "sim/step")
        assert answer.success and answer.message == f"time_ns: {start + tick * 10**8}\n"
    probe.until(lambda: stamp_ns(seen[-1][1].header) == start + 2 * 10**8, "the last step's state")


def test_whoever_comes_late_is_told_what_the_robot_looks_like(probe, processes):
    processes.start("sim_node", mode="realtime")
    joints = probe.collect(JointState, "joint_states", 100)
    probe.until(lambda: joints, "joint states of the idle world")
    described = probe.collect(String, "robot_description", qos.LATCHED)
    probe.until(lambda: described, "robot_description")
    robot = ElementTree.fromstring(described[0][1].data)
    assert set(joints[0][1].name) <= {joint.get("name") for joint in robot.findall("joint")}
