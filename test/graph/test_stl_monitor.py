"""The monitor node over real topics: its events are those of the bag, its verdicts are exact, bad
input has a name, and it stops a robot."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger

import embodied_rl.cli.main as cli
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.nodes import qos

from .conftest import EMBODIMENT

TASK = "return_home"
SHIPPED = EMBODIMENT.parent / "return_home.stl.yaml"
MS = 1_000_000
CART = """
name: cart
control_rate_hz: 10
streams:
  cart: {topic: joint_states, type: sensor_msgs/msg/JointState, field: position, joints: [x],
         unit: m, rate_hz: 50, max_age_s: 0.15}
  goal: {topic: goal_states, type: sensor_msgs/msg/JointState, field: position, joints: [g],
         unit: m, rate_hz: 10, max_age_s: 0.3}
commands:
  cart: {topic: cart/commands, type: std_msgs/msg/Float64MultiArray, joints: [x], unit: m,
         lower: [-9], upper: [9], max_velocity: [1]}
"""
SPEC = """
name: stays
dt_s: 0.1
formulas:
  near: G[0,3] x < 2 and G[0,3] goal > -1
  gets_there: F[0,3] x > 1
signals:
  x: {stream: cart, component: x, bounds: [-5, 5]}
  goal: {stream: goal, component: g, bounds: [-5, 5]}
