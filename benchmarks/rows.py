"""Whether what a policy was shown live is what the bag gives back, and whether its heart beats on.

A publisher process plays a robot with uneven stamps: joint states at 50 Hz and a camera at 30 Hz
whose images come up to 200 ms late and out of order, and writes all that it sends into a bag. The
policy node of this process hosts a policy that keeps its rows and whose plans take 0.2 to 2 s.
Every run is an episode; afterwards each row is compared with that of the bag, byte by byte. Then
plans take 2 s, four instructions a second come and the memory is saved now and then: the publisher
measures the longest time between two heartbeats.
"""

from __future__ import annotations

import heapq
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _report import report

from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.read import Bag
from embodied_rl.bags.write import BagWriter
from embodied_rl.bringup.environment import (
    PROFILE,
    child_environment,
    private_domain,
    require_ros,
    share_file,
)
from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec
from embodied_rl.core.window import Observation, Sample

LATENCY_S = 0.2
ROBOT = f"""
name: bench
control_rate_hz: 10
streams:
  state: {{topic: joint_states, type: sensor_msgs/msg/JointState, field: position,
           joints: [a, b, c], unit: rad, rate_hz: 50, max_age_s: 0.2}}
  image: {{topic: camera/front/image_raw, type: sensor_msgs/msg/Image, encoding: rgb8,
           shape: [32, 32, 3], rate_hz: 30, max_age_s: 0.5, latency_s: {LATENCY_S}}}
commands:
  arm: {{topic: joint_trajectory_controller/joint_trajectory,
         type: trajectory_msgs/msg/JointTrajectory, joints: [a, b, c], unit: rad,
         lower: [-3, -3, -3], upper: [3, 3, 3], max_velocity: [2, 2, 2]}}
"""
UNEVEN_S = {"state": 0.004, "image": 0.006}  # of the stamps
TRANSPORT_NS = 15_000_000  # from the publisher's call to the policy's inbox, on a busy machine
SETTLED_NS = 600_000_000  # of an episode: samples from before it count in the bag's rows only
TARGETS = {"differing_rows": ("<=", 0.0), "longest_heartbeat_gap_periods": ("<=", 1.5)}


@dataclass(frozen=True)
class Arguments:
    """Rows live against rows from the bag, and the heartbeat under load."""

    runs: int = 30
    run_s: float = 5.0
    beats_s: float = 20.0
    json: Path | None = None


