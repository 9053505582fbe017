"""A plan that comes too late, over real topics: the tail of the last one is carried out, then the
robot holds, and both nodes say so."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import ActionChunk, PolicySpec
from embodied_rl.nodes.policy_node import PolicyNode
from embodied_rl.nodes.process import Stop

from .conftest import EMBODIMENT

CHUNK, EXECUTE, LATE_ACT, LATE_S = 8, 4, 4, 2.0


class Thinker:
    """Lifts one joint a little, target by target; one of its plans takes two seconds."""

    def __init__(self, embodiment: Embodiment):
        keys = ("arm_position", "gripper_position")
        shapes = {key: embodiment.streams[key].shape for key in keys}
        self.spec = PolicySpec(
            name="thinker", streams=shapes, action_dim=embodiment.action_dim, chunk=CHUNK,
            execute=EXECUTE, rate_hz=embodiment.control_rate_hz, history=1, stride=1,
            embodiment=embodiment.name, embodiment_hash=embodiment.contract_hash(keys),
        )  # fmt: skip
        self._period_ns = embodiment.period_ns
        self.acts, self.in_force = 0, []

    def reset(self, episode) -> None:
        self.acts = 0
        self.in_force.clear()

    def observe(self, observation) -> None:
        self._newest = observation

    def act(self) -> ActionChunk:
        self.acts += 1
        row = self._newest
        if self.acts == LATE_ACT:
            time.sleep(LATE_S)
        still = np.concatenate([row.values["arm_position"], row.values["gripper_position"]])
        values = np.repeat(still[None], CHUNK, axis=0)
        values[:, 1] -= 0.005 * np.arange(1, CHUNK + 1)
        return ActionChunk(row.stamp_ns, self._period_ns, values)

    def executed(self, chunk) -> None:
        self.in_force.append(chunk)

    def save_memory(self) -> bytes:
        return b""

    def load_memory(self, blob) -> None:
        del blob


@pytest.fixture
def late(domain, processes, probe):
    """A running graph whose policy is about to be late; the policy and what the gate let out."""
    common = {"embodiment": EMBODIMENT, "use_sim_time": True, "mode": "realtime"}
    processes.start("sim_node", mode="realtime")
    clock = probe.collect(Clock, "/clock")
    probe.until(lambda: clock, "clock")
    processes.start("command_gate_node", **common)
    words = [w for key, value in common.items() for w in ("-p", f"{key}:={value}")]
    rclpy.init(args=["--ros-args", *words], domain_id=domain)
    made: list[Thinker] = []

    def load(name, embodiment, task, **_):
        made.append(Thinker(embodiment))
        return made[0]

    node = PolicyNode(Stop(), load)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            executor.spin_once(timeout_sec=0.05)

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        probe.until(
            lambda: node.trigger_activate() == TransitionCallbackReturn.SUCCESS, "activation"
        )
        executed = probe.collect(JointTrajectory, "command/executed")
        probe.until(lambda: probe.node.count_publishers("command/executed"), "gate")
        probe.reset_simulator()
        yield made[0], executed
    finally:
        done.set()
        thread.join()
        node.close()
        node.destroy_node()
        rclpy.shutdown()


def figure(states, node: str, key: str) -> int:
    """The newest value of a figure in the diagnostics; 0 before it has been told."""
    values = [
        int(float(value.value))
        for _, array in states
        for status in array.status
        if status.name == node
        for value in status.values
        if value.key == key
    ]
    return values[-1] if values else 0


def test_the_tail_is_carried_out_then_held_and_counted(late, probe):
    policy, executed = late
    states = probe.collect(DiagnosticArray, "/diagnostics")

    def holds() -> list[int]:
        """Places in `executed` where a hold of one target follows a chunk."""
        lengths = [len(message.points) for _, message in executed]
        return [i for i in range(1, len(lengths)) if lengths[i] == 1 < lengths[i - 1]]

    probe.until(lambda: policy.acts >= LATE_ACT, "the late plan to begin")
    probe.until(holds, "a hold")
    place = holds()[-1]
    chunk, hold = executed[place - 1][1], executed[place][1]
    period_ns = policy._period_ns
    end_ns = stamp_ns(chunk.header) + len(chunk.points) * period_ns
    assert len(chunk.points) > EXECUTE, "the tail behind what was meant to be executed"
    assert stamp_ns(hold.header) >= end_ns - period_ns, "the whole tail, before the hold"
    assert hold.points[0].positions == chunk.points[-1].positions
    probe.until(lambda: policy.acts > LATE_ACT, "plans to go on")
    probe.until(lambda: figure(states, "policy_node", "deadline_misses") >= 1, "a counted miss")
    probe.until(lambda: figure(states, "command_gate_node", "holds") >= 1, "a counted hold")
    probe.until(
        lambda: any(c.stamp_ns == stamp_ns(hold.header) for c in policy.in_force),
        "the policy to hear of the hold",
    )
