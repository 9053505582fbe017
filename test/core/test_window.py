"""Rows and windows against brute force over the full list of samples."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from core_cases import MS, PERIOD_NS, robot, robot_data, sample
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.window import (
    Arrival,
    History,
    Observation,
    RowBuilder,
    Sample,
    asof,
    first_tick,
    history_indices,
    missing_value,
    ticks_between,
)

BODY = robot()
# arm: 50 Hz, at most 100 ms old; thing: 20 Hz, 200 ms; labels: 10 Hz, 300 ms, whole numbers
KEYS = ("arm", "thing", "labels")
STAMPS = st.integers(0, 900 * MS)


def value_of(key: str, number: int) -> np.ndarray:
    """A value that says which sample it is."""
    stream = BODY.streams[key]
    return np.full(stream.shape, number, dtype=stream.dtype)


def brute_force(samples: list[Sample], tick_ns: int, max_age_ns: int) -> Sample | None:
    """Newest sample not after the tick, the first one given among equals; None if too old."""
    best = None
    for one in samples:
        if one.stamp_ns <= tick_ns and (best is None or one.stamp_ns > best.stamp_ns):
            best = one
    return best if best is not None and tick_ns - best.stamp_ns <= max_age_ns else None


def check_row(row: Observation, given_samples: dict[str, list[Sample]]) -> None:
    for key in KEYS:
        stream = BODY.streams[key]
        wanted = brute_force(given_samples[key], row.stamp_ns, stream.max_age_ns)
        assert row.valid[key] is (wanted is not None)
        assert row.values[key].shape == stream.shape
        assert row.values[key].dtype == np.dtype(stream.dtype)
        if wanted is not None:
            np.testing.assert_array_equal(row.values[key], wanted.value)
        elif stream.dtype == "float64":
            assert np.all(np.isnan(row.values[key]))
        else:
            assert np.all(row.values[key] == 0)
    assert row.missing == [key for key in KEYS if not row.valid[key]]


@given(
    stamps=st.lists(st.tuples(st.sampled_from(KEYS), STAMPS), max_size=60),
    repeats=st.lists(st.integers(0, 59), max_size=10),
)
def test_all_samples_first_then_all_rows(stamps, repeats):
    """Any order of arrival, with repeats, gives the rows of brute force."""
    stamps = stamps + [stamps[i] for i in repeats if i < len(stamps)]
    builder = RowBuilder(BODY, KEYS)
    fed: dict[str, list[Sample]] = {key: [] for key in KEYS}
    for number, (key, stamp) in enumerate(stamps):
        one = Sample(stamp, value_of(key, number + 1))
        arrival = builder.add(key, one)
        known = [s.stamp_ns for s in fed[key]]
        if stamp in known:
            assert arrival is Arrival.DUPLICATE
        elif known and stamp < max(known):
            assert arrival is Arrival.DISORDERED
        else:
            assert arrival is Arrival.OK
        fed[key].append(one)
    for tick in range(0, 1200 * MS, PERIOD_NS):
        check_row(builder.row(tick), fed)
    assert sum(builder.counts.values()) == len(stamps)


@given(
    steps=st.lists(
        st.one_of(st.just(None), st.tuples(st.sampled_from(KEYS), STAMPS)), min_size=5, max_size=80
    )
)
def test_rows_between_samples_use_what_has_arrived(steps):
    """Rows built while samples still come: late ones count in the rows after, never before."""
    builder, tick, built = RowBuilder(BODY, KEYS), 0, -1
    fed: dict[str, list[Sample]] = {key: [] for key in KEYS}
    for number, step in enumerate(steps):
        if step is None:
            check_row(builder.row(tick), fed)
            built, tick = tick, tick + PERIOD_NS
            continue
        key, stamp = step
        one = Sample(stamp, value_of(key, number + 1))
        arrival = builder.add(key, one)
        if stamp <= built:
            assert arrival in (Arrival.LATE, Arrival.DUPLICATE)
        else:
            assert arrival in (Arrival.OK, Arrival.DISORDERED, Arrival.DUPLICATE)
        fed[key].append(one)
    check_row(builder.row(tick), fed)


def test_exact_age_limit_and_exact_tick():
    builder = RowBuilder(BODY, ["arm"])
    builder.add("arm", sample(100 * MS, 1, 1))
    assert builder.row(100 * MS).valid["arm"]  # stamped at the tick itself
    assert builder.row(200 * MS).valid["arm"]  # 100 ms old: just young enough
    assert not RowBuilder(BODY, ["arm"]).row(0).valid["arm"]
    builder.add("arm", sample(300 * MS - 1, 2, 2))
    builder.add("arm", sample(300 * MS + 1, 3, 3))
    np.testing.assert_array_equal(builder.row(300 * MS).values["arm"], [2, 2])
    assert not builder.row(400 * MS + 2).valid["arm"]  # one nanosecond too old


@given(
    stamps=st.lists(st.integers(0, 200), unique=True, max_size=30).map(sorted),
    ticks=st.lists(st.integers(0, 250), max_size=20),
    age=st.integers(0, 60),
)
def test_asof_of_arrays(stamps, ticks, age):
    index, valid = asof(np.array(stamps, dtype=np.int64), np.array(ticks, dtype=np.int64), age)
    assert len(index) == len(valid) == len(ticks)
    for tick, place, found in zip(ticks, index, valid, strict=True):
        fitting = [i for i, s in enumerate(stamps) if s <= tick <= s + age]
        assert bool(found) == bool(fitting)
        if fitting:
            assert place == fitting[-1]


# What becomes of odd samples


def test_before_start_is_dropped():
    builder = RowBuilder(BODY, ["arm"])
    builder.add("arm", sample(80 * MS, 1, 1))
    builder.add("arm", sample(120 * MS, 2, 2))
    builder.reset(100 * MS)
    assert builder.add("arm", sample(99 * MS, 3, 3)) is Arrival.BEFORE_START
    row = builder.row(100 * MS)
    assert not row.valid["arm"]  # 80 ms belongs to the episode before, 99 ms was refused
    np.testing.assert_array_equal(builder.row(200 * MS).values["arm"], [2, 2])
    assert builder.counts[Arrival.BEFORE_START] == 1


def test_the_first_of_two_samples_of_one_stamp_stays():
    builder = RowBuilder(BODY, ["arm"])
    assert builder.add("arm", sample(50 * MS, 1, 1)) is Arrival.OK
    assert builder.add("arm", sample(50 * MS, 2, 2)) is Arrival.DUPLICATE
    np.testing.assert_array_equal(builder.row(100 * MS).values["arm"], [1, 1])


def test_late_is_told_from_disordered():
    builder = RowBuilder(BODY, ["arm", "thing"])
    builder.add("arm", sample(60 * MS, 1, 1))
    assert builder.add("arm", sample(40 * MS, 0, 0)) is Arrival.DISORDERED
    builder.row(100 * MS)
    assert builder.add("arm", sample(100 * MS, 2, 2)) is Arrival.LATE
    assert builder.add("thing", sample(90 * MS, 2, 2, 2)) is Arrival.LATE
    assert builder.add("arm", sample(101 * MS, 3, 3)) is Arrival.OK
    assert builder.counts == {
        Arrival.OK: 2,
        Arrival.DISORDERED: 1,
        Arrival.LATE: 2,
    }


def test_a_clock_set_back_begins_anew():
    builder = RowBuilder(BODY, ["arm", "thing"])
    builder.reset(5_000 * MS)
    builder.add("arm", sample(6_000 * MS, 1, 1))
    builder.add("thing", sample(6_000 * MS, 1, 1, 1))
    assert builder.add("arm", sample(5_000 * MS, 2, 2)) is Arrival.DISORDERED  # exactly 1 s
    assert builder.add("arm", sample(4_960 * MS, 3, 3)) is Arrival.STRAY
    assert builder.add("arm", sample(4_980 * MS, 4, 4)) is Arrival.STRAY
    assert builder.add("arm", sample(4_999 * MS, 5, 5)) is Arrival.CLOCK_JUMP
    assert builder.start_ns == 4_960 * MS
    row = builder.row(5_000 * MS)
    np.testing.assert_array_equal(row.values["arm"], [5, 5])
    assert row.missing == ["thing"]  # samples of the old clock are gone in every stream
    assert builder.add("thing", sample(5_050 * MS, 4, 4, 4)) is Arrival.OK
    assert not builder.row(6_100 * MS).valid["arm"]


def test_a_clock_set_back_is_noticed_before_the_first_sample_of_an_episode():
    builder = RowBuilder(BODY, ["arm"])
    builder.add("arm", sample(100_000 * MS, 1, 1))
    builder.reset(100_010 * MS)
    for stamp, arrival in ((0, Arrival.STRAY), (20, Arrival.STRAY), (40, Arrival.CLOCK_JUMP)):
        assert builder.add("arm", sample(stamp * MS, stamp, 2)) is arrival
    np.testing.assert_array_equal(builder.row(20 * MS).values["arm"], [20, 2])


def test_a_stray_packet_costs_nothing_but_itself():
    builder, steady = RowBuilder(BODY, KEYS), RowBuilder(BODY, KEYS)
    for number in range(200):
        stamp = 10**12 + number * 20 * MS
        for one in (builder, steady):
            one.add("arm", Sample(stamp, value_of("arm", number)))
        for late_ns in (1_970, 2_000 * MS, 10**12 - 1):  # twice in a row, then a sound one
            if number % 3 == 0 and number:
                old = Sample(max(stamp - late_ns, 1), value_of("arm", 1))
                dropped = builder.add("arm", old)
                assert dropped in (Arrival.STRAY, Arrival.DISORDERED, Arrival.LATE)
                assert dropped is Arrival.STRAY or late_ns < 2_000 * MS
        if number % 5 == 0:
            one, other = builder.row(stamp), steady.row(stamp)
            assert one.valid == other.valid
            np.testing.assert_array_equal(one.values["arm"], other.values["arm"])
    assert builder.counts[Arrival.CLOCK_JUMP] == 0


def test_a_caller_with_a_clock_believes_no_stamp():
    builder = RowBuilder(BODY, ["arm", "thing"], trust_stamps=False)
    builder.add("arm", sample(9_000 * MS, 1, 1))
    builder.add("thing", sample(9_000 * MS, 1, 1, 1))
    for number in range(10):
        assert builder.add("arm", sample((100 + number) * MS, 2, number)) is Arrival.STRAY
    assert builder.row(9_000 * MS).valid == {"arm": True, "thing": True}
    builder.set_back(105 * MS)
    row = builder.row(200 * MS)
    np.testing.assert_array_equal(row.values["arm"], [2, 9])  # it came from the new run
    assert row.missing == ["thing"]


def late_robot(latency_s: float) -> Embodiment:
    data = robot_data()
    data["streams"]["thing"] |= {"latency_s": latency_s, "max_age_s": 0.5}
    return Embodiment.parse(yaml.safe_dump(data), "late.yaml")


@given(
    stamps=st.lists(STAMPS, max_size=30, unique=True),
    latency=st.integers(0, 300),
    ticks=st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True).map(sorted),
)
def test_a_row_uses_what_is_available_after_the_declared_latency(stamps, latency, ticks):
    builder = RowBuilder(late_robot(latency / 1e3), ["thing"])
    fed = {stamp: number for number, stamp in enumerate(stamps)}
    for stamp, number in fed.items():
        builder.add("thing", Sample(stamp, value_of("thing", number)))
    for tick in ticks:
        now = tick * PERIOD_NS
        usable = [s for s in stamps if s + latency * MS <= now and now - s <= 500 * MS]
        row = builder.row(now)
        assert row.valid["thing"] == bool(usable)
        if usable:
            expected = value_of("thing", fed[max(usable)])
            np.testing.assert_array_equal(row.values["thing"], expected)


@given(
    latency=st.integers(0, 20).map(lambda n: 10 * n),
    lateness=st.lists(st.integers(0, 10), min_size=60, max_size=60),
)
def test_rows_built_as_samples_come_are_those_of_hindsight(latency, lateness):
    """Uneven stamps, arrivals up to the declared latency late: a row built as soon as nothing is
    owed is the row that all samples together give."""
    body = late_robot(latency / 1e3)
    jitter = 20 * MS
    live = RowBuilder(body, ["thing"], jitter=lambda stream: jitter)
    stamps = [i * 50 * MS + (i * 7919 % 20) * MS for i in range(60)]
    events = sorted((s + late * latency * MS // 10, s) for s, late in zip(stamps, lateness))
    values = {stamp: value_of("thing", number) for number, stamp in enumerate(stamps)}
    whole, tick, rows = RowBuilder(body, ["thing"]), PERIOD_NS, {}
    for come_ns, stamp in events:
        while tick + PERIOD_NS // 2 < come_ns:  # it has waited long enough
            rows[tick] = live.row(tick)
            tick += PERIOD_NS
        live.add("thing", Sample(stamp, values[stamp]))
        while live.complete(tick) and tick <= come_ns:
            rows[tick] = live.row(tick)
            tick += PERIOD_NS
    for stamp in stamps:
        whole.add("thing", Sample(stamp, values[stamp]))
    for now, row in rows.items():
        expected = whole.row(now)
        assert row.valid == expected.valid
        np.testing.assert_array_equal(row.values["thing"], expected.values["thing"])


def test_the_time_until_which_nothing_is_owed():
    builder = RowBuilder(late_robot(0.03), ["arm", "thing"], jitter=lambda stream: 5 * MS)
    assert builder.whole_until_ns() is None
    builder.add("arm", sample(100 * MS, 0, 0))
    assert builder.whole_until_ns() is None
    builder.add("thing", sample(60 * MS, 0, 0, 0))
    last = builder.whole_until_ns()
    assert last == min(100 + 15, 60 + 30 + 45) * MS - 1
    assert builder.complete(last) and builder.owing(last + 1) == ["arm"]


def test_unknown_streams_are_refused_by_name():
    with pytest.raises(UserError, match="no stream 'leg'"):
        RowBuilder(BODY, ["arm", "leg"])


def held(builder: RowBuilder, key: str) -> int:
    return len(builder._buffers[key].stamps)


def test_buffers_keep_only_what_a_coming_row_can_need():
    builder = RowBuilder(BODY, KEYS)
    for tick in range(0, 60_000 * MS, PERIOD_NS):
        for key in ("arm", "thing"):  # labels never come
            for stamp in range(tick, tick + PERIOD_NS, BODY.streams[key].period_ns):
                builder.add(key, Sample(stamp, value_of(key, 1)))
        builder.row(tick)
        assert held(builder, "arm") <= 6 and held(builder, "thing") <= 3
        assert len(builder._buffers["arm"].values) == held(builder, "arm")


def test_late_samples_do_not_pile_up():
    builder = RowBuilder(BODY, ["arm"])
    for tick in range(PERIOD_NS, 5_000 * MS, PERIOD_NS):
        for stamp in range(tick - 90 * MS, tick, 10 * MS):
            builder.add("arm", Sample(stamp, value_of("arm", 1)))
        builder.row(tick)
        for stamp in range(tick - 89 * MS, tick, 10 * MS):
            builder.add("arm", Sample(stamp, value_of("arm", 2)))
        assert held(builder, "arm") <= 11


@given(stamps=st.lists(STAMPS, min_size=1, max_size=20, unique=True), cut=STAMPS)
def test_forgetting_never_changes_a_later_row(stamps, cut):
    full, lean = RowBuilder(BODY, ["arm"]), RowBuilder(BODY, ["arm"])
    for number, stamp in enumerate(stamps):
        for builder in (full, lean):
            builder.add("arm", Sample(stamp, value_of("arm", number)))
    lean.forget_before(cut)
    for tick in range(first_tick(cut, PERIOD_NS), 1100 * MS, PERIOD_NS):
        one, other = full.row(tick), lean.row(tick)
        assert one.valid == other.valid
        np.testing.assert_array_equal(one.values["arm"], other.values["arm"])


# When a row may be built


def test_owing_on_exact_grids():
    builder = RowBuilder(BODY, ["arm", "thing"])
    assert builder.owing(0) == ["arm", "thing"]
    builder.add("thing", sample(0, 0, 0, 0))
    builder.add("arm", sample(0, 0, 0))
    assert builder.complete(0) and not builder.complete(100 * MS)
    for stamp in (20, 40, 60, 80):
        builder.add("arm", sample(stamp * MS, 0, 0))
    builder.add("thing", sample(50 * MS, 0, 0, 0))
    assert builder.owing(100 * MS) == ["arm", "thing"]  # the samples of the tick itself
    builder.add("arm", sample(100 * MS, 0, 0))
    assert builder.owing(100 * MS) == ["thing"] and not builder.complete(100 * MS)
    builder.add("thing", sample(100 * MS, 0, 0, 0))
    assert builder.complete(100 * MS)


@given(phase=st.integers(0, 20 * MS - 1), count=st.integers(1, 40))
def test_a_steady_stream_is_complete_exactly_when_its_next_sample_lies_after_the_tick(phase, count):
    builder = RowBuilder(BODY, ["arm"])
    for i in range(count):
        builder.add("arm", sample(phase + i * 20 * MS, 0, 0))
    for tick in range(0, 900 * MS, PERIOD_NS):
        assert builder.complete(tick) == (phase + count * 20 * MS > tick)


@given(jitter=st.lists(st.integers(0, 9 * MS), min_size=50, max_size=50))
def test_with_late_stamps_complete_rows_are_final(jitter):
    """Samples stamped up to half a period after their grid: what completes a row also decides it.

    The row built as soon as :meth:`complete` agrees then equals the one built with hindsight,
    unless the next sample is stamped within its jitter of the tick.
    """
    stamps = [i * 20 * MS + j for i, j in enumerate(jitter)]
    builder, tick, rows = RowBuilder(BODY, ["arm"]), PERIOD_NS, {}
    for number, stamp in enumerate(stamps):
        builder.add("arm", Sample(stamp, value_of("arm", number)))
        if builder.complete(tick):
            rows[tick] = builder.row(tick).values["arm"][0]
            tick += PERIOD_NS
    for tick, number in rows.items():
        newest = max(i for i, stamp in enumerate(stamps) if stamp <= tick)
        assert number == newest or stamps[newest] - stamps[newest - 1] < 20 * MS


# Ticks and missing values


@given(start=st.integers(0, 10**12), length=st.integers(0, 10**10))
def test_ticks_are_the_multiples_of_the_period(start, length):
    period = 33_333_333
    ticks = ticks_between(start, start + length, period)
    first = first_tick(start, period)
    assert first % period == 0 and start <= first < start + period
    assert np.all(ticks % period == 0) and np.all(np.diff(ticks) == period)
    assert len(ticks) == (start + length) // period - (start - 1) // period


@pytest.mark.parametrize(
    ("key", "fill"), [("arm", np.nan), ("depth", np.nan), ("camera", 0), ("labels", 0)]
)
def test_missing_values_have_the_shape_and_type_of_the_stream(key, fill):
    stream = BODY.streams[key]
    value = missing_value(stream)
    assert value.shape == stream.shape and value.dtype == np.dtype(stream.dtype)
    np.testing.assert_array_equal(value, np.full(stream.shape, fill))


# Windows


@given(tick=st.integers(0, 300), history=st.integers(1, 20), stride=st.integers(1, 12))
def test_history_indices(tick, history, stride):
    index, inside = history_indices(tick, history, stride)
    wanted = [tick - stride * (history - 1 - i) for i in range(history)]
    assert index.tolist() == [max(w, 0) for w in wanted]
    assert inside.tolist() == [w >= 0 for w in wanted]


def test_history_indices_of_many_ticks_at_once():
    ticks = np.arange(7)
    index, inside = history_indices(ticks[:, None], 4, 2)
    for tick in ticks:
        one, flag = history_indices(int(tick), 4, 2)
        np.testing.assert_array_equal(index[tick], one)
        np.testing.assert_array_equal(inside[tick], flag)


@given(
    history=st.integers(1, 6),
    stride=st.integers(1, 5),
    flags=st.lists(st.booleans(), min_size=1, max_size=45),
)
def test_window_equals_brute_force_over_all_rows(history, stride, flags):
    ring, rows = History(history, stride), []
    for number, flag in enumerate(flags):
        row = Observation(
            number * PERIOD_NS,
            {"a": np.full((2,), float(number)), "b": np.full((1, 2), number, np.uint8)},
            {"a": True, "b": flag},
        )
        rows.append(row)
        ring.push(row)
        window = ring.window()
        index, inside = history_indices(number, history, stride)
        for key in ("a", "b"):
            np.testing.assert_array_equal(
                window.values[key][inside], np.stack([rows[i].values[key] for i in index])[inside]
            )
            assert window.values[key].dtype == row.values[key].dtype
            wanted = [bool(k and rows[i].valid[key]) for i, k in zip(index, inside, strict=True)]
            assert window.valid[key].tolist() == wanted
        np.testing.assert_array_equal(window.inside, inside)
        # Before the episode stands its first row, not the oldest one that the ring still has.
        assert np.all(window.values["a"][~inside] == 0.0)
        assert len(ring) <= (history - 1) * stride + 1


def test_a_cleared_history_repeats_the_new_first_row():
    ring = History(3, 1)
    for number in (1.0, 2.0):
        ring.push(Observation(0, {"a": np.array([number])}, {"a": True}))
    ring.clear()
    assert len(ring) == 0
    ring.push(Observation(0, {"a": np.array([9.0])}, {"a": True}))
    assert ring.window().values["a"][:, 0].tolist() == [9.0, 9.0, 9.0]
    assert ring.window().inside.tolist() == [False, False, True]
    assert [row.values["a"][0] for row in ring.rows] == [9.0]
