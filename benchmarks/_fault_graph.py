"""A stand-in robot, the command gate and a scripted policy over real topics, and an independent
watcher of every actuator message. Shared by the benchmarks of faults and of stops."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from embodied_rl.bringup.environment import (
    child_environment,
    defaults,
    private_domain,
    require_ros,
    share_file,
)
from embodied_rl.core.embodiment import JOINT_TRAJECTORY, Embodiment
from embodied_rl.core.heartbeat import Heartbeat
from embodied_rl.core.parent import die_with_starter
from embodied_rl.core.policy import ActionChunk

ARM = "sim_worlds/tabletop/ur5e_2f85.yaml"
BASE = "sim_worlds/arena/diff_drive.yaml"
START = {ARM: [-0.271, -1.575, 1.786, -1.782, -1.571, -0.271, 0.1]}  # over the table
TARGETS, EXECUTE = 8, 4  # of the scripted policy's chunks
SERVO_S = 0.05  # a joint lags behind its set point by so much of its fastest motion
ARRIVAL_S = 0.05  # a message is dated by its arrival here, on a busy machine
PAUSE_PERIODS = 3  # after so long without a trajectory the joint counts, not the last command
ROUNDING = 1e-6


@dataclass(frozen=True)
class Sent:
    """One actuator message, as it came to the watcher."""

    at_s: float  # steady clock
    key: str
    message: object


class ScriptedPolicy:
    """Moves every joint to and fro, or drives a base, by chunks on the system's clock."""

    def __init__(self, graph: Graph, session: str = "5c417ed0"):
        from std_msgs.msg import Header
        from trajectory_msgs.msg import JointTrajectory

        self.graph, self.session = graph, session
        self.beats, self.chunks = True, True
        self.refusal = ""
        self.shift_ns = 0  # of its stamps
        node = graph.node
        self._chunk = node.create_publisher(JointTrajectory, "policy/chunk", 10)
        self._beat = node.create_publisher(Header, "policy/heartbeat", 10)
        self._newest_ns = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.graph.until(self._chunk.get_subscription_count, "gate")
        self.graph.until(self._beat.get_subscription_count, "gate")
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self.graph.node.destroy_publisher(self._chunk)
        self.graph.node.destroy_publisher(self._beat)

    def _run(self) -> None:
        period_ns = self.graph.embodiment.period_ns
        tick = 0
        while not self._ended.wait(period_ns / 2e9):
            now_ns = time.time_ns() + self.shift_ns
            due = now_ns // (EXECUTE * period_ns)
            if due != tick and self.chunks:
                tick = due
                self.send_chunk(now_ns // period_ns * period_ns)
            if self.beats:
                self.send_beat(now_ns // period_ns * period_ns)

    def send_beat(self, tick_ns: int, text: str | None = None) -> None:
        from std_msgs.msg import Header

        from embodied_rl.nodes.messages import time_message

        beat = Heartbeat(self.session, self._newest_ns, self.refusal).text()
        self._beat.publish(
            Header(stamp=time_message(tick_ns), frame_id=beat if text is None else text)
        )

    def send_chunk(self, tick_ns: int, values: np.ndarray | None = None) -> None:
        from embodied_rl.nodes.messages import trajectory

        embodiment = self.graph.embodiment
        if values is None:
            values = self.graph.plan(tick_ns, TARGETS)
        chunk = ActionChunk(tick_ns, embodiment.period_ns, values)
        names = embodiment.action_names
        message = trajectory(chunk, names, slice(0, len(names)))
        message.header.frame_id = self.session
        self._newest_ns = max(self._newest_ns, tick_ns)
        self._chunk.publish(message)


class Graph:
    """The processes of one robot, in a domain of their own."""

    def __init__(self, robot: str, text: str | None = None, **stand_in: object):
        require_ros()
        self._folder = tempfile.TemporaryDirectory(prefix="faults_")
        path = share_file(robot)
        data = yaml.safe_load(text or path.read_text(encoding="utf-8"))
        # The scripted motion knows no box, and large motions show what small ones hide.
        data.pop("workspace", None)
        path = Path(self._folder.name) / "robot.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        self.path = path
        self.embodiment = Embodiment.load(path)
        os.environ.update(defaults(local=True))
        self._domain = private_domain()
        self._environment = child_environment({"ROS_DOMAIN_ID": str(self._domain)})
        self.processes: dict[str, subprocess.Popen] = {}
        if robot in START:
            stand_in["start"] = f"'{START[robot]}'"  # a text, which YAML would take for a list
        self._parameters = {"stand_in_node": stand_in}
        self.start("stand_in_node")
        self.start("command_gate_node")
        self._open()

    def start(self, name: str) -> None:
        parameters = self._parameters.get(name, {})
        words = [w for k, v in parameters.items() for w in ("-p", f"{k}:={v}")]
        log = open(Path(self._folder.name) / f"{name}.log", "a")  # noqa: SIM115 - of the process
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", f"embodied_rl.nodes.{name}", "--ros-args"]
            + ["-p", f"embodiment:={self.path}", *words],
            env=self._environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_starter(),
        )

    def log(self, name: str) -> str:
        return (Path(self._folder.name) / f"{name}.log").read_text(encoding="utf-8")

    def _open(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool, String
        from trajectory_msgs.msg import JointTrajectory

        from embodied_rl.nodes import messages

        self.context = Context()
        rclpy.init(context=self.context, domain_id=self._domain)
        self.node = Node("rosbag2_watcher", context=self.context)  # no controller
        self.sent: deque[Sent] = deque(maxlen=200_000)
        self.executed: deque[tuple[float, object]] = deque(maxlen=10_000)
        self.truth: deque[tuple[float, np.ndarray]] = deque(maxlen=20_000)
        self.refused = 0  # commands, by the robot's controllers
        self.status: dict[str, tuple[int, str, dict[str, str]]] = {}
        for key, command in self.embodiment.commands.items():
            self.node.create_subscription(
                messages.MESSAGE_CLASSES[command.type],
                command.topic,
                functools.partial(self._on_command, key),
                100,
            )
        listen = self.node.create_subscription
        listen(
            JointTrajectory,
            "command/executed",
            lambda m: self.executed.append((time.monotonic(), m)),
            1000,
        )
        listen(
            JointState,
            "stand_in/truth",
            self._on_truth,
            100,
        )
        listen(DiagnosticArray, "/diagnostics", self._on_status, 100)
        self._faults = self.node.create_publisher(String, "stand_in/faults", 10)
        self.stop_topic = self.node.create_publisher(Bool, "emergency_stop", 10)
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self.node)
        self._spinning = threading.Event()
        self._spinning.set()
        self._thread = threading.Thread(target=self._spin, args=(executor,), daemon=True)
        self._thread.start()
        self.until(self._faults.get_subscription_count, "stand-in")
        self.until(self.stop_topic.get_subscription_count, "gate")
        self.until(lambda: self.truth, "state of the stand-in")
        self._begin = self.truth[-1][1]

    def _on_truth(self, message) -> None:
        self.truth.append((time.monotonic(), np.array(message.position)))
        self.refused = int(message.header.frame_id)

    def _on_command(self, key: str, message) -> None:
        if not _empty(message):  # what a rival of a fault sends
            self.sent.append(Sent(time.monotonic(), key, message))

    def _spin(self, executor) -> None:
        while self._spinning.is_set():
            executor.spin_once(timeout_sec=0.05)
        executor.shutdown()

    def _on_status(self, array) -> None:
        for status in array.status:
            values = {item.key: item.value for item in status.values}
            level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            self.status[status.name] = (level, status.message, values)

    def until(self, condition, what: str, seconds: float = 30.0):
        deadline_s = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no {what} within {seconds:g} s")
            time.sleep(0.002)
        return value

    def faults(self, **given: object) -> None:
        """Set what is the matter with the robot; nothing given makes it whole."""
        from std_msgs.msg import String

        self._faults.publish(String(data=yaml.safe_dump(given) if given else ""))

    def emergency_stop(self, wanted: bool) -> None:
        from std_msgs.msg import Bool

        self.stop_topic.publish(Bool(data=wanted))

    def call(self, name: str, kind=None, seconds: float = 10.0, **fields: object):
        from std_srvs.srv import Trigger

        kind = kind or Trigger
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, f"service {name}", seconds)
        future = client.call_async(kind.Request(**fields))
        self.until(future.done, f"answer of {name}", seconds)
        return future.result()

    def report(self) -> dict:
        return yaml.safe_load(self.call("stand_in_node/report").message)

    def plan(self, tick_ns: int, count: int) -> np.ndarray:
        """Targets ``(count, A)`` of a motion that is well within the limits."""
        lower, upper, rate = self.embodiment.limits()
        times_s = (tick_ns + self.embodiment.period_ns * np.arange(1, count + 1)) % (60 * 10**9)
        wave = np.sin(2 * np.pi * times_s / 3e9)[:, None]
        if self.embodiment.velocities.any():
            return np.clip(0.4 * upper * (1 + 0.3 * wave), lower, upper)
        room = np.minimum(upper - self._begin, self._begin - lower)
        return self._begin + np.minimum(0.3 * rate, room) * wave

    def following(self) -> bool:
        return bool(self.executed) and len(self.executed[-1][1].points) > 1

    def state(self) -> str:
        return self.status.get("command_gate_node", (0, "", {}))[1]

    def last_error(self) -> str:
        return self.status.get("command_gate_node", (0, "", {}))[2].get("last_error", "")

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._spinning.clear()
        self._thread.join()
        import rclpy

        rclpy.shutdown(context=self.context)
        self._folder.cleanup()


