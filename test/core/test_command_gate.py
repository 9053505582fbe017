"""The gate's state machine: what comes out in every state, and that nothing ever jumps."""

from __future__ import annotations

import numpy as np
import pytest
from core_cases import MS, PERIOD_NS, robot
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.errors import UserError
from embodied_rl.core.gate import CommandGate, GateState
from embodied_rl.core.policy import ActionChunk

BODY = robot(workspace=False)
LOWER, UPPER, SPEED = BODY.limits()
REACH = SPEED * 0.1


def chunk(tick: int, *rows) -> ActionChunk:
    return ActionChunk(tick * PERIOD_NS, PERIOD_NS, np.array(rows, dtype=np.float64))


def ramp(tick: int, count: int, begin: float = 0.0) -> ActionChunk:
    """``count`` targets 0.1 apart in every joint, sound by themselves."""
    return chunk(tick, *[[begin + 0.1 * (i + 1)] * 3 for i in range(count)])


def accept(gate: CommandGate, new: ActionChunk, now_ns: int | None = None) -> ActionChunk | None:
    """At the beginning of its first period, unless another time is given."""
    return gate.accept(new, new.stamp_ns if now_ns is None else now_ns)


def started() -> CommandGate:
    gate = CommandGate(BODY)
    gate.start(0, np.zeros(3))
    return gate


def target(gate: CommandGate, tick: int) -> list[float]:
    out = gate.next_target(tick * PERIOD_NS)
    assert out.stamp_ns == tick * PERIOD_NS and out.period_ns == PERIOD_NS
    assert out.values.shape == (1, 3)
    return out.values[0].round(9).tolist()


def test_before_the_first_command_it_waits_and_stays_where_the_robot_is():
    gate = CommandGate(BODY)
    assert gate.state is GateState.WAITING and not gate.started and gate.chunk_stamp_ns == 0
    with pytest.raises(RuntimeError):
        gate.next_target(0)
    gate.start(0, np.array([0.1, 0.2, 0.3]))
    assert gate.started and target(gate, 0) == [0.1, 0.2, 0.3]
    assert gate.state is GateState.WAITING and gate.ends_before(0)


def test_it_follows_a_chunk_target_by_target_then_holds_the_last():
    gate = started()
    accept(gate, ramp(1, 3))
    assert gate.state is GateState.FOLLOWING and gate.chunk_stamp_ns == PERIOD_NS
    assert [target(gate, t) for t in (1, 2, 3)] == [[0.1] * 3, [0.2] * 3, [0.3] * 3]
    assert not gate.ends_before(4 * PERIOD_NS - 1) and gate.ends_before(4 * PERIOD_NS)
    assert target(gate, 4) == [0.3] * 3
    assert gate.state is GateState.HOLDING and gate.reason == "the chunk has run out"
    assert target(gate, 5) == [0.3] * 3
    assert gate.counts["holds"] == 1 and gate.counts["chunks"] == 1


def test_a_new_chunk_replaces_the_old_one_and_follows_after_a_hold():
    gate = started()
    accept(gate, ramp(0, 8))
    assert target(gate, 0) == [0.1] * 3
    accept(gate, chunk(1, [0.15] * 3))
    assert target(gate, 1) == [0.15] * 3
    assert target(gate, 2) == [0.15] * 3 and gate.state is GateState.HOLDING
    accept(gate, ramp(3, 2, begin=0.15))
    assert target(gate, 3) == [0.25] * 3 and gate.state is GateState.FOLLOWING and not gate.reason


def test_what_it_accepts_is_limited_from_where_the_robot_is():
    gate = started()
    out = accept(gate, chunk(0, [9, 0.1, 0.1], [9, 0.1, 0.1]))
    np.testing.assert_allclose(out.values[:, 0], [REACH[0], 2 * REACH[0]])
    assert gate.counts["range limit"] == 2 and gate.counts["rate limit"] == 2
    assert gate.counts["workspace limit"] == 0


