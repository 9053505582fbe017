"""What the ROS path adds to a bare ``observe() + act()``: decoding, hand-over, row, publishing.

A publisher process sends the joint state and one 224 px image at every control tick; the policy
node of this process hosts a policy that keeps a 16-row window of both and times itself. What is
added runs from the beginning of the callback of the tick's last message (the image, decoding
included) until the chunk has been published, less the policy's own time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

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
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec
from embodied_rl.core.window import History, Observation, Sample

RATE_HZ = 20
EMBODIMENT = f"""
name: bench
control_rate_hz: {RATE_HZ}
streams:
  state:
    topic: joint_states
    type: sensor_msgs/msg/JointState
    field: position
    joints: [a, b, c, d, e, f, g]
    unit: rad
    rate_hz: {RATE_HZ}
    max_age_s: 0.2
  image:
    topic: camera/front/image_raw
    type: sensor_msgs/msg/Image
    encoding: rgb8
    shape: [224, 224, 3]
    rate_hz: {RATE_HZ}
    max_age_s: 0.2
commands:
  arm:
    topic: joint_trajectory_controller/joint_trajectory
    type: trajectory_msgs/msg/JointTrajectory
    joints: [a, b, c, d, e, f, g]
    unit: rad
    lower: [-3, -3, -3, -3, -3, -3, -3]
    upper: [3, 3, 3, 3, 3, 3, 3]
    max_velocity: [2, 2, 2, 2, 2, 2, 2]
"""
TARGETS = {"added_p50_ms": ("<=", 1.0), "added_p95_ms": ("<=", 2.0)}


@dataclass(frozen=True)
class Arguments:
    """Overhead of the policy node a control tick."""

    ticks: int = 600
    json: Path | None = None


class TimedPolicy:
    """Keeps a window of 16 rows, plans 16 targets, and notes how long both took."""

    def __init__(self, embodiment: Embodiment):
        shapes = {key: stream.shape for key, stream in embodiment.streams.items()}
        self.spec = PolicySpec(
            "timed", shapes, embodiment.action_dim, 16, 1, RATE_HZ, 16, 1, "bench",
            embodiment.contract_hash(shapes),
        )  # fmt: skip
        self._history = History(16, 1)
        self._period_ns = embodiment.period_ns
        self._observe_s = 0.0
        self.own_ms: list[float] = []

    def reset(self, episode: EpisodeInfo) -> None:
        self._history.clear()

    def observe(self, observation: Observation) -> None:
        begin_s = time.perf_counter()
        self._history.push(observation)
        self._newest = observation
        self._observe_s = time.perf_counter() - begin_s

    def act(self) -> ActionChunk:
        begin_s = time.perf_counter()
        window = self._history.window()
        values = np.repeat(window.values["state"][-1:], 16, axis=0)
        chunk = ActionChunk(self._newest.stamp_ns, self._period_ns, values)
        self.own_ms.append((time.perf_counter() - begin_s + self._observe_s) * 1e3)
        return chunk

    def executed(self, chunk: ActionChunk) -> None:
        del chunk

    def save_memory(self) -> bytes:
        return b""

    def load_memory(self, blob: bytes) -> None:
        return


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench tick")
    require_ros()
    environment = child_environment(
        {
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": str(private_domain()),
            profile_variable(): str(share_file(PROFILE)),
        }
    )
    os.environ.update(environment)
    publisher = subprocess.Popen([sys.executable, __file__], env=environment)
    try:
        total_ms, own_ms = _host(arguments.ticks)
    finally:
        publisher.kill()
        publisher.wait()
    added = np.array(total_ms) - np.array(own_ms)
    p50, p95 = np.percentile(added, [50, 95])
    figures = {
        "ticks": float(len(added)),
        "added_p50_ms": float(p50),
        "added_p95_ms": float(p95),
        "added_max_ms": float(added.max()),
        "policy_p50_ms": float(np.median(own_ms)),
    }
    return report("tick", figures, TARGETS, arguments.json)


def _host(ticks: int) -> tuple[list[float], list[float]]:
    """Total and own milliseconds of each tick, the first twenty left out."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import TransitionCallbackReturn

    from embodied_rl.nodes.policy_node import PolicyNode
    from embodied_rl.nodes.process import Stop

    policies: list[TimedPolicy] = []

    def load(name: str, embodiment: Embodiment, task: str | None, **_: object) -> TimedPolicy:
        policies.append(TimedPolicy(embodiment))
        return policies[0]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(EMBODIMENT, encoding="utf-8")
        rclpy.init(args=["--ros-args", "-p", f"embodiment:={path}"])
        node = PolicyNode(Stop(), load)
        node.trigger_configure()
    policy, warm_up = policies[0], 20
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    deadline_s = time.monotonic() + 20 + 2 * ticks / RATE_HZ
    active = False
    while len(policy.own_ms) < ticks + warm_up and time.monotonic() < deadline_s:
        begin_s = time.monotonic()
        while time.monotonic() < begin_s + (0.5 if not active else 5.0):
            executor.spin_once(timeout_sec=0.05)
        if not active:
            active = node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node._worker is not None
    total_ms = list(node._worker.report.latency.values_ms)
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()
    last = min(len(total_ms), len(policy.own_ms), warm_up + ticks)
    return total_ms[warm_up:last], policy.own_ms[warm_up:last]


def _publish() -> None:
    """State, then image, at every control tick of the wall clock."""
    import rclpy

    from embodied_rl.nodes import messages, qos

    rclpy.init()
    node = rclpy.create_node("tick_publisher")
    embodiment = Embodiment.parse(EMBODIMENT, "benchmarks/tick.py")
    streams = list(embodiment.streams.values())
    publishers = [
        node.create_publisher(messages.MESSAGE_CLASSES[s.type], s.topic, qos.stream(s.type))
        for s in streams
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    tick_ns = (time.time_ns() // embodiment.period_ns + 1) * embodiment.period_ns
    while True:
        time.sleep(max(0.0, (tick_ns - time.time_ns()) / 1e9))
        samples = {"state": Sample(tick_ns, np.zeros(7)), "image": Sample(tick_ns, pixels)}
        for stream, publisher in zip(streams, publishers, strict=True):
            publisher.publish(messages.encode_topic([stream], samples, "bench"))
        tick_ns += embodiment.period_ns


if __name__ == "__main__":
    _publish()
