"""Following and limiting of chunks, against np.interp and against the limits themselves."""

from __future__ import annotations

import numpy as np
import pytest
from core_cases import MS, PERIOD_NS, changed, robot, sample, tip
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embodied_rl.core.commands import ChunkFollower, CommandLimiter, TrajectoryTrack
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.measured import StateWatch
from embodied_rl.core.policy import ActionChunk

BODY, FREE = robot(), robot(workspace=False)
LOWER, UPPER, SPEED = BODY.limits()
REACH = SPEED * 0.1  # a control period is 0.1 s

FINITE = st.floats(-10, 10, allow_nan=False, width=64)


def bits(values: np.ndarray) -> bytes:
    """Equal only for equal bits: tells -0.0 from 0.0 too."""
    return np.ascontiguousarray(values, dtype=np.float64).tobytes()


def chunks(elements=FINITE):
    return arrays(np.float64, st.tuples(st.integers(1, 6), st.just(3)), elements=elements)


def chunk(stamp_ns: int, values) -> ActionChunk:
    return ActionChunk(stamp_ns, PERIOD_NS, np.array(values, dtype=np.float64))


# TrajectoryTrack


@given(
    gaps=st.lists(st.integers(1, 300 * MS), min_size=1, max_size=8),
    values=arrays(np.float64, (8, 2), elements=FINITE),
    times=st.lists(st.integers(-200 * MS, 3_000 * MS), min_size=1, max_size=20),
)
def test_track_equals_numpy_interp(gaps, values, times):
    knots = np.cumsum(gaps)
    values = values[: len(knots)]
    begin = np.array([0.5, -0.25])
    track = TrajectoryTrack(0, begin)
    track.follow(0, knots, values)
    assert track.end_ns == knots[-1]
    for time in times:
        for axis in range(2):
            wanted = np.interp(time, [0, *knots], [begin[axis], *values[:, axis]])
            assert track.target(time)[axis] == pytest.approx(wanted, abs=1e-12)


@given(gaps=st.lists(st.integers(1, 10**9), min_size=1, max_size=8), data=st.data())
def test_track_is_exact_at_its_knots(gaps, data):
    knots = 17 + np.cumsum(gaps)
    wild = st.floats(allow_nan=False, allow_infinity=False)
    values = data.draw(arrays(np.float64, (len(knots), 2), elements=wild))
    track = TrajectoryTrack(17, np.array([1.0, -0.0]))
    track.follow(17, knots, values)
    assert bits(track.target(17)) == bits(np.array([1.0, -0.0]))
    for time, value in zip(knots, values, strict=True):
        assert bits(track.target(int(time))) == bits(value)
    assert bits(track.target(int(knots[-1]) + 10**12)) == bits(values[-1])


@given(values=arrays(np.float64, (6, 2), elements=FINITE), cut=st.integers(1, 5))
def test_cutting_at_a_knot_changes_no_bit(values, cut):
    knots = PERIOD_NS * np.arange(1, 7)
    whole, recut = (TrajectoryTrack(0, np.zeros(2)) for _ in range(2))
    whole.follow(0, knots, values)
    recut.follow(0, knots, values)
    recut.follow(cut * PERIOD_NS, knots[cut:], values[cut:])
    for time in range(cut * PERIOD_NS, 7 * PERIOD_NS, 7 * MS):
        assert bits(whole.target(time)) == bits(recut.target(time))
        if time > cut * PERIOD_NS:
            assert bits(whole.upcoming(time)) == bits(recut.upcoming(time))


def test_a_new_trajectory_starts_where_the_old_one_is_at_its_stamp():
    track = TrajectoryTrack(0, np.array([0.0]))
    track.follow(0, np.array([100]), np.array([[1.0]]))
    track.follow(50, np.array([150]), np.array([[0.0]]))
    assert track.target(50)[0] == 0.5 and track.target(100)[0] == 0.25
    assert track.target(10)[0] == 0.5  # what lay before is forgotten
    track.follow(400, np.array([500]), np.array([[2.0]]))  # after a pause: from the held value
    assert track.target(450)[0] == 1.0


