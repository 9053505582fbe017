"""The monitor node over real topics: what it costs, how soon it speaks, that it keeps its size.

The load of `_stl_load` (20 predicates in 10 formulas, windows of 1000 steps, 100 Hz) and a formula
more that a spike breaks twice a second. In real time: processor time of the node, and the latency
from before a sample is published to the callback that hears of the violation it brings; a slot
closes with the sample of its instant, so this is an upper bound of slot to event. A feeder that is
itself kept waiting sends late samples, which are dropped: on a busy machine events can be missed.
Then ten minutes of the same on a simulated clock, as fast as the node follows: growth of its
resident memory after the second minute, and its processor time a slot, which at a hundred slots a
second is what the load costs without waiting, and with warm caches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import _stl_load
import numpy as np
import tyro
from _report import report

from embodied_rl.bringup.environment import (
    PROFILE,
    child_environment,
    private_domain,
    profile_variable,
    require_ros,
    share_file,
)

SPIKE_EVERY = 50  # samples
AHEAD = 200  # samples that the fast run sends before the node must have answered
SETTLE_S = 12.0  # until the windows are full
TARGETS = {
    "cpu_percent_of_core": ("<=", 5.0),
    "event_latency_p95_ms": ("<=", 1e3 / _stl_load.RATE_HZ),
    "events_missed": ("<=", 0.0),
    "memory_growth_kib": ("<=", 1024.0),
}


@dataclass(frozen=True)
class Arguments:
    """Cost, latency and memory of stl_monitor_node."""

    seconds: float = 60.0
    """of the run in real time, after 12 s in which the windows fill"""
    minutes: float = 10.0
    """of the run on a simulated clock"""
    json: Path | None = None


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench stl_node")
    require_ros()
    figures = _with_node(False, "live", arguments.seconds)
    figures |= _with_node(True, "fast", arguments.minutes)
    return report("stl_node", figures, TARGETS, arguments.json)


def _with_node(simulated: bool, role: str, length: float) -> dict[str, float]:
    """Figures of one run: a node of its own, and a process that feeds it."""
    environment = child_environment(
        {
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": str(private_domain()),
            profile_variable(): str(share_file(PROFILE)),
            "OMP_NUM_THREADS": "1",
        }
    )
    with tempfile.TemporaryDirectory() as name:
        robot, spec = Path(name) / "robot.yaml", Path(name) / "spec.yaml"
        robot.write_text(_stl_load.ROBOT, encoding="utf-8")
        spec.write_text(_stl_load.specification("  spike: j0 < 5\n"), encoding="utf-8")
        words = [f"embodiment:={robot}", f"spec:={spec}", "anchor:=start"]
        words.append(f"use_sim_time:={str(simulated).lower()}")
        command = [sys.executable, "-m", "embodied_rl.nodes.stl_monitor_node", "--ros-args"]
        node = subprocess.Popen(
            [*command, *(w for word in words for w in ("-p", word))],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            fed = subprocess.run(
                [sys.executable, __file__, role, str(length), str(node.pid)],
                env=environment,
                stdout=subprocess.PIPE,
                check=True,
            )
        finally:
            node.terminate()
            node.wait()
    return json.loads(fed.stdout)


# -------------------------------------------------------------------- the feeding process
class Feeder:
    """Publishes the samples and hears the answers."""

    def __init__(self):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Float64MultiArray, String

        from embodied_rl.nodes import messages, qos

        rclpy.init()
        self._node, self._message, self._stamp = Node("feeder"), JointState, messages.time_message
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._joints = self._node.create_publisher(JointState, "joint_states", qos.reliable(1000))
        self._clock, self._clock_message = self._node.create_publisher(Clock, "/clock", 1), Clock
        self.violations: list[tuple[int, float]] = []  # stamp of the slot, when it was heard
        self.answered_ns = 0  # stamp of the newest slot that a reading has come of
        self._node.create_subscription(
            String, "stl_monitor_node/events", self._on_event, qos.latched(100)
        )
        self._node.create_subscription(
            Float64MultiArray, "stl_monitor_node/robustness", self._on_reading, qos.reliable(100)
        )
        rows = np.random.default_rng(0).uniform(-1, 1, (1000, len(_stl_load.JOINTS)))
        self._rows = rows.tolist()
        self.sent = 0
        while not self._joints.get_subscription_count():
            self.spin(0.05)
        self.spin(1.0)

    def _on_event(self, message) -> None:
        event = json.loads(message.data)
        if event["event"] == "violated" and event["formula"] == "spike":
            self.violations.append((event["stamp_ns"], time.perf_counter()))

    def _on_reading(self, message) -> None:
        self.answered_ns = round(message.data[0] * 1e9) + _stl_load.HORIZON * 10_000_000

    def spin(self, seconds: float) -> None:
        until_s = time.perf_counter() + seconds
        while (left_s := until_s - time.perf_counter()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def send(self, stamp_ns: int) -> bool:
        """Publish the next sample; whether it was a spike."""
        spike = self.sent % SPIKE_EVERY == 0 and self.sent > 0
        row = self._rows[self.sent % len(self._rows)]
        message = self._message(
            name=list(_stl_load.JOINTS), position=[9.0, *row[1:]] if spike else row
        )
        message.header.stamp = self._stamp(stamp_ns)
        self._joints.publish(message)
        self.sent += 1
        return spike

    def tick(self, stamp_ns: int) -> None:
        self._clock.publish(self._clock_message(clock=self._stamp(stamp_ns)))


def _live(seconds: float, pid: int) -> dict[str, float]:
    feeder, period_ns = Feeder(), 10**9 // _stl_load.RATE_HZ
    spikes: dict[int, float] = {}
    begin_s = time.perf_counter()
    first_ns = -(-time.time_ns() // period_ns) * period_ns
    used_s, from_s = _processor_s(pid), begin_s
    for k in range(round((SETTLE_S + seconds) * _stl_load.RATE_HZ)):
        stamp_ns = first_ns + k * period_ns
        feeder.spin((stamp_ns - time.time_ns()) / 1e9)
        if k == round(SETTLE_S * _stl_load.RATE_HZ):
            used_s, from_s = _processor_s(pid), time.perf_counter()
        sent_s = time.perf_counter()
        if feeder.send(stamp_ns):
            spikes[stamp_ns] = sent_s
    percent = (_processor_s(pid) - used_s) / (time.perf_counter() - from_s) * 100
    feeder.spin(1.0)
    heard = dict(feeder.violations)
    waits_ms = [(heard[stamp] - at) * 1e3 for stamp, at in spikes.items() if stamp in heard]
    return {
        "cpu_percent_of_core": percent,
        "event_latency_p50_ms": float(np.percentile(waits_ms, 50)),
        "event_latency_p95_ms": float(np.percentile(waits_ms, 95)),
        "event_latency_max_ms": max(waits_ms),
        "violations": float(len(spikes)),
        "events_missed": float(len(spikes) - len(waits_ms)),
    }


def _fast(minutes: float, pid: int) -> dict[str, float]:
    feeder, period_ns = Feeder(), 10**9 // _stl_load.RATE_HZ
    memory: list[float] = []
    begin_s, used_s = time.perf_counter(), _processor_s(pid)
    count = round(minutes * 60 * _stl_load.RATE_HZ)
    for k in range(count):
        stamp_ns = (k + 1) * period_ns
        feeder.send(stamp_ns)
        feeder.tick(stamp_ns)
        # a reading is of a decided step, so the first comes when the windows are full
        waited_ns = max(stamp_ns - AHEAD * period_ns, 0)
        while feeder.answered_ns < waited_ns and k > _stl_load.HORIZON + AHEAD:
            feeder.spin(0.002)
        feeder.spin(0.0 if k > _stl_load.HORIZON else 0.002)
        if (k + 1) % (60 * _stl_load.RATE_HZ) == 0:
            memory.append(_resident_kib(pid))
    return {
        "simulated_minutes": minutes,
        "fast_cpu_us_a_slot": (_processor_s(pid) - used_s) / count * 1e6,
        "times_real_time": minutes * 60 / (time.perf_counter() - begin_s),
        "memory_kib": memory[-1],
        "memory_growth_kib": memory[-1] - memory[1],
    }


def _processor_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_kib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


if __name__ == "__main__":
    role, length, node = sys.argv[1:]
    print(json.dumps({"live": _live, "fast": _fast}[role](float(length), int(node))))
