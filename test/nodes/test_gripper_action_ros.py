"""A gripper led by goals: when one is sent, what a stop does, and what is said of a server's no.

The package of the action has no wheel: a few lines stand in for it and for the server.
"""

from __future__ import annotations

import sys
from types import ModuleType
from types import SimpleNamespace as Some

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy  # noqa: E402
from action_msgs.msg import GoalStatus  # noqa: E402
from action_msgs.srv import CancelGoal  # noqa: E402

from embodied_rl.bringup.environment import private_domain  # noqa: E402
from embodied_rl.core.embodiment import Embodiment  # noqa: E402
from embodied_rl.core.errors import UserError  # noqa: E402
from embodied_rl.core.policy import ActionChunk  # noqa: E402
from embodied_rl.core.window import Sample  # noqa: E402
from embodied_rl.nodes import command_output, gripper_action, messages  # noqa: E402
from embodied_rl.nodes.actuator_input import ActuatorInput  # noqa: E402
from embodied_rl.nodes.command_gate_node import CommandGateNode  # noqa: E402
from embodied_rl.nodes.command_output import CommandOutput  # noqa: E402
from embodied_rl.nodes.process import Stop  # noqa: E402

KIND = "control_msgs/action/GripperCommand"
OK, BAD, GONE = (
    GoalStatus.STATUS_SUCCEEDED,
    GoalStatus.STATUS_ABORTED,
    GoalStatus.STATUS_CANCELED,
)


def robot(**keys) -> Embodiment:
    stream = {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "field": "position",
              "joints": ["finger"], "rate_hz": 50, "max_age_s": 0.1}  # fmt: skip
    grip = {"topic": "gripper/gripper_cmd", "type": KIND, "joints": ["finger"], "unit": "m",
            "lower": [0.0], "upper": [0.1], "max_velocity": [0.2], **keys}  # fmt: skip
    data = {"name": "own", "control_rate_hz": 10, "streams": {"arm": stream},
            "commands": {"grip": grip}}  # fmt: skip
    return Embodiment.parse(yaml.safe_dump(data), "own.yaml")


class Future:
    """Calls back when :meth:`set` says what it holds."""

    def __init__(self):
        self._then, self._value = [], None

    def add_done_callback(self, then):
        self._then.append(then)

    def set(self, value):
        self._value = value
        for then in self._then:
            then(self)

    def exception(self):
        return self._value if isinstance(self._value, Exception) else None

    def result(self):
        return self._value


class Handle:
    def __init__(self, accepted):
        self.accepted, self.result, self.canceled = accepted, Future(), []

    def get_result_async(self):
        return self.result

    def cancel_goal_async(self):
        self.canceled.append(Future())
        return self.canceled[-1]


class Server:
    """Both ends of the action: what the client sends, and what the server makes of it."""

    def __init__(self, node, kind, name):
        self.name, self.ready = name, True
        self.goals: list[tuple[object, Future]] = []

    def server_is_ready(self):
        return self.ready

    def send_goal_async(self, goal):
        self.goals.append((goal, Future()))
        return self.goals[-1][1]

    def positions(self):
        return [goal.command.position for goal, _ in self.goals]

    def answer(self, accepted=True, which=-1) -> Handle:
        handle = Handle(accepted)
        self.goals[which][1].set(handle)
        return handle


class Node:
    """As much of a node as an output of commands needs."""

    def __init__(self):
        self.timers, self.lines = [], []

    def create_timer(self, period_s, callback, clock):
        self.timers.append(callback)

    def create_subscription(self, *_):
        pytest.fail("nobody listens for an action on a topic")

    def resolve_topic_name(self, name):
        return f"/{name}"

    def count_publishers(self, topic):
        return 0

    def get_logger(self):
        return Some(warning=self.lines.append)


@pytest.fixture
def control_msgs(monkeypatch):
    """As on a machine that has the package."""

    class Goal:
        def __init__(self):
            self.command = Some(position=0.0, max_effort=0.0)

    action = ModuleType("control_msgs.action")
    action.GripperCommand = Some(Goal=Goal)
    monkeypatch.setitem(sys.modules, "control_msgs", ModuleType("control_msgs"))
    monkeypatch.setitem(sys.modules, "control_msgs.action", action)
    monkeypatch.setattr(gripper_action, "ActionClient", Server)
    yield
    messages.message_class.cache_clear()


class Gripper:
    """The gate's output of a robot with such a gripper, at a time that the test says."""

    def __init__(self, monkeypatch, **keys):
        self.now_s, self.node, servers = 0.0, Node(), []

        class Timed(gripper_action.GripperAction):
            def __init__(action, node, command):  # noqa: N805
                super().__init__(node, command, lambda: self.now_s)
                servers.append(action._client)

        monkeypatch.setattr(command_output, "GripperAction", Timed)
        self.output = CommandOutput(self.node, robot(**keys))
        (self.server,) = servers

    def tell(self, position, after_s=0.1):
        self.now_s += after_s
        chunk = ActionChunk(10**9, 10**8, np.array([[position]]))
        self.output.send(chunk, self.output.stepped)

    def wait(self, time_s):
        self.now_s += time_s
        for timer in self.node.timers:
            timer()


