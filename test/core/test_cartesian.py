"""Poses of a tool as commands: their numbers against scipy, limits, and what measures them."""

from __future__ import annotations

import math
from types import SimpleNamespace as Msg

import numpy as np
import pytest
import yaml
from core_cases import MS, sample
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodied_rl.core.decode_commands import read_targets
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import MessageError, UserError
from embodied_rl.core.gate import CommandGate, GateState
from embodied_rl.core.measured import AgreedState, StateWatch
from embodied_rl.core.policy import ActionChunk

POSE = "geometry_msgs/msg/PoseStamped"
DOWN = [0.6, 0.0, 0.0, 0.8]
PERIOD_NS = 50 * MS
PLACE = {"topic": "tcp", "type": POSE, "field": "position", "rate_hz": 50, "max_age_s": 0.1}
TURN = {**PLACE, "field": "orientation"}


def keys(count=6, **more):
    return {
        "topic": "controller/target_frame",
        "type": POSE,
        "dimensions": ["x", "y", "z", "rx", "ry", "rz"][:count],
        "orientation": DOWN,
        "lower": [0.2, -0.5, 0.1, -1.5, -1.5, -1.5][:count],
        "upper": [0.8, 0.5, 0.6, 1.5, 1.5, 1.5][:count],
        "max_velocity": [0.2, 0.2, 0.2, 1.0, 1.0, 1.0][:count],
        **more,
    }


def arm(tool=None, streams=None, **commands) -> Embodiment:
    data = {
        "name": "servo",
        "control_rate_hz": 20,
        "streams": {"place": PLACE, "turn": TURN} if streams is None else streams,
        "commands": {"tool": keys() if tool is None else tool, **commands},
    }
    return Embodiment.parse(yaml.safe_dump(data, sort_keys=False), "own.yaml")


def message(position, quaternion, frame="base_link"):
    return Msg(
        header=Msg(stamp=Msg(sec=5, nanosec=0), frame_id=frame),
        pose=Msg(
            position=Msg(**dict(zip("xyz", position, strict=True))),
            orientation=Msg(**dict(zip("xyzw", quaternion, strict=True))),
        ),
    )


ARM, FIXED = arm(), arm(keys(3))
TOOL = ARM.commands["tool"].tool
within = st.floats(-1.7, 1.7)


@given(st.tuples(within, within, within))
def test_a_rotation_vector_turns_the_tool_about_the_axes_of_the_frame(vector):
    targets = np.array([0.3, 0.1, 0.2, *vector])
    place, turn = TOOL.pose(targets)
    wanted = Rotation.from_rotvec(vector) * Rotation.from_quat(DOWN)
    assert (Rotation.from_quat(turn).inv() * wanted).magnitude() < 1e-7
    assert TOOL.targets(place, turn) == pytest.approx(targets, abs=1e-9)
    assert TOOL.targets(place, -turn) == pytest.approx(targets, abs=1e-9)  # the same orientation


@given(st.tuples(within, within, within), st.tuples(within, within, within))
def test_the_tool_turns_no_faster_than_its_rotation_vector_changes(one, other):
    """So limits of the velocity of each number are limits of the tool."""
    turns = [Rotation.from_quat(TOOL.pose(np.array([0, 0, 0, *v]))[1]) for v in (one, other)]
    angle = (turns[0].inv() * turns[1]).magnitude()
    assert angle <= np.linalg.norm(np.subtract(one, other)) + 1e-7