def test_silence_holds_where_the_robot_was_last_sent():
    gate = started()
    accept(gate, ramp(0, 8))
    out = gate.hold(150 * MS, "no heartbeat")
    # The arm is between two targets; the finger, which gets one a period, was told none so far.
    np.testing.assert_allclose(out.values, [[0.15, 0.15, 0.0]])
    assert out.stamp_ns == PERIOD_NS  # on the grid of control ticks
    assert (gate.state, gate.reason) == (GateState.HOLDING, "no heartbeat")
    assert target(gate, 5) == [0.15, 0.15, 0.0]
    gate.hold(600 * MS, "still none")
    assert gate.counts["holds"] == 1 and gate.reason == "still none"


def test_a_chunk_that_is_not_newer_is_refused():
    gate = started()
    accept(gate, ramp(2, 4))
    for tick in (1, 2):  # nor another one of the same tick: at most one a control period
        with pytest.raises(UserError, match=f"newer than 200000000 ns, saw {tick}00000000 ns"):
            accept(gate, chunk(tick, [0.9] * 3))
    assert target(gate, 2) == [0.1] * 3 and gate.counts["refused"] == 2


def test_a_chunk_with_nan_is_refused_and_the_old_one_goes_on():
    gate = started()
    accept(gate, ramp(0, 4))
    with pytest.raises(UserError, match="not finite"):
        accept(gate, chunk(1, [0, np.nan, 0]))
    assert gate.state is GateState.FOLLOWING and gate.counts["refused"] == 1
    assert target(gate, 1) == [0.2] * 3


def test_a_chunk_from_before_a_hold_goes_on_from_the_held_target():
    """It comes late: the robot has stood still meanwhile and must not jump into its middle."""
    gate = started()
    accept(gate, ramp(0, 1))
    assert target(gate, 0) == [0.1] * 3
    assert target(gate, 5) == [0.1] * 3 and gate.state is GateState.HOLDING
    late = chunk(1, *[[0.2 + 0.15 * i] * 3 for i in range(8)])
    out = accept(gate, late, now_ns=575 * MS)
    # Tick 5 was answered with a stay until 600 ms, and a quarter of its period is left.
    assert out.stamp_ns == 5 * PERIOD_NS and len(out.values) == 4
    np.testing.assert_allclose(out.values[0], 0.1 + REACH / 4 * [1, 1, 0])
    assert target(gate, 6) == out.values[1].round(9).tolist()
    gate.hold(700 * MS, "silence")
    with pytest.raises(UserError, match="after 710000000 ns.* saw the last one at 600000000 ns"):
        accept(gate, ramp(1, 5), now_ns=710 * MS)
    assert gate.state is GateState.HOLDING and gate.counts["refused"] == 1


def test_a_late_chunk_goes_on_from_the_target_that_was_given_last():
    gate = started()
    accept(gate, ramp(0, 8))
    assert [target(gate, t)[0] for t in (0, 1, 2, 3)] == [0.1, 0.2, 0.3, 0.4]
    late = chunk(1, *[[-0.2 * (i + 1)] * 3 for i in range(6)])
    out = accept(gate, late, now_ns=350 * MS)
    assert out.stamp_ns == 3 * PERIOD_NS
    np.testing.assert_allclose(out.values[0], [0.35 - REACH[0] / 2, 0.35 - REACH[1] / 2, 0.4])
    np.testing.assert_allclose(np.array(target(gate, 4)), out.values[0] - REACH)


def test_a_chunk_of_the_period_that_was_just_answered_is_not_cut():
    """Realtime: the trajectory of a whole chunk goes out as soon as it comes."""
    gate = started()
    accept(gate, ramp(0, 8))
    target(gate, 2)
    assert accept(gate, ramp(2, 3, begin=0.2)).stamp_ns == 2 * PERIOD_NS
    gate.hold(350 * MS, "silence")
    out = accept(gate, ramp(3, 3, begin=0.3))
    assert out.stamp_ns == 3 * PERIOD_NS and len(out.values) == 3