@pytest.fixture
def gripper(control_msgs, monkeypatch):
    return Gripper(monkeypatch)


def test_a_goal_is_sent_when_the_target_has_moved_and_not_too_often(gripper):
    assert gripper.server.name == "gripper/gripper_cmd" and not gripper.output.trouble()
    for target in (0.02, 0.0205, 0.0209, 0.0195):  # 1 % of the range is 0.001
        gripper.tell(target, after_s=1.0)
    assert gripper.server.positions() == [0.02]
    gripper.tell(0.022, after_s=1.0)
    for target in (0.03, 0.04, 0.05):
        gripper.tell(target, after_s=0.05)
    assert gripper.server.positions() == [0.02, 0.022]
    gripper.wait(0.05)  # no target comes any more: the last one is a goal all the same
    gripper.wait(1.0)
    assert gripper.server.positions() == [0.02, 0.022, 0.05]


def test_the_file_says_how_far_how_often_and_how_hard(control_msgs, monkeypatch):
    gripper = Gripper(monkeypatch, dead_band=0.03, goal_rate_hz=1, max_effort=40)
    for target in (0.0, 0.02, 0.04, 0.08):
        gripper.tell(target, after_s=0.6)
    assert gripper.server.positions() == [0.0, 0.04]
    assert gripper.server.goals[0][0].command.max_effort == 40
    for key, value in (("dead_band", -1), ("goal_rate_hz", 0), ("max_effort", -1)):
        with pytest.raises(UserError, match=f"own.yaml: commands.grip.{key}: expected"):
            robot(**{key: value})
    with pytest.raises(UserError, match="commands.grip.dead_band"):  # of goals only
        robot(type="std_msgs/msg/Float64", dead_band=0.1)


@pytest.mark.parametrize("rate_hz", [1.0, 3.0, 5.0])
def test_no_run_of_targets_makes_more_goals_than_declared(control_msgs, monkeypatch, rate_hz):
    gripper, random, newest = (
        Gripper(monkeypatch, goal_rate_hz=rate_hz),
        np.random.default_rng(4),
        0,
    )
    times: list[float] = []
    for _ in range(2000):
        newest = float(random.uniform(0, 0.1))
        gripper.tell(newest, after_s=float(random.uniform(0, 0.1)))
        gripper.wait(0.0)
        times += [gripper.now_s] * (len(gripper.server.goals) - len(times))
    assert np.diff(times).min() >= 1 / rate_hz - 1e-9
    gripper.wait(2.0)
    assert abs(gripper.server.positions()[-1] - newest) <= 0.001


def test_what_the_server_does_not_do_is_a_reason_until_a_goal_is_well_again(gripper):
    gripper.tell(0.02)
    gripper.server.answer(accepted=False)
    assert (
        gripper.output.complaint()
        == "/gripper/gripper_cmd: the goal 0.02 was refused by the server"
    )
    gripper.tell(0.02, after_s=1.0)  # the same target again: it was never taken
    handle = gripper.server.answer()
    assert len(gripper.server.goals) == 2 and gripper.output.complaint() == ""
    handle.result.set(Some(status=BAD, result=Some(stalled=True)))
    assert "0.02 was aborted (the gripper stalled)" in gripper.output.complaint()
    gripper.tell(0.02, after_s=1.0)
    assert len(gripper.server.goals) == 2  # it was tried
    gripper.tell(0.05, after_s=1.0)
    handle = gripper.server.answer()
    gripper.tell(0.08, after_s=1.0)
    newer = gripper.server.answer()
    handle.result.set(Some(status=BAD, result=Some(stalled=False)))  # replaced: no fault
    assert gripper.output.complaint() == ""
    newer.result.set(Some(status=GONE, result=None))
    assert "0.08 was canceled by the server or by somebody else" in gripper.output.complaint()
    gripper.tell(0.01, after_s=1.0)
    gripper.server.goals[-1][1].set(RuntimeError("no connection"))
    assert gripper.output.complaint().endswith("refused by the server (no connection)")
    assert len(gripper.node.lines) == 4
    gripper.tell(0.02, after_s=1.0)
    gripper.server.answer().result.set(Some(status=OK, result=None))
    assert gripper.output.complaint() == ""