# ChunkFollower


@given(values=chunks(), start=arrays(np.float64, 3, elements=FINITE), execute=st.integers(1, 6))
def test_a_whole_chunk_equals_one_point_per_tick(values, start, execute):
    """Lockstep depends on it: the simulator in process gets whole chunks, over topics points."""
    whole, points = (ChunkFollower(BODY, 0, start) for _ in range(2))
    whole.follow(chunk(0, values))
    for tick in range(min(execute, len(values))):
        points.follow(chunk(tick * PERIOD_NS, values[tick : tick + 1]))
        for time in range(10 * MS, PERIOD_NS + 1, 10 * MS):
            now = tick * PERIOD_NS + time
            assert bits(points.target(now)) == bits(whole.target(now))


@given(first=chunks(), second=chunks(), start=arrays(np.float64, 3, elements=FINITE))
def test_replanning_mid_chunk_equals_one_point_per_tick(first, second, start):
    """Two chunks, the second one after two ticks, or after the first has run out and was held."""
    whole, points = (ChunkFollower(BODY, 0, start) for _ in range(2))
    plan, begin, held = first, 0, start
    for tick in range(8):
        now = tick * PERIOD_NS
        if tick == 0:
            whole.follow(chunk(0, first))
        if tick == 2:
            plan, begin = second, 2
            whole.follow(chunk(now, second))
        if tick - begin < len(plan):
            held = plan[tick - begin]
        points.follow(chunk(now, held[None]))
        for time in range(10 * MS, PERIOD_NS + 1, 10 * MS):
            # Equal in every bit but the sign of zero, which a held -0.0 loses on its way.
            np.testing.assert_array_equal(points.target(now + time), whole.target(now + time))
        np.testing.assert_array_equal(whole.target(now + PERIOD_NS), held)


def test_trajectories_glide_and_arrays_step():
    follower = ChunkFollower(BODY, 0, np.zeros(3))
    follower.follow(chunk(0, [[1.0, 2.0, 0.4], [2.0, 4.0, 0.8]]))
    np.testing.assert_allclose(follower.target(50 * MS), [0.5, 1.0, 0.4], atol=1e-15)
    np.testing.assert_allclose(follower.target(100 * MS), [1.0, 2.0, 0.4], atol=1e-15)
    np.testing.assert_allclose(follower.target(101 * MS), [1.01, 2.02, 0.8], atol=1e-15)
    np.testing.assert_allclose(follower.target(900 * MS), [2.0, 4.0, 0.8], atol=1e-15)
    assert follower.end_ns == 200 * MS


# CommandLimiter


def limited(body: Embodiment, start, values):
    limiter = CommandLimiter(body)
    limiter.reset(0, start)
    return limiter, *limiter.limit(chunk(0, values))


@given(values=chunks(elements=st.floats(allow_nan=False, allow_infinity=False)), data=st.data())
def test_whatever_is_asked_the_targets_are_within_limits_and_rate(values, data):
    share = data.draw(arrays(np.float64, 3, elements=st.floats(0, 1)))
    start = np.clip(LOWER + share * (UPPER - LOWER), LOWER, UPPER)
    assume(BODY.workspace.contains(tip(start)))
    limiter, out, _ = limited(BODY, start, values)
    assert out.values.shape == values.shape and (out.stamp_ns, out.period_ns) == (0, PERIOD_NS)
    assert np.all(np.isfinite(out.values))
    assert np.all(out.values >= LOWER) and np.all(out.values <= UPPER)
    steps = np.diff(np.vstack([start, out.values]), axis=0)
    assert np.all(np.abs(steps) <= REACH + 1e-12)
    for value in out.values:
        point = tip(value)
        assert np.all(point >= BODY.workspace.lower - 1e-9)
        assert np.all(point <= BODY.workspace.upper + 1e-9)
    for i, time in enumerate(out.times_ns):
        assert bits(limiter.target(int(time))) == bits(out.values[i])