class Keeper:
    """Keeps every row, and takes its time over a plan."""

    def __init__(self, embodiment: Embodiment):
        shapes = {key: stream.shape for key, stream in embodiment.streams.items()}
        self.spec = PolicySpec(
            "keeper", shapes, embodiment.action_dim, 30, 5, 10, 1, 1, "bench",
            embodiment.contract_hash(shapes),
        )  # fmt: skip
        self._period_ns = embodiment.period_ns
        self.think_s, self.told = 0.0, 0
        self.rows: list[Observation] = []
        self.starts: list[int] = []

    def reset(self, episode: EpisodeInfo) -> None:
        self.starts.append(episode.start_ns)

    def observe(self, observation: Observation) -> None:
        self.rows.append(observation)

    def act(self) -> ActionChunk:
        stamp_ns, until_s = self.rows[-1].stamp_ns, time.monotonic() + self.think_s
        while time.monotonic() < until_s:  # half of it in Python, which the GIL shares with others
            if time.monotonic() % 0.02 < 0.01:
                time.sleep(0.01)
        return ActionChunk(stamp_ns, self._period_ns, np.zeros((30, 3)))

    def executed(self, chunk: ActionChunk) -> None:
        del chunk

    def instruct(self, text: str) -> None:
        self.told += 1

    def save_memory(self) -> bytes:
        return b"memory"

    def load_memory(self, blob: bytes) -> None:
        del blob


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench rows")
    require_ros()
    environment = child_environment(
        {
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": str(private_domain()),
            "FASTRTPS_DEFAULT_PROFILES_FILE": str(share_file(PROFILE)),
        }
    )
    os.environ.update(environment)
    with tempfile.TemporaryDirectory() as folder:
        publisher = subprocess.Popen(
            [sys.executable, __file__, f"{folder}/bag"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            policy, figures = _host(arguments, publisher, Path(folder))
        finally:
            publisher.kill()
            publisher.wait()
        counts = _compare(policy, Path(folder) / "bag")
    found = {
        "runs": float(arguments.runs),
        **counts,
        **figures,
    }
    return report("rows", found, TARGETS, arguments.json)


def _host(
    arguments: Arguments, publisher: subprocess.Popen, folder: Path
) -> tuple[Keeper, dict[str, float]]:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import TransitionCallbackReturn

    from embodied_rl.nodes.policy_node import PolicyNode
    from embodied_rl.nodes.process import Stop

    policies: list[Keeper] = []

    def load(name: str, embodiment: Embodiment, task: str | None, **_: object) -> Keeper:
        policies.append(Keeper(embodiment))
        return policies[0]

    path = folder / "bench.yaml"
    path.write_text(ROBOT, encoding="utf-8")
    memory = folder / "memory"
    rclpy.init(args=["--ros-args", "-p", f"embodiment:={path}", "-p", f"memory_path:={memory}"])
    node = PolicyNode(Stop(), load)
    node.trigger_configure()
    executor, done = SingleThreadedExecutor(), threading.Event()
    executor.add_node(node)

    def spin() -> None:
        while not done.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    policy, worker = policies[0], node._worker
    assert worker is not None and publisher.stdin is not None and publisher.stdout is not None
    try:
        deadline_s = time.monotonic() + 30
        while node.trigger_activate() != TransitionCallbackReturn.SUCCESS:
            if time.monotonic() > deadline_s:
                raise SystemExit("error: the policy was not activated within 30 s")
            time.sleep(0.25)
        for think_s in np.linspace(0.2, 2.0, arguments.runs):
            policy.think_s = float(think_s)
            node._episodes.restart()
            time.sleep(arguments.run_s)
        late = sum(worker.loop.builder.late.values())
        policy.think_s = 2.0
        print("measure", file=publisher.stdin, flush=True)
        time.sleep(arguments.beats_s)
        print("end", file=publisher.stdin, flush=True)
        gap_s = float(publisher.stdout.readline())
    finally:
        done.set()
        thread.join()
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
    return policy, {
        "late_samples": float(late),
        "instructions": float(policy.told),
        "longest_heartbeat_gap_ms": gap_s * 1e3,
        "longest_heartbeat_gap_periods": gap_s * 10,
    }


def _compare(policy: Keeper, folder: Path) -> dict[str, float]:
    """Counts of rows: compared, different, without a stream live, and left out because on a busy
    machine the publisher itself sent a sample later than a row waits."""
    body = Embodiment.parse(ROBOT, "bench")
    with Bag.open(folder) as bag:
        late = _sent_late(bag, body)
        episode = read_episode(bag, body, policy.spec.streams)
    place_of = {stamp: place for place, stamp in enumerate(episode.stamps_ns.tolist())}
    starts = np.array(policy.starts)
    compared = differing = invalid = left_out = 0
    for row in policy.rows:
        since_ns = row.stamp_ns - starts[np.searchsorted(starts, row.stamp_ns, "right") - 1]
        place = place_of.get(row.stamp_ns)
        if place is None or since_ns < SETTLED_NS or place > len(episode.stamps_ns) - 10:
            continue
        if any(ready <= row.stamp_ns < end for ready, end in late):
            left_out += 1
            continue
        compared += 1
        invalid += bool(row.missing)
        differing += any(
            row.valid[key] != episode.valid[key][place]
            or row.values[key].tobytes() != episode.values[key][place].tobytes()
            for key in row.values
        )
    return {
        "compared_rows": float(compared),
        "differing_rows": float(differing),
        "invalid_rows": float(invalid),
        "left_out_rows": float(left_out),
    }


def _sent_late(bag: Bag, body: Embodiment) -> list[tuple[int, int]]:
    """For each sample that was sent late: the ticks ``(from, before)`` that could not wait."""
    decoder, found = Decoder(), []
    for stream in body.streams.values():
        for message in bag.messages([f"/{stream.topic}"]):
            stamp = stamp_ns(decoder(message.topic, stream.type, message.data).header)
            ready, waits_ns = stamp + stream.latency_ns, body.period_ns // 2 - TRANSPORT_NS
            if message.log_time_ns > ready + waits_ns:
                found.append((ready, message.log_time_ns - waits_ns))
    return found


def _publish(folder: str) -> None:
    """The robot; writes its bag and measures heartbeats when it is told to on its input."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Header, String
    from std_srvs.srv import Trigger

    from embodied_rl.nodes import messages, qos

    rclpy.init()
    node = rclpy.create_node("robot")
    body, random = Embodiment.parse(ROBOT, "bench"), np.random.default_rng(0)
    publishers, bag = {}, BagWriter(Path(folder))
    for key, stream in body.streams.items():
        kind = messages.MESSAGE_CLASSES[stream.type]
        publishers[key] = node.create_publisher(kind, stream.topic, qos.reliable(200))
        bag.add_topic(f"/{stream.topic}", stream.type)
    beats: list[float] = []

    def on_beat(message: Header, info) -> None:
        beats.append(info["source_timestamp"] / 1e9)  # when it was sent: this process may be late

    node.create_subscription(Header, "policy/heartbeat", on_beat, qos.COMMANDS)
    instruct = node.create_publisher(String, "instruction", qos.LATCHED)
    save = node.create_client(Trigger, "policy_node/save_memory")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    orders: list[str] = []
    reader = threading.Thread(target=_read, args=(orders,), daemon=True)
    reader.start()
    queue: list[tuple[int, int, str]] = []  # when to send in ns, stamp in ns, stream
    next_ns = dict.fromkeys(body.streams, time.time_ns())
    began_s, told = 0.0, 0
    while "end" not in orders:
        now_ns = time.time_ns()
        for key, stream in body.streams.items():
            while next_ns[key] <= now_ns:
                stamp = next_ns[key] - round(random.uniform(0, UNEVEN_S[key]) * 1e9)
                late_s = random.uniform(0, LATENCY_S if key == "image" else 0.002)
                heapq.heappush(queue, (stamp + round(late_s * 1e9), stamp, key))
                next_ns[key] += stream.period_ns
        while queue and queue[0][0] <= now_ns:
            _, stamp, key = heapq.heappop(queue)
            stream = body.streams[key]
            value = random.integers(0, 256, stream.shape).astype(stream.dtype)
            message = messages.encode_topic([stream], {key: Sample(stamp, value)}, "bench")
            publishers[key].publish(message)
            bag.write(f"/{stream.topic}", now_ns, serialize_message(message))
        if "measure" in orders:
            began_s = began_s or time.time() + 1
            if time.time() > began_s + told / 4:
                told += 1
                instruct.publish(String(data=f"look {told}"))
                if told % 10 == 0:
                    save.call_async(Trigger.Request())
        executor.spin_once(timeout_sec=0.001)
    bag.close()
    measured = [beat for beat in beats if beat > began_s]
    print(max(np.diff(measured), default=float("inf")), flush=True)
    time.sleep(5)


def _read(orders: list[str]) -> None:
    for line in sys.stdin:
        orders.append(line.strip())


if __name__ == "__main__":
    _publish(sys.argv[1])