def test_emergency_stop_holds_refuses_and_is_released():
    gate = started()
    accept(gate, ramp(0, 8))
    assert [target(gate, t)[0] for t in (0, 1)] == [0.1, 0.2]
    out = gate.stop(200 * MS)
    np.testing.assert_allclose(out.values, [[0.2] * 3])
    assert gate.state is GateState.STOPPED and gate.reason == "emergency stop"
    assert accept(gate, ramp(2, 8)) is None and gate.counts["refused while stopped"] == 1
    assert target(gate, 3) == [0.2] * 3
    gate.hold(400 * MS, "silence")
    gate.stop(450 * MS)
    assert gate.state is GateState.STOPPED and gate.reason == "emergency stop"
    assert gate.counts["emergency stops"] == 1 and gate.counts["holds"] == 0
    gate.release()
    assert gate.state is GateState.HOLDING and "released" in gate.reason
    assert target(gate, 5) == [0.2] * 3  # nothing moves before the next chunk
    accept(gate, ramp(6, 2, begin=0.2))
    assert target(gate, 6) == [0.3] * 3
    gate.release()
    assert gate.state is GateState.FOLLOWING  # without a stop there is nothing to release


def test_a_reset_forgets_the_chunk_but_keeps_an_emergency_stop():
    gate = started()
    accept(gate, ramp(5, 3))
    gate.reset()
    assert gate.state is GateState.WAITING and not gate.started and gate.chunk_stamp_ns == 0
    gate.start(0, np.zeros(3))
    accept(gate, ramp(1, 3))  # older than the chunk of the episode before, and welcome
    gate.stop(200 * MS)
    gate.reset()
    assert gate.state is GateState.STOPPED and gate.reason == "emergency stop"
    gate.start(300 * MS, np.full(3, 0.5))
    assert accept(gate, ramp(4, 2)) is None and target(gate, 4) == [0.5] * 3


def test_a_stop_before_the_robot_is_known_has_nothing_to_send():
    gate = CommandGate(BODY)
    assert gate.stop(0) is None and gate.state is GateState.STOPPED
    gate.start(0, np.full(3, 0.25))
    assert target(gate, 1) == [0.25] * 3 and gate.state is GateState.STOPPED


def test_what_a_plan_can_not_be_is_refused():
    gate = started()
    with pytest.raises(UserError, match="at most 2 control periods ahead of the clock .0 ns."):
        gate.accept(chunk(3, [0.1] * 3), 0)
    with pytest.raises(UserError, match="at most 1024 targets, saw 1025"):
        gate.accept(chunk(0, *[[0.1] * 3] * 1025), 0)
    assert gate.accept(chunk(2, [0.1] * 3), 0) is not None and gate.counts["refused"] == 2


# What the robot itself says


def test_after_a_hold_the_arm_goes_on_from_where_it_is_and_the_gripper_from_what_it_presses_on():
    """Led by hand while it was held; the finger is stopped by what it holds."""
    gate = started()
    accept(gate, chunk(0, [0.1, 0.1, 0.4]))
    target(gate, 0)
    gate.stop(100 * MS)
    gate.release()
    out = gate.accept(chunk(5, [3, 3, 0.8]), 500 * MS, measured=np.array([0.9, -0.7, 0.2]))
    np.testing.assert_allclose(out.values[0], [0.9 + REACH[0], -0.7 + REACH[1], 0.4 + REACH[2]])


def test_while_it_follows_the_measured_joints_do_not_make_it_jump():
    gate = started()
    accept(gate, ramp(0, 8))
    target(gate, 0)
    out = gate.accept(ramp(1, 3, begin=0.1), 100 * MS, measured=np.array([0.05, 0.02, 0.0]))
    np.testing.assert_allclose(out.values[0], [0.2] * 3)


@pytest.mark.parametrize("how", ["hold", "stop"])
def test_a_robot_that_is_elsewhere_is_held_there(how):
    gate = started()
    accept(gate, ramp(0, 8))
    near, far = np.array([0.16, 0.13, 0.0]), np.array([0.6, 0.15, 0.0])

    def hold(measured: np.ndarray) -> ActionChunk:
        if how == "stop":
            return gate.stop(150 * MS, measured)
        return gate.hold(150 * MS, "silence", measured)

    np.testing.assert_allclose(hold(near).values, [[0.15, 0.15, 0.0]])  # its servo's own error
    assert gate.elsewhere(150 * MS, far) and not gate.elsewhere(150 * MS, near)
    np.testing.assert_allclose(hold(far).values, [[0.6, 0.15, 0.0]])


