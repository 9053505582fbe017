"""Slow plans, sensors that fail and come back, requests out of place, hostile texts: the node
lives, its heart beats on, and says why the robot must hold."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.heartbeat import Heartbeat
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec
from embodied_rl.nodes import qos

from .conftest import EMBODIMENT
from .test_policy_node import Robot, reasons

KEYS = ("arm_position", "object_position")


class Slow:
    """Stands still, and takes ``think_s`` for a plan."""

    def __init__(self, embodiment: Embodiment, think_s: float = 0.0):
        shapes = {key: embodiment.streams[key].shape for key in KEYS}
        self.spec = PolicySpec(
            name="slow", streams=shapes, action_dim=embodiment.action_dim, chunk=50, execute=2,
            rate_hz=embodiment.control_rate_hz, history=1, stride=1, embodiment=embodiment.name,
            embodiment_hash=embodiment.contract_hash(KEYS),
        )  # fmt: skip
        self.think_s, self._period_ns = think_s, embodiment.period_ns
        self.rows, self.told, self.begun = [], [], 0
        self.range = {}

    def reset(self, episode) -> None:
        self.begun += 1

    def observe(self, observation) -> None:
        self.rows.append(observation)

    def act(self) -> ActionChunk:
        time.sleep(self.think_s)
        values = np.zeros((50, self.spec.action_dim))
        return ActionChunk(self.rows[-1].stamp_ns, self._period_ns, values)

    def executed(self, chunk) -> None:
        del chunk

    def instruct(self, text: str) -> None:
        if "overflow" in text:
            raise OverflowError("cannot convert float infinity to integer")
        self.told.append(text)

    def observed_range(self):
        return self.range

    def save_memory(self) -> bytes:
        return b"kept"

    def load_memory(self, blob: bytes) -> None:
        if blob != b"kept":
            raise KeyError("field")


@pytest.fixture
def robot(probe):
    return Robot(probe)


def activate(host, probe) -> None:
    """By the service, as others do: on the executor's thread."""
    host._thread.start()
    probe.until(lambda: probe.change(Transition.TRANSITION_ACTIVATE), "activation")


def watch(probe):
    """The heartbeats with their arrival, and the diagnostics."""
    return probe.collect(Header, "policy/heartbeat"), probe.collect(DiagnosticArray, "/diagnostics")


def refusal(beats) -> str:
    return Heartbeat.parse(beats[-1][1].frame_id).refusal if beats else ""


def test_requests_during_long_plans_are_answered_and_the_heart_beats_on(
    robot, probe, host, tmp_path
):
    memory = tmp_path / "memory"
    policy = host.configure(
        lambda body: Slow(body, think_s=2.0), embodiment=EMBODIMENT, memory_path=memory
    )
    activate(host, probe)
    beats, _ = watch(probe)
    chunks = probe.collect(JointTrajectory, "policy/chunk")
    instruct = probe.node.create_publisher(String, "instruction", qos.LATCHED)
    probe.until(lambda: chunks and beats, "a first plan")
    session = chunks[0][1].header.frame_id
    assert session and Heartbeat.parse(beats[-1][1].frame_id).session == session
    clients = {
        name: probe.node.create_client(Trigger, f"policy_node/{name}")
        for name in ("reset_episode", "save_memory", "load_memory")
    }
    for client in clients.values():
        probe.until(client.service_is_ready, "services")
    # each is seen before it sees its caller; an answer of that moment is lost
    settled_s = time.monotonic() + 0.5
    probe.until(lambda: time.monotonic() > settled_s, "settling")
    begun, mark, answered, futures = policy.begun, time.monotonic(), [], []
    for number in range(12):
        instruct.publish(String(data=f"task {number}"))
        if number % 4 == 0:
            reset = clients["reset_episode"].call_async(Trigger.Request())
            asked = time.monotonic()
            reset.add_done_callback(lambda _, a=asked: answered.append(time.monotonic() - a))
            futures += [reset, clients["save_memory"].call_async(Trigger.Request())]
            futures += [clients["load_memory"].call_async(Trigger.Request())]
        next_s = mark + 0.25 * (number + 1)
        probe.until(lambda until_s=next_s: time.monotonic() > until_s, "a quarter")
    probe.until(lambda: all(future.done() for future in futures), "answers")
    assert all(future.result().success for future in futures)
    assert max(answered) < 1.5, "it waited for a plan"
    probe.until(lambda: policy.told and policy.told[-1] == "task 11", "the newest task")
    assert policy.begun > begun
    gaps = np.diff([at for at, _ in beats if at > mark])
    assert max(gaps) < 1.5, "the heart stood still for a plan"
    # each row has all that had come: only the first ones of an episode may lack a stream
    late = [row.missing for row in policy.rows if row.missing]
    assert len(late) <= 4 * (policy.begun + 1) and len(policy.rows) > 10