"""


# ------------------------------------------------------------------ live and from the bag
def test_events_of_a_live_run_are_those_of_its_bag_to_the_byte(processes, probe, tmp_path):
    """The shipped specification, with one formula more that the task violates."""
    out, spec = tmp_path / "run", tmp_path / "spec.yaml"
    text = SHIPPED.read_text().replace("formulas:", "formulas:\n  stays: G[1,3] tool_to_hub < 0.1")
    spec.write_text(text.replace("mode: episode", "mode: episode\npredictor: hold"))
    common = {"embodiment": EMBODIMENT, "use_sim_time": True}
    processes.start("sim_node", mode="lockstep", task=TASK, cameras="none", seed=1)
    clock = probe.collect(Clock, "/clock")
    probe.until(lambda: clock, "clock")
    processes.start("command_gate_node", mode="lockstep", **common)
    processes.start("policy_node", policy="expert", task=TASK, mode="lockstep", **common)
    processes.start("recorder_node", out=out, **common)
    processes.start("stl_monitor_node", spec=spec, **common)
    probe.activate_policy()
    said = probe.collect(String, "stl_monitor_node/events", qos.latched(100))
    conductor = processes.start("episode_node", episodes=1, record=True, monitor=True, out=out)
    probe.until(lambda: conductor.poll() is not None, "end of the episode", 60)
    assert conductor.returncode == 0, processes.log("episode_node")
    events, figures = tmp_path / "events.jsonl", tmp_path / "figures.json"
    options = ["--events", str(events), "--json", str(figures)]
    check = ["stl", "check", str(out / "episode_000000"), "--spec", str(spec)]
    assert cli.main([*check, *options]) == 1
    recorded = events.read_text()

    def live() -> str:
        return "".join(message.data + "\n" for _, message in said)

    probe.until(lambda: live().count("\n") >= recorded.count("\n"), "the last event", 20)
    assert live() == recorded
    found = [json.loads(line) for line in recorded.splitlines()]
    assert len(found) > 8
    (violation,) = [e for e in found if e["event"] == "violated"]
    assert violation["formula"] == "stays"
    assert json.loads(figures.read_text())["formulas"]["reaches_hub"]["verdict"] == "satisfied"


# ------------------------------------------------------------------ samples by hand
class Cart:
    """Two topics, a clock and announcements, all said by hand, and what the monitor says."""

    def __init__(self, probe, processes, folder: Path, spec: str = SPEC, **parameters: object):
        (folder / "cart.yaml").write_text(CART)
        (folder / "spec.yaml").write_text(spec)
        self.probe, node = probe, probe.node
        processes.start(
            "stl_monitor_node",
            embodiment=folder / "cart.yaml",
            spec=folder / "spec.yaml",
            use_sim_time=True,
            **parameters,
        )
        self._topics = {
            name: node.create_publisher(JointState, topic, qos.reliable(100))
            for name, topic in (("x", "joint_states"), ("g", "goal_states"))
        }
        self._clock = node.create_publisher(Clock, "/clock", qos.CLOCK)
        self._start = node.create_publisher(String, "episode/start", qos.LATCHED)
        self._outcome = node.create_publisher(String, "episode/outcome", qos.LATCHED)
        self._said = probe.collect(String, "stl_monitor_node/events", qos.latched(100))
        self.robustness = probe.collect(Float64MultiArray, "stl_monitor_node/robustness")
        self._statuses = probe.collect(DiagnosticArray, "stl_monitor_node/status")
        self._diagnostics = probe.collect(DiagnosticArray, "/diagnostics")
        for publisher in (*self._topics.values(), self._start, self._outcome, self._clock):
            probe.until(publisher.get_subscription_count, "monitor")
        probe.until(lambda: self._diagnostics, "monitor's outputs")

    def begin(self, start_ms: int = 1000, episode: int = 0) -> None:
        info = EpisodeInfo(episode, 0, "cart", "", start_ms * MS)
        self._start.publish(String(data=info.to_yaml()))
        name = "stl_monitor_node/reset_episode"
        self.probe.until(lambda: self._in(self.probe.call(Trigger, name), info), "episode")

    def end(self) -> None:
        self._outcome.publish(String(data=Outcome(True, True, "there", 1.0).to_yaml()))

    def _in(self, answer, info: EpisodeInfo) -> bool:
        return answer.success and EpisodeInfo.from_yaml(answer.message, "answer") == info

    def send(self, name: str, time_ms: int, value: float) -> None:
        message = JointState(name=[name], position=[value])
        message.header.stamp = Time(sec=time_ms // 1000, nanosec=time_ms % 1000 * MS)
        self._topics[name].publish(message)

    def both(self, *times_ms: int, x: float = 0.0) -> None:
        for time_ms in times_ms:
            self.send("x", time_ms, x)
            self.send("g", time_ms, 0.0)

    def clock(self, time_ms: int) -> None:
        stamp = Time(sec=time_ms // 1000, nanosec=time_ms % 1000 * MS)
        self._clock.publish(Clock(clock=stamp))

    def events(self) -> list[tuple[str, str, int]]:
        found = [json.loads(message.data) for _, message in self._said]
        return [(e["event"], e.get("formula", ""), e["stamp_ns"] // MS) for e in found]

    def figures(self) -> dict[str, str]:
        """Of the newest report; the last line of its state is under ``state_line``."""
        for _, array in reversed(self._diagnostics):
            for status in array.status:
                if status.name == "stl_monitor_node":
                    values = {value.key: value.value for value in status.values}
                    return {**values, "state_line": status.message}
        return {}

    def levels(self) -> dict[str, tuple[bytes, str]]:
        newest = self._statuses[-1][1].status if self._statuses else []
        return {s.name.split(": ")[1]: (s.level, s.message) for s in newest}

    def slots(self) -> int:
        return int(self.figures().get("slots", 0))


@pytest.fixture
def cart(probe, processes, tmp_path):
    return Cart(probe, processes, tmp_path)


def test_one_violation_at_its_exact_slot_and_readings_in_one_message(cart, probe):
    cart.begin()
    cart.both(*range(1000, 1700, 100))
    cart.both(1700, x=2.5)
    cart.both(*range(1800, 2500, 100))
    probe.until(lambda: cart.slots() == 15, "slots")
    expected = [
        ("violated", "near", 1700), ("violated", "near", 1700), ("satisfied", "gets_there", 1700),
    ]  # fmt: skip
    probe.until(lambda: cart.events() == expected, "the three events, and no others")
    probe.until(lambda: len(cart.robustness) == 15, "a reading of each slot")
    newest = cart.robustness[-1][1]
    rows, columns = newest.layout.dim
    assert (rows.label, rows.size, rows.stride) == ("near,gets_there", 2, 10)
    assert columns.label == "anchor_s,low,high,estimate,bound" and columns.size == 5
    near, reached = list(newest.data)[:3], list(newest.data)[5:8]
    assert near == [1.0, -4.0, -0.5] and reached == [1.0, 1.5, 4.0]
    levels = cart.levels()
    assert levels["near"][0] == DiagnosticStatus.ERROR and "near.1" in levels
    assert levels["gets_there"] == (DiagnosticStatus.OK, "satisfied")
    assert levels["near.1"] == (DiagnosticStatus.WARN, "undecided")


def test_an_outcome_ends_its_own_episode_and_not_the_next(cart, probe):
    cart.begin()
    cart.both(*range(1000, 1400, 100))
    probe.until(lambda: cart.slots() == 4, "slots")
    cart.end()
    cart.begin(2000, episode=1)  # at once: both wait for the node together
    settled_s = time.monotonic() + 0.5
    probe.until(lambda: time.monotonic() > settled_s, "half a second")
    cart.both(*range(2000, 5100, 100), x=1.5)
    probe.until(lambda: ("satisfied", "near", 5000) in cart.events(), "verdict")
    cart.end()
    probe.until(lambda: cart.figures()["state_line"] == "the episode is over", "end")
    cart.both(5100, x=9.0)
    assert {event[0] for event in cart.events()} == {"satisfied"}


def test_inputs_that_are_merely_late_make_no_event(cart, probe):
    """One topic 0.14 s behind the other all the way, within the lateness of 0.2 s; as fast as on
    a robot, so that what the machine adds stays within the rest."""
    cart.begin()
    begun_s = time.monotonic()
    for time_ms in range(1000, 2500, 20):
        cart.send("x", time_ms, 0.0)
        behind_ms = time_ms - 140
        if behind_ms >= 1000 and behind_ms % 100 == 0:
            cart.send("g", behind_ms, 0.0)
        due_s = begun_s + (time_ms - 1000) / 1e3
        probe.until(lambda due_s=due_s: time.monotonic() > due_s, "pace")
    probe.until(lambda: cart.slots() >= 13, "slots")
    assert cart.events() == []
    assert "goal.late" not in cart.figures() and cart.figures()["lost"] == "0"


def test_bad_messages_are_named_and_counted_and_never_make_a_verdict(cart, probe):
    cart.begin()
    cart.both(1000, 1100)
    probe.until(lambda: cart.slots() == 2, "slots")
    cart.send("x", 0, 9.0)
    line = "joint_states: expected a stamp in the header, saw 0 ns"
    probe.until(
        lambda: cart.figures().get("cart.last_refusal", "").startswith(line), "refusal of no stamp"
    )
    cart.send("x", 1200, float("nan"))
    line = "joint_states: x: expected a finite number, saw nan"
    probe.until(lambda: cart.figures().get("cart.last_refusal") == line, "refusal of NaN")
    cart.send("x", 60_000, 9.0)
    probe.until(lambda: "ahead" in cart.figures()["cart.last_refusal"], "refusal of the future")
    cart.both(*range(1300, 1700, 100))
    probe.until(lambda: cart.slots() == 7, "the slots after it")
    cart.send("g", 1250, -9.0)
    probe.until(lambda: cart.figures().get("goal.late") == "1", "count of the late one")
    assert cart.figures()["cart.refused"] == "3"
    assert cart.events() == []


def test_silence_is_stale_and_a_clock_set_back_resets(cart, probe):
    cart.begin(9000)
    cart.both(9000, 9100)
    probe.until(lambda: cart.slots() == 2, "slots")
    cart.clock(9600)
    probe.until(lambda: ("stale", "", 9300) in cart.events(), "event of the silence")
    probe.until(
        lambda: cart.levels().get("near.0") == (DiagnosticStatus.STALE, "missing: x"), "status"
    )
    probe.until(lambda: cart.figures()["state_line"] == "missing: x", "its name")
    cart.clock(1000)
    cart.both(*range(1000, 4100, 100), x=1.5)
    probe.until(lambda: ("satisfied", "near", 4000) in cart.events(), "verdict after the reset")
    assert ("reset", "", 1000) in cart.events()
    assert not [event for event in cart.events() if event[0] == "violated"]


def test_a_violation_stops_the_robot_once_until_the_reset(probe, processes, tmp_path):
    stops = probe.collect(Bool, "emergency_stop")
    cart = Cart(probe, processes, tmp_path, on_violation="stop", anchor="start")
    cart.both(1000, x=2.5)
    probe.until(lambda: stops, "stop")
    cart.begin(2000)
    cart.both(2000, x=2.5)
    probe.until(lambda: ("violated", "near", 2000) in cart.events(), "second violation")
    assert [message.data for _, message in stops] == [True], "said once"
    assert "stopped the robot: violated near" in cart.figures()["state_line"]
    answer = probe.call(Trigger, "stl_monitor_node/reset")
    assert answer.success and "release the command gate" in answer.message
    probe.until(lambda: cart.figures()["state_line"] == "watching", "end of the stop")
    cart.both(3000, x=2.5)
    probe.until(lambda: len(stops) == 2, "stop after the reset")
    kinds = ["reset", "violated", "violated", "satisfied"]
    probe.until(lambda: [event[0] for event in cart.events()[-4:]] == kinds, "their events")


def test_the_gate_obeys_the_monitor(processes, probe, tmp_path):
    """A real arm in motion: the violation stops it, and only a release lets it go on."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: still\ndt_s: 0.1\nformulas: {still: 'G[0,20] abs(speed) < 0.05'}\n"
        "signals: {speed: {stream: arm_velocity, component: shoulder_pan_joint}}\n"
    )
    common = {"embodiment": EMBODIMENT, "use_sim_time": True}
    processes.start("sim_node", mode="realtime", cameras="none")
    processes.start("command_gate_node", mode="realtime", **common)
    processes.start("policy_node", policy="expert", task="replace_object", **common)
    processes.start("stl_monitor_node", spec=spec, on_violation="stop", **common)
    probe.activate_policy()
    states = probe.collect(DiagnosticArray, "/diagnostics")

    def gate() -> str:
        lines = [s.message for _, a in states for s in a.status if s.name == "command_gate_node"]
        return lines[-1] if lines else ""

    stop = probe.node.count_publishers
    probe.until(lambda: stop("emergency_stop") and "no command" in gate(), "gate and monitor")
    probe.reset_simulator()
    probe.until(lambda: gate() == "emergency stop", "stop of the gate", 30)
    request = SetBool.Request(data=False)
    assert probe.call(SetBool, "command_gate_node/emergency_stop", request).success
    probe.until(lambda: gate() != "emergency stop", "release")


def test_a_bad_specification_ends_the_node_with_one_line(processes, tmp_path):
    (tmp_path / "cart.yaml").write_text(CART)
    (tmp_path / "spec.yaml").write_text(SPEC.replace("x < 2", "speed < 2"))
    process = processes.start(
        "stl_monitor_node", embodiment=tmp_path / "cart.yaml", spec=tmp_path / "spec.yaml"
    )
    assert process.wait(timeout=30) == 1
    (line,) = processes.log("stl_monitor_node").strip().splitlines()
    assert line.startswith("error: ")
    assert line.endswith("formulas.near: unknown signal 'speed'; declared: goal, x")
