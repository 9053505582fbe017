"""The recorder over a real graph: what was published is in the bag, byte for byte."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import bag_maker as maker
import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import Reader

from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.bringup.environment import private_domain
from embodied_rl.core.policy import EpisodeInfo, Outcome

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.task import Future  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from embodied_rl.nodes import qos  # noqa: E402
from embodied_rl.nodes.messages import MESSAGE_CLASSES  # noqa: E402

DEADLINE_S = 20.0
TF = "tf2_msgs/msg/TFMessage"
# the recorder only looks at bytes: another class stands in where the package is missing
CLASSES = {TF: String, **MESSAGE_CLASSES, "std_msgs/msg/String": String}


class Bench:
    """A recorder process and a publisher of the script's topics on a private domain."""

    def __init__(
        self,
        folder: Path,
        domain: int,
        limit: int | None = None,
        patience_s: float = 10,
        robot_text: str = maker.ROBOT,
        packages: Path | None = None,
    ):
        self.out = folder / "bags"
        robot = folder / "testbot.yaml"
        robot.write_text(robot_text)
        paths = [os.environ.get("PYTHONPATH", ""), *([str(packages)] if packages else [])]
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        told = {"embodiment": robot, "out": self.out, "connect_timeout_s": float(patience_s)}
        words = [word for key, value in told.items() for word in ("-p", f"{key}:={value}")]
        arguments = ["--ros-args", *words]

        def restrict() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        self.log = open(folder / "recorder.log", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "embodied_rl.nodes.recorder_node", *arguments],
            env=environment, stdout=self.log, stderr=subprocess.STDOUT, preexec_fn=restrict,
        )  # fmt: skip
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("bench", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers: dict[str, object] = {}
        self.outbox: dict[str, int] = {}

    def advertise(self, script: maker.Script) -> None:
        for entry in script.entries:
            if entry.topic not in self.publishers and entry.topic != "/embodiment":
                latched = entry.topic.startswith(("/instruction", "/episode/", "/tf_static"))
                profile = qos.LATCHED if latched else qos.reliable(1000)
                self.publishers[entry.topic] = self.node.create_publisher(
                    CLASSES[entry.kind], entry.topic, profile
                )
        self.wait(
            lambda: all(p.get_subscription_count() == 1 for p in self.publishers.values()),
            "the recorder's subscriptions",
        )

    def publish(self, script: maker.Script) -> None:
        for number, entry in enumerate(script.entries):
            if entry.topic in self.publishers:
                self.publishers[entry.topic].publish(entry.raw())
            if number % 20 == 0:
                time.sleep(0.001)  # a simulator does not publish a second of data in one burst
        for publisher in self.publishers.values():
            assert publisher.wait_for_all_acked(Duration(seconds=DEADLINE_S))

    def call(self, name: str) -> Trigger.Response:
        future = self.ask(name)
        self.wait(future.done, f"answer of {name}")
        return future.result()

    def ask(self, name: str) -> Future:
        client = self.node.create_client(Trigger, f"recorder_node/{name}")
        self.wait(client.service_is_ready, f"service {name}")
        # A service can be seen before it sees its caller; an answer of that moment is lost.
        self.wait(self.settled(0.3), "settling")
        return client.call_async(Trigger.Request())

    def wait(self, condition, what: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            self.executor.spin_once(timeout_sec=0.01)
            assert time.monotonic() < deadline_s, f"waited for {what}:\n{self.text()}"

    @staticmethod
    def settled(time_s: float):
        until_s = time.monotonic() + time_s
        return lambda: time.monotonic() > until_s

    def text(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        self.log.close()


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator:
    benches: list[Bench] = []

    def build(**arguments) -> Bench:
        domain = private_domain()
        benches.append(Bench(tmp_path, domain, **arguments))
        return benches[-1]

    yield build
    for bench in benches:
        bench.close()


def padded(data: bytes) -> bytes:
    """The middleware fills messages up to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)


def future_episode(seconds: float, number: int = 0) -> maker.Script:
    """An episode that starts, on the recorder's wall clock, after the bag was opened."""
    return maker.episode(seconds, (int(time.time()) + 3600 * (number + 1)) * 10**9)


def test_two_episodes_are_two_bags_with_all_their_messages(make_bench):
    bench = make_bench()
    scripts = [future_episode(1.0, number) for number in range(2)]
    bench.advertise(scripts[0])
    # what an earlier run has latched must not get into the bag
    stale = EpisodeInfo(9, 1, "old", "old", 5)
    bench.publishers["/episode/start"].publish(String(data=stale.to_yaml()))
    bench.publishers["/episode/outcome"].publish(
        String(data=Outcome(True, False, "old", 0.0).to_yaml())
    )
    for number, script in enumerate(scripts):
        opened = bench.call("start")
        assert opened.success, opened.message
        assert opened.message.endswith(f"episode_{number:06d}")
        assert not bench.call("start").success
        bench.publish(script)
        closed = bench.call("stop")
        assert closed.success, closed.message
        answer = yaml.safe_load(closed.message)
        assert answer["path"] == opened.message
        assert answer["lost"] == 0

        sent: dict[str, list[bytes]] = {}
        for entry in script.entries:
            sent.setdefault(entry.topic, []).append(padded(entry.raw()))
        sent["/embodiment"] = [padded(maker.Entry(0, "", maker.string(maker.ROBOT)).raw())]
        with Reader(answer["path"]) as reader:  # someone else's reader
            seen: dict[str, list[bytes]] = {}
            for connection, _, data in reader.messages():
                seen.setdefault(connection.topic, []).append(padded(bytes(data)))
        sent["/instruction"] = seen["/instruction"]  # the latched one of before comes on top
        assert len(seen["/instruction"]) in (1, 2)
        assert seen == sent
        assert answer["counts"]["joint_states"] == len(sent["/joint_states"])
        assert "joint_states" in answer["streams"]
        with Bag.open(answer["path"]) as bag:
            episode = read_episode(bag)
        assert episode.report.lines() == []
        assert len(episode) == 11
        assert episode.info is not None and episode.info.start_ns == script.entries[0].log_ns
        assert episode.outcome == Outcome(True, True, "placed", 1.0)
    assert not bench.call("stop").success


def test_transforms_that_were_latched_once_are_in_every_bag(make_bench, tmp_path):
    package = tmp_path / "packages" / "tf2_msgs" / "msg"
    package.mkdir(parents=True)
    package.parent.joinpath("__init__.py").touch()
    package.joinpath("__init__.py").write_text("from std_msgs.msg import String as TFMessage\n")
    robot = yaml.safe_load(maker.ROBOT)
    robot["streams"]["hand"] = {"topic": "tf", "type": TF, "field": "position", "rate_hz": 20,
                                "child_frame": "tool", "max_age_s": 1}  # fmt: skip
    bench = make_bench(robot_text=yaml.safe_dump(robot), packages=package.parents[1])
    script = future_episode(0.3)
    fixed = maker.Entry(0, "/tf_static", maker.make(TF, transforms=[
        maker.make(
            "geometry_msgs/msg/TransformStamped", header=maker.header(10**9), child_frame_id="tool",
            transform=maker.make(
                "geometry_msgs/msg/Transform",
                translation=maker.make("geometry_msgs/msg/Vector3", x=1.0, y=2.0, z=3.0),
                rotation=maker.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            ),
        )
    ]))  # fmt: skip
    script.add(fixed.log_ns, fixed.topic, fixed.message)
    bench.advertise(script)
    bench.publishers["/tf_static"].publish(fixed.raw())
    for _ in range(2):
        assert bench.call("start").success
        bench.wait(bench.settled(0.3), "a moment of recording")
        closed = bench.call("stop")
        assert closed.success, closed.message
        with Reader(yaml.safe_load(closed.message)["path"]) as reader:
            seen = [padded(bytes(data)) for connection, _, data in reader.messages()
                    if connection.topic == "/tf_static"]  # fmt: skip
        assert seen == [padded(fixed.raw())]


def test_start_waits_until_the_publishers_have_found_the_recorder(make_bench):
    """Its own end of the topics is matched first, and what they publish until then is lost."""
    bench = make_bench()
    script = future_episode(0.5)
    bench.advertise(script)
    reports = bench.node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    bench.wait(reports.get_subscription_count, "the recorder's ear for reports")
    started = bench.ask("start")
    mark = time.monotonic()
    bench.wait(lambda: time.monotonic() > mark + 1.5, "a second and a half")
    assert not started.done(), "the publishing node was not heard yet"
    assert not bench.out.exists()
    reports.publish(DiagnosticArray(status=[DiagnosticStatus(name="bench")]))
    bench.wait(started.done, "answer of start")
    assert started.result().success, started.result().message
    bench.publish(script)
    answer = yaml.safe_load(bench.call("stop").message)
    sent = Counter(e.topic.lstrip("/") for e in script.entries if e.topic in bench.publishers)
    sent["embodiment"] = 1
    assert answer["counts"] == dict(sent)


def test_start_names_the_topics_that_cannot_be_connected(make_bench):
    bench = make_bench(patience_s=1.0)
    bench.node.create_publisher(String, "instruction", qos.reliable(1))
    bench.node.create_publisher(String, "joint_states", qos.reliable(1))
    bench.wait(lambda: bench.node.count_subscribers("tool/pose"), "the recorder")
    answer = bench.call("start")
    assert not answer.success
    assert "not connected within 1 s" in answer.message
    assert (
        "/joint_states: 0 of 1 publishers connected; expected sensor_msgs/msg/JointState, "
        "saw std_msgs/msg/String of bench"
    ) in answer.message
    assert "/instruction: 0 of 1 publishers connected; bench: " in answer.message
    assert "Volatile publisher and transient local subscription" in answer.message
    assert answer.message in bench.text()
    assert not bench.out.exists(), "an empty bag was left"


def test_interrupt_closes_the_bag(make_bench):
    bench = make_bench()
    script = future_episode(0.5)
    bench.advertise(script)
    path = Path(bench.call("start").message)
    bench.publish(script)
    bench.process.send_signal(signal.SIGINT)
    assert bench.process.wait(DEADLINE_S) == 0, bench.text()
    assert (path / "metadata.yaml").exists()
    with Bag.open(path) as bag:
        assert bag.report.lines() == []
        assert bag.topics["/joint_states"].count == 26


def test_kill_leaves_a_readable_bag(make_bench):
    bench = make_bench()
    script = future_episode(1.0)
    bench.advertise(script)
    path = Path(bench.call("start").message)
    partial = path.with_name(path.name + ".partial")
    bench.publish(script)
    sent = Counter(entry.topic for entry in script.entries if entry.topic in bench.publishers)

    def on_disk() -> bool:
        """The node writes what it has once a second."""
        with Bag.open(partial) as bag:
            return all(t in bag.topics and bag.topics[t].count >= n for t, n in sent.items())

    bench.wait(on_disk, "all messages on disk")
    bench.process.kill()
    bench.process.wait(DEADLINE_S)
    with Bag.open(bench.out) as bag:
        episode = read_episode(bag)
    assert len(episode) == 11
    assert episode.valid["camera"].all()
    assert any("footer" in line for line in episode.report.lines())


def test_full_disk_closes_the_bag_and_fails(make_bench):
    bench = make_bench(limit=9 << 20)
    script = future_episode(0.5)
    bench.advertise(script)
    path = Path(bench.call("start").message)
    picture = maker.image(10**9, np.zeros((900, 700, 3), np.uint8))
    big = maker.Entry(0, "/camera/image_raw", picture)
    deadline_s = time.monotonic() + DEADLINE_S
    while bench.process.poll() is None and time.monotonic() < deadline_s:
        bench.publishers["/camera/image_raw"].publish(big.raw())
        time.sleep(0.01)
    assert bench.process.wait(DEADLINE_S) == 1
    complaints = [line for line in bench.text().splitlines() if re.search("FATAL|error:", line)]
    assert len(complaints) == 1 and "disk full" in complaints[0]
    assert (path / "metadata.yaml").exists()
    with Reader(path) as reader:
        assert reader.message_count >= 3
        assert reader.message_count == sum(1 for _ in reader.messages())