def test_without_a_server_the_gate_holds_and_nothing_old_is_sent_later(gripper):
    gripper.server.ready = False
    assert gripper.output.trouble() == (
        "nobody offers the action /gripper/gripper_cmd; is its controller running?"
    )
    gripper.tell(0.02)
    gripper.server.ready = True
    gripper.wait(1.0)
    assert gripper.server.goals == [] and not gripper.output.trouble()
    gripper.tell(0.02)
    assert gripper.server.positions() == [0.02]


def test_an_emergency_stop_is_a_goal_where_the_gripper_is_until_it_is_accepted(gripper):
    gripper.tell(0.08)
    gripper.server.answer()
    gripper.output.stop(np.array([0.033]))  # at once, however lately the last goal was sent
    assert gripper.server.positions() == [0.08, 0.033]
    gripper.server.answer(accepted=False)
    gripper.wait(0.3)
    assert gripper.server.positions() == [0.08, 0.033, 0.033]
    gripper.server.answer()
    gripper.tell(0.08, after_s=1.0)
    gripper.output.stop(np.array([0.05]))
    gripper.wait(1.0)
    assert gripper.server.positions() == [0.08, 0.033, 0.033]
    gripper.output.release()
    gripper.wait(1.0)
    assert len(gripper.server.goals) == 3  # nothing moves before the next target
    gripper.tell(0.04)
    assert gripper.server.positions()[-1] == 0.04


@pytest.mark.parametrize("measured", [None, np.array([np.nan])])
def test_a_gripper_that_nobody_measures_is_stopped_by_cancelling(gripper, measured):
    gripper.tell(0.08)
    handle = gripper.server.answer()
    gripper.output.stop(measured)
    handle.canceled[0].set(Some(return_code=CancelGoal.Response.ERROR_REJECTED))
    assert "not canceled" in gripper.output.complaint()
    gripper.wait(0.3)
    handle.canceled[1].set(Some(return_code=CancelGoal.Response.ERROR_NONE))
    handle.result.set(Some(status=GONE, result=None))
    gripper.wait(1.0)
    assert len(handle.canceled) == 2 and gripper.server.positions() == [0.08]
    assert gripper.output.complaint() == ""


def test_a_goal_that_is_accepted_after_the_stop_is_cancelled_then(gripper):
    gripper.tell(0.08)
    gripper.output.stop(None)
    gripper.wait(0.3)
    handle = gripper.server.answer()
    assert len(handle.canceled) == 1


def test_a_measured_place_outside_the_range_is_no_goal(gripper):
    gripper.output.stop(np.array([0.1004]))
    assert gripper.server.positions() == [0.1]


def test_without_the_package_or_without_a_robot_one_line_says_what_to_do():
    with pytest.raises(UserError, match="ROS package 'control_msgs' to be installed, saw none"):
        CommandOutput(Node(), robot())
    CommandOutput(Node(), robot(), dry_run=True)  # sends nothing
    with pytest.raises(UserError, match="commands.grip.type: .* a simulated robot offers no act"):
        ActuatorInput(Node(), robot(), lambda: 0)


def test_an_action_is_no_topic_to_record():
    assert robot().command_topics() == {}
    assert robot(type="std_msgs/msg/Float64").command_topics() == {
        "gripper/gripper_cmd": "std_msgs/msg/Float64"
    }


@pytest.fixture
def gate(control_msgs, monkeypatch, tmp_path):
    """A real gate of such a robot, with the server that it speaks to."""
    path, servers = tmp_path / "own.yaml", []
    path.write_text(robot().text)

    def connect(*told):
        servers.append(Server(*told))
        return servers[-1]

    monkeypatch.setattr(gripper_action, "ActionClient", connect)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=["--ros-args", "-p", f"embodiment:={path}"], domain_id=private_domain())
    node = CommandGateNode(Stop())
    yield node, servers[0]
    node.destroy_node()
    rclpy.shutdown()


def test_the_gate_stops_the_gripper_where_it_is_measured_and_tells_what_the_server_said(gate):
    node, server = gate
    node.realtime._output.send(ActionChunk(10**9, 10**8, np.array([[0.08]])))
    server.answer(accepted=False)
    level, line, _ = node._status()
    assert "the goal 0.08 was refused by the server" in line and level != b"\x00"
    server.ready = False
    assert "nobody offers the action /gripper/gripper_cmd" in node.realtime._output.trouble()
    server.ready = True
    for i in range(2):  # two samples that agree
        node.watch.add("arm", Sample(node.get_clock().now().nanoseconds + i, np.array([0.033])))
    node._on_stop(True)
    assert server.positions() == [0.08, 0.033]
    server.answer()
    node._on_stop(False)
    node.realtime._output.send(ActionChunk(10**9, 10**8, np.array([[0.05]])))
    for gripper in node.output._grippers.values():
        gripper._sent_s = float("-inf")  # the pause is over
        gripper._look()
    assert server.positions() == [0.08, 0.033, 0.05]