def test_a_joint_that_does_not_follow_is_named_and_a_gripper_may_press():
    gate = started()
    assert gate.following_error(0, np.full(3, 9.0)) == ""  # nothing is followed yet
    accept(gate, ramp(0, 8))
    assert gate.following_error(400 * MS, np.array([0.0, 0.0, 0.0])) == ""  # 0.4 of 0.5 and 0.75
    assert gate.following_error(700 * MS, np.array([0.4, -0.1, 0.0])).startswith("elbow does not")
    assert "shoulder does not follow" in gate.following_error(600 * MS, np.zeros(3))


def test_a_clock_that_leaps_leaves_the_robot_where_it_was_last_sent():
    for leap_ns in (-10_000 * MS, 5_000 * MS):
        gate = started()
        gate.start(20_000 * MS, np.zeros(3))
        gate.accept(ramp(200, 8), 20_000 * MS)
        before_ns = 20_350 * MS
        gate.set_clock(before_ns, before_ns + leap_ns)
        out = gate.stop(before_ns + leap_ns + 30 * MS)
        np.testing.assert_allclose(out.values[0, :2], [0.35, 0.35])
        assert gate.ends_before(0)


def test_only_what_is_due_soon_is_sent_ahead():
    gate = started()
    accept(gate, ramp(0, 8))
    ahead = gate.ahead(130 * MS, 200 * MS)
    assert ahead.times_ns.tolist() == [200 * MS, 300 * MS]
    np.testing.assert_allclose(ahead.values[:, 0], [0.2, 0.3])
    late = gate.ahead(170 * MS, 200 * MS)  # the one that is due in 30 ms is left out
    assert late.times_ns.tolist() == [300 * MS]
    lagging = gate.ahead(130 * MS, 200 * MS, np.array([-0.1, 0.1, 0.0]), 120 * MS)
    np.testing.assert_allclose(lagging.values[:, 0], [-0.1 + 2 * 0.08, -0.1 + 2 * 0.18])
    np.testing.assert_allclose(lagging.values[:, 1], [0.2, 0.3])
    np.testing.assert_allclose(lagging.values[:, 2], [0.2, 0.3])  # a finger may press
    assert len(gate.ahead(130 * MS, 1).values) == 1  # one at least
    assert gate.ahead(800 * MS, 200 * MS) is None


NUMBERS = st.one_of(
    st.floats(-5, 5), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0])
)
EVENTS = st.one_of(
    st.tuples(
        st.just("chunk"),
        st.integers(-4, 0),
        st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=4),
    ),
    st.tuples(st.just("hold"), st.just(0), st.just([])),
    st.tuples(st.just("stop"), st.just(0), st.just([])),
    st.tuples(st.just("release"), st.just(0), st.just([])),
    st.tuples(st.just("tick"), st.just(0), st.just([])),
)


@given(events=st.lists(EVENTS, max_size=40))
def test_nothing_wild_ever_comes_out(events):
    """Finite, within the limits, and never further than one period's reach from the last target.

    As in lockstep: chunks of any age come in between the ticks, each tick is answered once.
    """
    gate, tick, last = started(), 0, np.zeros(3)
    for kind, shift, rows in events:
        if kind == "chunk" and tick + shift >= 0:
            try:
                gate.accept(chunk(tick + shift, *rows), tick * PERIOD_NS)
            except UserError:
                assert not np.all(np.isfinite(rows)) or shift < 0
        elif kind == "hold":
            gate.hold(tick * PERIOD_NS, "test")
        elif kind == "stop":
            gate.stop(tick * PERIOD_NS)
        elif kind == "release":
            gate.release()
        stopped = gate.state is GateState.STOPPED
        out = gate.next_target(tick * PERIOD_NS)
        value = out.values[0]
        assert out.values.shape == (1, 3) and np.all(np.isfinite(value))
        assert np.all(value >= LOWER) and np.all(value <= UPPER)
        if stopped:
            np.testing.assert_array_equal(value, last)
        assert np.all(np.abs(value - last) <= REACH + 1e-9), (gate.state, value, last)
        last, tick = value, tick + 1


