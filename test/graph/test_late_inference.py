"""A plan that comes too late, over real topics: the tail of the last one is carried out, then the
robot holds, and both nodes say so."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import ActionChunk, PolicySpec

from .conftest import EMBODIMENT

CHUNK, EXECUTE, LATE_ACT, LATE_S = 8, 4, 4, 2.0


class Thinker:
    """Lifts one joint a little, target by target; every fourth of its plans takes two seconds."""

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
        if self.acts % LATE_ACT == 0:
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
def late(processes, probe, host):
    """A running graph whose policy is about to be late; the policy and what the gate let out."""
    common = {"embodiment": EMBODIMENT, "use_sim_time": True, "mode": "realtime"}
    processes.start("sim_node", mode="realtime")
    clock = probe.collect(Clock, "/clock")
    probe.until(lambda: clock, "clock")
    processes.start("command_gate_node", **common)
    policy = host.configure(Thinker, **common)
    host.activate()
    executed = probe.collect(JointTrajectory, "command/executed")
    probe.until(lambda: probe.node.count_publishers("command/executed"), "gate")
    probe.reset_simulator()
    return policy, executed


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
    states, period_ns = probe.collect(DiagnosticArray, "/diagnostics"), policy._period_ns

    def holds() -> list[tuple[JointTrajectory, JointTrajectory]]:
        """Every chunk that has run out, and the hold behind it. On a busy machine there are others:
        whatever keeps the heartbeat away for long makes the gate hold too."""
        messages = [message for _, message in executed]
        return [
            (chunk, hold)
            for chunk, hold in zip(messages, messages[1:], strict=False)
            if len(hold.points) == 1 < len(chunk.points)
            and stamp_ns(hold.header)
            >= stamp_ns(chunk.header) + (len(chunk.points) - 1) * period_ns
        ]

    probe.until(lambda: policy.acts >= LATE_ACT, "the late plan to begin")
    chunk, hold = probe.until(holds, "a hold behind a whole chunk")[-1]
    assert len(chunk.points) > EXECUTE, "the tail behind what was meant to be executed"
    assert hold.points[0].positions == chunk.points[-1].positions
    probe.until(lambda: policy.acts > LATE_ACT, "plans to go on")
    probe.until(lambda: figure(states, "policy_node", "deadline_misses") >= 1, "a counted miss")
    probe.until(lambda: figure(states, "command_gate_node", "holds") >= 1, "a counted hold")
    probe.until(
        lambda: any(c.stamp_ns == stamp_ns(hold.header) for c in policy.in_force),
        "the policy to hear of the hold",
    )
