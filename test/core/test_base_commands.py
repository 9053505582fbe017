"""Velocity commands: limits, coming to rest, stopping; joints of the same robot stay put."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from base_cases import MS, PERIOD_NS, ROBOT, rover, rover_with_lift
from core_cases import sample
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.commands import ChunkFollower, CommandLimiter
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.gate import CommandGate, GateState
from embodied_rl.core.measured import StateWatch
from embodied_rl.core.policy import ActionChunk

BODY = rover_with_lift()  # linear_x, angular_z, lift (a trajectory), claw (a plain array)
LOWER, UPPER, RATE = BODY.limits()
REACH = RATE * 0.1
MOVING = [0.35, -1.0, 0.5, 0.05]


def chunk(tick: int, *rows) -> ActionChunk:
    return ActionChunk(tick * PERIOD_NS, PERIOD_NS, np.array(rows, dtype=np.float64))


def moving_gate(now_ns: int = 0) -> CommandGate:
    """Told to move at 0.35 m/s and -1 rad/s in the period of tick 0."""
    gate = CommandGate(BODY)
    gate.start(0, np.array(MOVING))
    gate.accept(chunk(0, *[MOVING] * 8), now_ns)
    assert gate.next_target(0).values[0].tolist() == MOVING
    return gate


def targets(gate: CommandGate, *ticks: int) -> np.ndarray:
    return np.vstack([gate.next_target(tick * PERIOD_NS).values for tick in ticks])


REST = [[0.25, -0.5], [0.15, 0], [0.05, 0], [0, 0], [0, 0]]  # 1 m/s^2 and 5 rad/s^2, 0.1 s each


def test_a_chunk_that_runs_out_brings_the_base_to_rest_and_leaves_the_joints():
    gate = CommandGate(BODY)
    gate.start(0, np.array(MOVING))
    gate.accept(chunk(0, MOVING), 0)
    assert targets(gate, 0).tolist() == [MOVING] and gate.moving
    out = targets(gate, 1, 2, 3, 4, 5)
    np.testing.assert_allclose(out[:, :2], REST, atol=1e-15)
    assert (out[:, 2:] == MOVING[2:]).all()
    assert gate.state is GateState.HOLDING and gate.reason == "the chunk has run out"
    assert out[-1, :2].tolist() == [0, 0] and not gate.moving and gate.counts["holds"] == 1


@pytest.mark.parametrize("now_ms", [100, 130, 199])
def test_on_silence_the_base_brakes_from_what_it_was_told(now_ms):
    """Real time: the hold comes between two ticks, the period already told goes on to its end."""
    gate = moving_gate()
    gate.next_target(PERIOD_NS)
    first = gate.hold(now_ms * MS, "no heartbeat")
    assert first.values[0, :2].tolist() == MOVING[:2] and gate.moving
    out = targets(gate, 2, 3, 4, 5, 6)
    np.testing.assert_allclose(out[:, :2], REST, atol=1e-15)
    assert (out[:, 2:] == out[0, 2:]).all() and not gate.moving


def test_a_tick_that_was_not_told_yet_is_told_a_part_of_the_ramp():
    gate = moving_gate()
    gate.hold(150 * MS, "no heartbeat")  # in the period of tick 1, of which nothing was said
    out = targets(gate, 1, 2)
    np.testing.assert_allclose(out[:, 0], [0.30, 0.20], atol=1e-15)


def test_an_emergency_stop_brakes_within_the_limits_and_stays():
    gate = moving_gate()
    gate.next_target(PERIOD_NS)
    out = gate.stop(150 * MS)
    assert out.values[0].tolist() == MOVING and gate.moving  # until the period told is over
    braked = targets(gate, 2, 3, 4, 5, 6)
    np.testing.assert_allclose(braked[:, :2], REST, atol=1e-15)
    assert (braked[:, 2:] == out.values[0, 2:]).all() and not gate.moving
    assert gate.accept(chunk(7, MOVING), 7 * PERIOD_NS) is None
    gate.release()
    assert targets(gate, 8)[0, :2].tolist() == [0, 0]
    accepted = gate.accept(chunk(9, MOVING), 9 * PERIOD_NS)
    np.testing.assert_allclose(accepted.values[0, :2], [0.1, -0.5])  # from rest, within the rate


@pytest.mark.parametrize("says", [5.0, -1e300, 1.9])
def test_on_a_robot_the_first_velocity_is_within_reach_of_rest_whatever_the_odometry_says(says):
    gate = CommandGate(BODY)
    gate.start_from_rest(0, np.array([says, says, 0.5, 0.05]))
    accepted = gate.accept(chunk(0, [2, -1, 0.5, 0.05]), 0)
    np.testing.assert_allclose(accepted.values[0, :2], [0.1, -0.5])


@pytest.mark.parametrize("then", ["tick", "hold", "chunk"])
def test_a_base_that_was_told_nothing_for_long_is_not_set_moving_again(then):
    gate = moving_gate()
    late = 7  # its controller has stopped it meanwhile
    if then == "hold":
        gate.hold(late * PERIOD_NS, "silence")
    if then == "chunk":
        gate.accept(chunk(late, *[MOVING] * 8), late * PERIOD_NS)
    velocity = gate.next_target(late * PERIOD_NS).values[0, :2]
    assert (np.abs(velocity) <= REACH[:2] + 1e-12).all()


def test_a_new_chunk_takes_over_from_the_middle_of_the_ramp():
    gate = moving_gate()
    gate.hold(1 * PERIOD_NS, "silence")
    np.testing.assert_allclose(targets(gate, 1)[0, :2], [0.25, -0.5])
    accepted = gate.accept(chunk(2, [2, -1, 0.5, 0.05]), 2 * PERIOD_NS)
    np.testing.assert_allclose(accepted.values[0, :2], [0.35, -1.0])


def test_a_reset_forgets_and_the_next_episode_starts_from_what_is_measured():
    gate = moving_gate()
    gate.reset()
    assert not gate.moving and not gate.started
    gate.start(2 * PERIOD_NS, np.array([0.02, -0.01, 0.5, 0.0]))
    assert targets(gate, 2)[0].tolist() == [0, 0, 0.5, 0]  # waiting: what rolls is led to rest
    assert gate.state is GateState.WAITING


def test_the_first_command_is_limited_from_the_measured_velocity():
    limiter = CommandLimiter(BODY)
    limiter.reset(0, np.array([1.0, 0.0, 0.5, 0.0]))
    out, report = limiter.limit(chunk(0, [2, 1, 0.5, 0], [2, 1, 0.5, 0], [-9, 9, 0.5, 0]))
    np.testing.assert_allclose(out.values[:, 0], [1.1, 1.2, 1.1])
    np.testing.assert_allclose(out.values[:, 1], [0.5, 1.0, 1.0])
    assert (report.range, report.rate) == (1, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_velocity_that_is_not_finite_is_refused(bad):
    gate = moving_gate()
    with pytest.raises(UserError, match="angular_z: target 0 is not finite"):
        gate.accept(chunk(1, [0, bad, 0, 0]), PERIOD_NS)
    with pytest.raises(UserError, match="measured state: linear_x is not finite"):
        CommandGate(BODY).start(0, np.array([bad, 0, 0, 0]))


def test_velocities_step_with_the_ticks():
    follower = ChunkFollower(BODY, 0, np.zeros(4))
    follower.follow(chunk(0, [0.1, 0.2, 0.4, 0.0], [0.2, 0.4, 0.8, 0.0]))
    for time_ms, speed in ((1, 0.1), (100, 0.1), (101, 0.2), (200, 0.2)):
        assert follower.target(time_ms * MS)[0] == speed


NUMBERS = st.one_of(st.floats(-5, 5), st.sampled_from([np.nan, np.inf, 1e300, 0.0]))
ROWS = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=1, max_size=4)
EVENTS = st.one_of(
    st.tuples(st.just("chunk"), st.integers(-3, 0), ROWS),
    *(st.tuples(st.just(what), st.just(0), st.just([])) for what in ("hold", "stop", "release")),
)


@given(
    events=st.lists(st.tuples(st.integers(0, 130 * MS), EVENTS), max_size=30),
    start=st.floats(-0.5, 2.0),
)
def test_whatever_happens_velocities_are_in_range_and_change_within_the_rate(events, start):
    """As in real time: things happen at any time, each period is told once where it begins."""
    gate = CommandGate(BODY)
    gate.start(0, np.array([start, 0.0, 0.5, 0.0]))
    told, now_ns, next_tick = np.array([start, 0.0]), 0, 0
    for wait_ns, (what, shift, rows) in events:
        now_ns += wait_ns
        while next_tick * PERIOD_NS <= now_ns:
            velocity = gate.next_target(next_tick * PERIOD_NS).values[0, :2]
            assert (velocity >= LOWER[:2]).all() and (velocity <= UPPER[:2]).all()
            assert (np.abs(velocity - told) <= REACH[:2] + 1e-12).all()
            told, next_tick = velocity, next_tick + 1
        if what == "hold":
            assert (gate.hold(now_ns, "silence").values[0, :2] == told).all()
        elif what == "stop":
            assert (gate.stop(now_ns).values[0, :2] == told).all()
        elif what == "release":
            gate.release()
        else:
            stamp_ns = max(now_ns // PERIOD_NS + shift, 0) * PERIOD_NS
            try:
                gate.accept(ActionChunk(stamp_ns, PERIOD_NS, np.array(rows)), now_ns)
            except UserError:
                continue
    gate.release()
    gate.hold(now_ns, "the end")
    last = targets(gate, *range(next_tick, next_tick + 25))
    assert not last[-1, :2].any() and not gate.moving


# StateWatch


def test_the_watch_takes_velocities_from_the_odometry_and_positions_from_the_joints():
    watch = StateWatch(BODY)
    assert watch.keys == ["base_angular_velocity", "base_linear_velocity", "lift"]
    watch.add("base_linear_velocity", sample(100 * MS, 0.4, 0.5, 0.6))
    watch.add("base_angular_velocity", sample(100 * MS, 0.7, 0.8, 0.9))
    with pytest.raises(UserError, match="measured state: stream 'lift' is missing or too old"):
        watch.state(100 * MS)
    watch.add("lift", sample(100 * MS, 0.3, 0.02))
    assert watch.state(100 * MS).tolist() == [0.4, 0.9, 0.3, 0.02]


@pytest.mark.parametrize(
    ("dimensions", "stream", "missing"),
    [
        (["linear_x", "angular_z"], "base_angular_velocity", "angular_z"),
        (["linear_y", "angular_z"], "base_linear_velocity", "linear_y"),
    ],
)
def test_a_base_whose_velocity_nobody_measures_is_refused(dimensions, stream, missing):
    data = yaml.safe_load(ROBOT)
    data["commands"]["base"]["dimensions"] = dimensions
    del data["streams"][stream]
    body = Embodiment.parse(yaml.safe_dump(data), "rover.yaml")
    with pytest.raises(UserError, match=f"rover.yaml: streams: .* saw none of {missing}"):
        StateWatch(body)


def test_a_base_that_moves_sideways_is_measured_along_y():
    watch = StateWatch(rover(dimensions=["linear_y", "angular_z"]))
    watch.add("base_linear_velocity", sample(100 * MS, 0.4, 0.5, 0.6))
    watch.add("base_angular_velocity", sample(100 * MS, 0.7, 0.8, 0.9))
    assert watch.state(100 * MS).tolist() == [0.5, 0.9]