class Motors:
    """What a robot makes of the messages: ``(n,)`` targets of the arm and the finger over time.

    Written after the controllers' own rules, without any code of the gate: the arm goes in straight
    lines from where it is at the arrival, through the points that are still to come, and rests at
    the last; the finger has the last target that it was told.
    """

    def __init__(self, start: np.ndarray):
        self._arm = (np.array([0.0]), start[:2][None])  # times (T,), positions (T, 2)
        self.finger = start[2]
        self.told_ns = -PERIOD_NS

    def arm(self, time_ns: int) -> np.ndarray:
        times, positions = self._arm
        return np.array([np.interp(time_ns, times, positions[:, j]) for j in range(2)])

    def trajectory(self, new: ActionChunk, now_ns: int) -> None:
        coming = new.times_ns > now_ns
        assert coming.any(), "all points have passed"
        self._arm = (
            np.concatenate([[now_ns], new.times_ns[coming]]).astype(float),
            np.concatenate([self.arm(now_ns)[None], new.values[coming, :2]]),
        )

    def array(self, new: ActionChunk, now_ns: int) -> None:
        """Its steps may be as wide as the time between them allows, on the grid of the ticks."""
        tick_ns = now_ns // PERIOD_NS * PERIOD_NS
        step = abs(new.values[0, 2] - self.finger)
        assert step <= SPEED[2] * (tick_ns - self.told_ns) / 1e9 + 1e-9
        self.finger = new.values[0, 2]
        if step:
            self.told_ns = tick_ns


MOMENTS = st.lists(
    st.tuples(
        st.integers(0, 150 * MS),  # since the moment before
        st.one_of(
            st.tuples(
                st.integers(-3, 1),  # control ticks from the newest one
                st.lists(
                    st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=5
                ),
            ),
            st.sampled_from(["timer", "timer", "hold", "stop", "release"]),
        ),
    ),
    max_size=30,
)


@given(moments=MOMENTS)
def test_in_real_time_the_robot_never_moves_faster_than_its_limit(moments):
    """Whatever chunks come whenever: sent on as soon as they come, to motors that obey at once."""
    gate, motors, now_ns, answered_ns = started(), Motors(np.zeros(3)), 0, -1

    def answer() -> None:
        """Tell the finger the target of the control period, as the timer of the node does."""
        nonlocal answered_ns
        tick_ns = now_ns // PERIOD_NS * PERIOD_NS
        following = gate.state is GateState.FOLLOWING and not gate.ends_before(tick_ns)
        if following and tick_ns > answered_ns:
            answered_ns = tick_ns
            motors.array(gate.next_target(tick_ns), now_ns)

    for wait_ns, what in moments:
        before, before_ns = motors.arm(now_ns), now_ns
        for step_ns in range(min(5 * MS, wait_ns), wait_ns + 1, 5 * MS):
            moved = motors.arm(before_ns + step_ns) - motors.arm(before_ns + step_ns - 5 * MS)
            assert np.all(np.abs(moved) <= SPEED[:2] * 0.005 + 1e-9)
        now_ns += wait_ns
        moved = np.abs(motors.arm(now_ns) - before)
        assert np.all(moved <= SPEED[:2] * wait_ns / 1e9 + 1e-9), (moved, wait_ns)
        before = motors.arm(now_ns)
        out = None
        if what == "timer":
            answer()
        elif what == "hold":
            out = gate.hold(now_ns, "test")
        elif what == "stop":
            out = gate.stop(now_ns)
        elif what == "release":
            gate.release()
        else:
            shift, rows = what
            stamp_ns = max(now_ns // PERIOD_NS + shift, 0) * PERIOD_NS
            try:
                new = gate.accept(ActionChunk(stamp_ns, PERIOD_NS, np.array(rows)), now_ns)
            except UserError as error:
                assert shift < 1 or "newer than" in str(error)
                continue
            if new is not None:
                motors.trajectory(new, now_ns)
                answer()
        if out is not None:
            motors.trajectory(out, now_ns)
            where = [*motors.arm(now_ns), motors.finger]
            np.testing.assert_allclose(out.values[0], where, atol=1e-12)
        np.testing.assert_array_equal(motors.arm(now_ns), before)
        assert np.all(motors.arm(now_ns) >= LOWER[:2]) and np.all(motors.arm(now_ns) <= UPPER[:2])
        assert LOWER[2] <= motors.finger <= UPPER[2]