def unsafe(graph: Graph, since_s: float, until_s: float) -> list[str]:
    """What no actuator may be told, by its limits alone; none of the gate's code is used.

    A trajectory: finite, within range (or on the way back), no two points faster than the joint may
    move, the first one within reach of what was commanded until it came, and after a pause within
    reach of where the joint is. A velocity: finite, in range, and not further from the one before
    than the acceleration allows; after half a second of silence a base stands.
    """
    found: list[str] = []
    last: dict[str, tuple[float, np.ndarray, np.ndarray]] = {}  # key -> arrival, values, due
    truth = list(graph.truth)
    times = np.array([at for at, _ in truth])
    for sent in list(graph.sent):
        command = graph.embodiment.commands[sent.key]
        values, after_s = _targets(sent.message, command)
        before = last.get(sent.key)
        place = min(max(int(np.searchsorted(times, sent.at_s)) - 1, 0), len(truth) - 1)
        is_at = truth[place][1][graph.embodiment.slices()[sent.key]]
        path = np.vstack([is_at, values]), sent.at_s + np.concatenate([[0.0], after_s])
        last[sent.key] = (sent.at_s, *path)
        if not since_s <= sent.at_s <= until_s:
            continue
        reason = _reason(graph, sent, values, after_s, before, is_at)
        if reason:
            found.append(f"{command.topic} {sent.at_s - since_s:+.3f} s: {reason}")
    return found