@given(first=chunks(), second=chunks(), late=st.integers(0, 7))
def test_the_rate_holds_across_chunks_too(first, second, late):
    limiter = CommandLimiter(FREE)
    limiter.reset(0, np.zeros(3))
    one = limiter.limit(chunk(0, first))[0]
    two = limiter.limit(chunk(late * PERIOD_NS, second))[0]
    held = np.vstack([np.zeros(3), one.values, *[one.values[-1:]] * 8])
    steps = np.diff(np.vstack([held[late], two.values]), axis=0)
    assert np.all(np.abs(steps) <= REACH + 1e-12)


@given(shares=arrays(np.float64, (6, 3), elements=st.floats(-0.999, 0.999)))
def test_a_sound_chunk_passes_bit_for_bit(shares):
    walk = np.array([0.3, 0.2, 0.4]) + np.cumsum(shares * REACH, axis=0)
    assume(np.all(walk >= LOWER) and np.all(walk <= UPPER))
    _, out, report = limited(FREE, [0.3, 0.2, 0.4], walk)
    assert bits(out.values) == bits(walk) and not report.touched


@given(values=chunks())
def test_limiting_twice_changes_nothing_more(values):
    """The gate re-sends limited chunks point by point, and in-process runs limit them once."""
    start = [1.2, 0.3, 0.4]
    _, once, _ = limited(BODY, start, values)
    _, twice, _ = limited(BODY, start, once.values)
    assert bits(once.values) == bits(twice.values)


def test_the_report_counts_what_was_hit():
    _, out, report = limited(FREE, [0, 0, 0], [[0.1, 0, 0], [9, 0, 0], [0.4, 0, -1]])
    np.testing.assert_allclose(out.values, [[0.1, 0, 0], [0.3, 0, 0], [0.4, 0, 0]], atol=1e-15)
    assert (report.range, report.rate, report.workspace) == (2, 1, 0) and report.touched


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_and_the_old_track_stays(bad):
    limiter = CommandLimiter(FREE)
    limiter.reset(0, np.zeros(3))
    limiter.limit(chunk(0, [[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]))
    before = [bits(limiter.target(t)) for t in range(0, 300 * MS, 10 * MS)]
    with pytest.raises(UserError, match="command: elbow: target 1 is not finite"):
        limiter.limit(chunk(100 * MS, [[0, 0, 0], [0, bad, 0]]))
    assert before == [bits(limiter.target(t)) for t in range(0, 300 * MS, 10 * MS)]


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (1, 2, 3)])
def test_a_wrong_width_is_refused(shape):
    limiter = CommandLimiter(FREE)
    limiter.reset(0, np.zeros(3))
    with pytest.raises(UserError, match=r"expected targets of shape \(T, 3\)"):
        limiter.limit(chunk(0, np.zeros(shape)))


@pytest.mark.parametrize(
    ("start", "said"), [([0, np.nan, 0], "elbow is not finite"), ([0, 0], "expected 3")]
)
def test_a_start_that_makes_no_sense_is_refused(start, said):
    limiter = CommandLimiter(FREE)
    with pytest.raises(UserError, match=said):
        limiter.reset(0, start)
    assert not limiter.started
    with pytest.raises(RuntimeError, match="reset"):
        limiter.limit(chunk(0, [[0, 0, 0]]))


@given(values=chunks())
def test_a_start_outside_the_limits_is_led_back_and_never_jumps(values):
    start = np.array([3.5, -2.9, 1.1])
    _, out, _ = limited(FREE, start, values)
    steps = np.diff(np.vstack([start, out.values]), axis=0)
    assert np.all(np.abs(steps) <= REACH + 1e-12)
    excess = np.maximum(out.values - UPPER, 0) + np.maximum(LOWER - out.values, 0)
    before = np.maximum(start - UPPER, 0) + np.maximum(LOWER - start, 0)
    assert np.all(np.diff(np.vstack([before, excess]), axis=0) <= 1e-12)
    needed = np.maximum(before - REACH * len(values), 0)  # straight back at full speed
    np.testing.assert_allclose(excess[-1], needed, atol=1e-12)