def test_a_stream_that_slows_or_stops_leads_to_hold_and_back(robot, probe, host):
    host.configure(Slow, embodiment=EMBODIMENT)
    activate(host, probe)
    beats, states = watch(probe)
    chunks = probe.collect(JointTrajectory, "policy/chunk")
    probe.until(lambda: len(chunks) > 2 and not refusal(beats), "sound work")
    robot.skip["joint_states"] = 4  # 12.5 of 50 Hz
    probe.until(
        lambda: "'arm_position' on joint_states: expected at least" in refusal(beats), "why"
    )
    probe.until(lambda: "expected at least 80%" in reasons(states), "diagnostics")
    count = len(chunks)
    probe.until(lambda: len(beats) > 10, "beats")
    robot.skip["joint_states"] = 0
    probe.until(lambda: not refusal(beats), "the stream is sound again")
    probe.until(lambda: len(chunks) > count + 1, "plans go on")
    robot.skip["object_pose"] = 10**9
    mark = time.monotonic()
    probe.until(lambda: "object_position" in refusal(beats), "hold for a silent stream")
    assert time.monotonic() < mark + 5
    robot.skip["object_pose"] = 0
    count = len(chunks)
    probe.until(lambda: not refusal(beats) and len(chunks) > count, "back again")


def test_any_lifecycle_request_in_any_state_is_answered(robot, probe, processes):
    process = processes.start(
        "policy_node", policy="expert", task="replace_object", embodiment=EMBODIMENT
    )
    client = probe.node.create_client(ChangeState, "policy_node/change_state")
    probe.until(client.service_is_ready, "service")
    probe.until(lambda: len(probe.node.get_node_names()) > 1, "node")

    def ask(number: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = number
        future = client.call_async(request)
        probe.until(future.done, f"answer to {number}")
        return future.result().success

    go = Transition
    numbers = [1, 2, 3, 4, 5, 6, 7, 0, 99]
    safe_unconfigured = [n for n in numbers if n not in (1, 5)]
    assert not any(ask(n) for n in safe_unconfigured * 2)
    assert ask(go.TRANSITION_CONFIGURE) and not ask(go.TRANSITION_CONFIGURE)
    probe.until(lambda: ask(go.TRANSITION_ACTIVATE), "activation")
    assert not any(ask(n) for n in (1, 3, 2, 5, 6, 0, 99) * 2)  # 2: cleanup, 3: activate
    assert ask(go.TRANSITION_DEACTIVATE) and not ask(go.TRANSITION_DEACTIVATE)
    assert ask(go.TRANSITION_CLEANUP) and not ask(go.TRANSITION_CLEANUP)
    assert ask(go.TRANSITION_CONFIGURE) and ask(go.TRANSITION_INACTIVE_SHUTDOWN)
    assert not any(ask(n) for n in numbers)
    assert process.poll() is None
    text = processes.log("policy_node")
    assert "Traceback" not in text and "not possible in state 'active'" in text


def test_hostile_texts_cost_a_line(robot, probe, host):
    policy = host.configure(Slow, embodiment=EMBODIMENT)
    activate(host, probe)
    beats, states = watch(probe)
    instruct = probe.node.create_publisher(String, "instruction", qos.LATCHED)
    start = probe.node.create_publisher(String, "episode/start", qos.LATCHED)
    chunks = probe.collect(JointTrajectory, "policy/chunk")
    probe.until(lambda: len(chunks) > 1, "chunks")
    of_1970 = EpisodeInfo(3, 4, "t", "look", 0).to_yaml()
    for publisher, text, line in (
        (instruct, "overflow", "cannot read it (OverflowError"),
        (instruct, "\x1b[31m", "expected plain text"),
        (instruct, "x" * 10**6, "instruction: expected at most 20000 characters"),
        (start, "[" * 5000, "nested too deeply"),
        (start, "a: &a [1]\nb: *a", "an alias"),
        (start, of_1970, "start_ns: expected a time within 60 s of the clock"),
        (start, "x" * 10**6, "episode/start: expected at most 20000 characters"),
    ):
        publisher.publish(String(data=text))
        probe.until(lambda said=line: said in reasons(states), line)
    instruct.publish(String(data="be sound"))
    probe.until(lambda: policy.told and policy.told[-1] == "be sound", "a sound instruction")
    count = len(chunks)
    probe.until(lambda: len(chunks) > count + 3, "chunks as before")
    now_ns = probe.node.get_clock().now().nanoseconds
    begun = policy.begun
    start.publish(String(data=EpisodeInfo(5, 6, "t", "go", now_ns).to_yaml()))
    probe.until(lambda: policy.begun > begun and policy.told[-1] == "go", "a sound episode")
    longest = max(len(s.message) for _, array in states for s in array.status)
    assert longest < 3000


def test_a_stray_stamp_and_a_clock_ahead_cost_nothing_but_themselves(robot, probe, host):
    policy = host.configure(Slow, embodiment=EMBODIMENT)
    activate(host, probe)
    _, states = watch(probe)
    probe.until(lambda: len(policy.rows) > 5, "rows")
    begun, pose = policy.begun, {"left": 1}

    def from_1970(message) -> None:
        if pose["left"]:
            pose["left"] -= 1
            message.header.stamp.sec, message.header.stamp.nanosec = 1, 0

    robot.spoil["object_pose"] = from_1970
    probe.until(lambda: not pose["left"], "the stray")
    count = len(policy.rows)
    probe.until(lambda: len(policy.rows) > count + 10, "rows go on")
    assert policy.begun == begun and not any(row.missing for row in policy.rows[count:])
    stamps = np.diff([row.stamp_ns for row in policy.rows[count:]])
    assert set(stamps) == {100_000_000}

    def ahead(message) -> None:
        message.header.stamp.sec += 1

    robot.spoil["object_pose"] = ahead
    probe.until(lambda: "expected a stamp not after the clock" in reasons(states), "a refusal")
    meter = host.node._input.meters["object_position"]
    probe.until(lambda: meter.refused > 20, "many of them")
    assert len(meter.refusals._known) == 1, "one cause, one line"


def test_it_refuses_to_begin_far_from_its_training_or_beside_another_policy(robot, probe, host):
    policy = host.configure(Slow, embodiment=EMBODIMENT)
    zeros = np.zeros(policy.spec.streams["arm_position"])
    node = host.node
    far = {"arm_position": (zeros - 7.0, zeros - 6.0)}
    node._worker.report.range._ranges = far
    beats, states = watch(probe)
    host._thread.start()
    named = "shoulder_pan_joint: expected -7 to -6 as in training, saw 0.1"
    probe.until(lambda: not probe.change(3) and named in reasons(states), "the refusal")
    node._worker.report.range._ranges = {"arm_position": (zeros - 0.5, zeros)}
    other = probe.node.create_publisher(Header, "policy/heartbeat", 10)
    timer = probe.node.create_timer(0.05, lambda: other.publish(Header(frame_id="ab12 0")))
    probe.until(lambda: not probe.change(3) and "no other policy" in reasons(states), "no second")
    probe.node.destroy_timer(timer)
    probe.until(lambda: probe.change(3), "activation")
    probe.until(lambda: "outside the training range" in reasons(states), "the warning")