def _reason(graph, sent, values, after_s, before, is_at) -> str:
    """Why one message is unsafe, or nothing."""
    embodiment, command = graph.embodiment, graph.embodiment.commands[sent.key]
    low, high, fast = (limit[embodiment.slices()[sent.key]] for limit in embodiment.limits())
    period_s = embodiment.period_ns / 1e9
    if not np.all(np.isfinite(values)):
        return "not finite"
    # outside its range a joint may be held where it is, as far as that is known
    low = np.minimum(low, is_at - SERVO_S * fast * (is_at < low)) - ROUNDING
    high = np.maximum(high, is_at + SERVO_S * fast * (is_at > high)) + ROUNDING
    if ((values < low) | (values > high)).any():
        return "out of range"
    if command.type == JOINT_TRAJECTORY:
        steps = np.abs(np.diff(values, axis=0)) / np.diff(after_s)[:, None]
        if (steps > fast * 1.001 + ROUNDING).any():
            return f"points faster than the limit, {steps.max():.2f}"
        lead_s = max(after_s[0], period_s)
        off = np.abs(values[0] - is_at) - fast * (lead_s + SERVO_S)
        if before is not None and sent.at_s - before[0] <= PAUSE_PERIODS * period_s:
            path = [np.interp(sent.at_s, before[2], column) for column in before[1].T]
            gap = np.abs(values[0] - np.array(path))
            off = np.minimum(off, gap - fast * (lead_s + ARRIVAL_S))
        if (off > ROUNDING).any():
            worst = int(np.argmax(off))
            return (
                f"{command.names[worst]}: first point {values[0][worst]:.3f} after "
                f"{after_s[0]:.3f} s, joint at {is_at[worst]:.3f}, {len(values)} points"
            )
    elif command.velocity:
        rests = before is None or sent.at_s - before[0] > 0.5
        told = np.zeros_like(values[0]) if rests else before[1][-1]
        passed_s = period_s if rests else sent.at_s - before[0] + ARRIVAL_S
        if (np.abs(values[0] - told) > fast * max(passed_s, period_s) + 1e-3).any():
            return f"velocity changes by {np.abs(values[0] - told).max():.2f}"
    return ""


def _empty(message) -> bool:
    """Whether a command says nothing: no joints, no data, or a velocity without a stamp."""
    for name in ("joint_names", "data"):
        if hasattr(message, name):
            return not len(getattr(message, name))
    return message.header.stamp.sec == 0


def _targets(message, command) -> tuple[np.ndarray, np.ndarray]:
    """Targets ``(T, n)`` and after how long they are due ``(T,)`` in seconds from the arrival."""
    if command.type == JOINT_TRAJECTORY:
        place = [list(message.joint_names).index(name) for name in command.names]
        values = np.array([point.positions for point in message.points])[:, place]
        starts = [point.time_from_start for point in message.points]
        return values, np.array([s.sec + s.nanosec / 1e9 for s in starts])
    if command.velocity:
        twist = getattr(message, "twist", message)
        parts = [name.split("_") for name in command.names]
        return np.array([[getattr(getattr(twist, p), axis) for p, axis in parts]]), np.zeros(1)
    return np.array([list(message.data)]), np.zeros(1)