def test_at_the_edge_of_the_workspace_the_rest_of_the_chunk_holds():
    # Straight arm turning towards x: the tip's x is 2 cos(a), and the box ends at 1.8.
    angles = [0.70, 0.60, 0.50, 0.40, 0.60]
    inside = [2 * np.cos(a) <= 1.8 and 2 * np.sin(a) <= 1.5 for a in angles]
    assert inside == [True, True, True, False, True]
    _, out, report = limited(BODY, [0.75, 0, 0], [[a, 0, 0] for a in angles])
    assert out.values[:, 0].tolist() == [0.70, 0.60, 0.50, 0.50, 0.50]
    assert report.workspace == 2


def test_from_outside_the_workspace_only_the_way_back_is_open():
    start = [0.1, 0.0, 0.0]
    assert not BODY.workspace.contains(tip(np.array(start)))
    _, further, report = limited(BODY, start, [[0.0, 0.0, 0.0]])
    assert further.values[0].tolist() == start and report.workspace == 1
    _, along, report = limited(BODY, start, [start])  # staying outside is no way back either
    assert along.values[0].tolist() == start and report.workspace == 1
    _, back, report = limited(BODY, start, [[0.2, 0, 0], [0.35, 0, 0], [0.5, 0, 0]])
    assert back.values[:, 0].tolist() == [0.2, 0.35, 0.5] and not report.touched
    assert BODY.workspace.contains(tip(back.values[-1]))


def test_an_empty_chunk_holds():
    limiter, out, report = limited(FREE, [0.1, 0.2, 0.3], np.zeros((0, 3)))
    assert out.values.shape == (0, 3) and not report.touched
    np.testing.assert_array_equal(limiter.target(10**9), [0.1, 0.2, 0.3])


# StateWatch


def fill(watch: StateWatch, stamp_ns: int, shoulder: float, elbow: float, finger: float) -> None:
    watch.add("arm", sample(stamp_ns, shoulder, elbow))
    watch.add("grip", sample(stamp_ns, finger))


def test_state_watch_gathers_positions_in_action_order():
    watch = StateWatch(BODY)
    assert watch.keys == ["arm", "grip"]
    fill(watch, 80 * MS, 1, 2, 3)
    fill(watch, 100 * MS, 4, 5, 6)
    fill(watch, 120 * MS, 7, 8, 9)
    assert watch.owing(100 * MS) == [] and watch.owing(140 * MS) == ["arm", "grip"]
    assert watch.state(100 * MS).tolist() == [4, 5, 6]
    assert watch.state(130 * MS).tolist() == [7, 8, 9]


def test_state_watch_refuses_old_and_missing_positions():
    watch = StateWatch(BODY)
    watch.add("arm", sample(100 * MS, 1, 2))
    with pytest.raises(UserError, match="measured state: stream 'grip' is missing or too old"):
        watch.state(100 * MS)
    watch.add("grip", sample(100 * MS, 3))
    assert watch.state(200 * MS).tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="stream 'arm'"):
        watch.state(201 * MS)
    fill(watch, 220 * MS, 4, 5, 6)
    watch.reset(300 * MS)
    with pytest.raises(UserError, match="missing"):
        watch.state(300 * MS)


def test_state_watch_reorders_by_name_over_groups():
    body = Embodiment.parse(changed("commands.links.joints", ["elbow", "shoulder"]))
    watch = StateWatch(body)
    fill(watch, 100 * MS, 1, 2, 3)
    assert watch.state(100 * MS).tolist() == [2, 1, 3]


def test_state_watch_names_an_unmeasured_joint():
    body = Embodiment.parse(changed("streams.grip.field", "velocity"))
    with pytest.raises(UserError, match="streams: .*none of finger"):
        StateWatch(body)


def test_state_watch_does_not_grow():
    watch = StateWatch(BODY)
    for i in range(3000):  # a minute; nobody asks for them
        fill(watch, i * 20 * MS, i, i, i)
    assert all(len(b.stamps) <= 102 for b in watch._builder._buffers.values())
    assert watch.state(58_000 * MS).tolist() == [2900, 2900, 2900]