def test_its_names_are_its_own_and_others_are_read_in_its_frame():
    assert ARM.action_names == tuple(f"tool_{d}" for d in ("x", "y", "z", "rx", "ry", "rz"))
    assert FIXED.action_names == ("tool_x", "tool_y", "tool_z")
    assert not ARM.velocities.any() and np.all(ARM.following_bounds() == 0.25 * ARM.limits()[2])
    command = FIXED.commands["tool"]
    assert read_targets(message([0.3, 0, 0.2], DOWN), command).tolist() == [0.3, 0, 0.2]
    turned = (Rotation.from_rotvec([0, 0, 0.2]) * Rotation.from_quat(DOWN)).as_quat()
    for bad, said in (
        (message([0.3, 0, 0.2], DOWN, "base"), "frame 'base_link', saw 'base'"),
        (message([0.3, math.nan, 0.2], DOWN), "y: expected a finite number, saw nan"),
        (message([0.3, 0, 0.2], [0, 0, 0, 0]), "expected a unit quaternion"),
        (message([0.3, 0, 0.2], [0, 0, 0, math.nan]), "expected a unit quaternion"),
        (message([0.3, 0, 0.2], turned), "saw one turned by 0.2 rad; declare rx, ry, rz"),
    ):
        with pytest.raises(MessageError, match=f"^controller/target_frame: .*{said}"):
            read_targets(bad, command)
    assert read_targets(message([0.3, 0, 0.2], turned), ARM.commands["tool"])[5] == pytest.approx(
        0.2
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dimensions": ["x", "y"]}, r"dimensions: expected \['x', 'y', 'z'\] or .*, saw \['x', "),
        ({"dimensions": ["x", "y", "z", "rz"]}, "dimensions: expected"),
        ({"orientation": [0, 0, 0, 0]}, "orientation: expected a unit quaternion"),
        ({"orientation": [0, 0, 1]}, "orientation: expected 4 numbers"),
        ({"upper": [0.8, 0.5, 0.6, 1.5, 1.5, 2.9]}, "radius of 3 rad .* saw limits that reach"),
        ({"max_velocity": [0.2, 0.2, 0, 1, 1, 1]}, "max_velocity: expected values above 0"),
        ({"joints": ["a"]}, "joints"),
        ({"measured_by": "camera"}, r"measured_by: expected streams among .* saw camera"),
        ({"measured_by": ["place"]}, "measured_by: expected one stream .* orientation .* saw none"),
        ({"frame": "world"}, "measured_by: expected one stream of a pose in frame 'world'"),
        ({"frame": "world", "measured_by": "place"}, "in frame 'world', saw 'place'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_file(change, said):
    with pytest.raises(UserError, match=f"own.yaml: commands.tool.*{said}"):
        arm(keys(**change))


def test_what_measures_the_tool_is_found_or_named_but_never_guessed():
    cube = {**PLACE, "topic": "cube"}
    with pytest.raises(UserError, match="tool.measured_by: .* saw none"):
        arm(keys(3), {"joints": {**PLACE, "type": "sensor_msgs/msg/JointState", "joints": ["a"]}})
    with pytest.raises(UserError, match=r"of several name it here, saw \['place', 'cube'\]"):
        arm(keys(3), {"place": PLACE, "cube": cube})
    named = arm(keys(3, measured_by="place"), {"place": PLACE, "cube": cube})
    assert StateWatch(named).keys == ["place"]
    second = keys(3, topic="other/target_frame")
    with pytest.raises(UserError, match="other.measured_by: expected a stream that measures no"):
        arm(keys(3), {"place": PLACE}, other=second)
    two = arm(keys(3, measured_by="place"), {"place": PLACE, "cube": cube},
              other={**second, "measured_by": "cube"})  # fmt: skip
    assert two.action_names[::3] == ("tool_x", "other_x")


def test_the_hash_knows_what_the_tool_is_turned_from():
    assert ARM.contract_hash(["place"]) == arm(keys(topic="elsewhere")).contract_hash(["place"])
    other = arm(keys(orientation=[0, 0, 0, 1]))
    assert ARM.contract_hash(["place"]) != other.contract_hash(["place"])


@pytest.mark.parametrize("watched", [StateWatch, AgreedState])
def test_the_gate_begins_at_the_measured_pose_keeps_the_limits_and_holds_there(watched):
    turn = np.array([0.1, -0.2, 0.3])
    measured = (Rotation.from_rotvec(turn) * Rotation.from_quat(DOWN)).as_quat()
    watch = watched(ARM)
    for i in range(3):
        # a driver may send either sign
        watch.add("turn", sample(i * 20 * MS, *(measured * (-1) ** i)))
        watch.add("place", sample(i * 20 * MS, 0.5, 0.0, 0.3))
    here = watch.state(50 * MS)
    assert here == pytest.approx([0.5, 0.0, 0.3, *turn], abs=1e-9)
    gate = CommandGate(ARM)
    gate.start_from_rest(0, here)
    far = ActionChunk(0, PERIOD_NS, np.array([[0.9, -9, 0.3, 1.5, 0, 0.3]] * 200))
    assert gate.accept(far, 0) is not None
    before, speed = here, ARM.limits()[2]
    for tick in range(20):
        now = gate.next_target(tick * PERIOD_NS).values[0]
        assert np.all(np.abs(now - before) <= speed * 0.05 + 1e-9)
        before = now
    assert now[0] == pytest.approx(0.5 + 0.2) and now[1] == pytest.approx(-0.2)
    # stopped while the controller follows 10 cm and more behind
    behind = now - 0.1
    gate.stop(20 * PERIOD_NS, behind)
    assert gate.state is GateState.STOPPED
    assert gate.next_target(20 * PERIOD_NS).values[0] == pytest.approx(behind)
    assert gate.accept(far, 21 * PERIOD_NS) is None


def test_a_tool_that_does_not_follow_is_told_by_name():
    gate = CommandGate(FIXED)
    gate.start_from_rest(0, np.array([0.5, 0.0, 0.3]))
    gate.accept(ActionChunk(0, PERIOD_NS, np.array([[0.8, 0.0, 0.3]] * 30)), 0)
    still = np.array([0.5, 0.0, 0.3])
    assert not gate.following_error(4 * PERIOD_NS, still)
    assert "tool_x does not follow" in gate.following_error(6 * PERIOD_NS, still)


def test_what_is_not_finite_never_gets_out():
    gate = CommandGate(ARM)
    with pytest.raises(UserError, match="tool_z is not finite"):
        gate.start_from_rest(0, np.array([0.5, 0, math.nan, 0, 0, 0]))
    gate.start_from_rest(0, np.array([0.5, 0, 0.3, 0, 0, 0]))
    with pytest.raises(UserError, match="tool_rx: target 0 is not finite"):
        gate.accept(ActionChunk(0, PERIOD_NS, np.array([[0.5, 0, 0.3, math.inf, 0, 0]])), 0)
