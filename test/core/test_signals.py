"""Signals: declared once, the same on samples, rows and states; and their sampling on a grid."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from core_cases import MS, robot, sample

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section, parse_yaml
from embodied_rl.core.signals import SignalSampler, SignalSet, Slot, parse_signals
from embodied_rl.core.window import Arrival, RowBuilder

DECLARED = """
signals:
  height: {stream: thing, component: z, unit: m, bounds: [-1, 2]}
  across: {stream: thing, minus: [1, 1, 0], norm: [x, y]}
  far: {stream: thing, norm: all, bounds: [0, 9], max_age_s: 0.5}
  elbow: {stream: arm, component: elbow, interpolation: linear}
  apart: {stream: arm, minus: arm, norm: all}
"""
DT_NS = 100 * MS


def declared(text: str = DECLARED, embodiment: Embodiment | None = None) -> SignalSet:
    section = Section("spec.yaml", "", parse_yaml(text, "spec.yaml"))
    return parse_signals(section.children("signals"), embodiment or robot())


def one(entry: str) -> SignalSet:
    return declared(f"signals:\n  s: {entry}\n")


def test_values_by_hand():
    found = declared().evaluate({"thing": np.array([4.0, 5.0, 2.0]), "arm": np.array([0.5, -1.0])})
    assert {name: float(value) for name, value in found.items()} == {
        "height": 2.0, "across": 5.0, "far": math.sqrt(45.0), "elbow": -1.0, "apart": 0.0,
    }  # fmt: skip


def test_one_definition_for_samples_rows_and_states():
    rng, signals = np.random.default_rng(0), declared()
    states = {"thing": rng.normal(size=(7, 5, 3)), "arm": rng.normal(size=(7, 5, 2))}
    whole = signals.evaluate(states)
    assert whole["across"].shape == (7, 5)
    builder = RowBuilder(robot(), signals.streams)
    for key, values in states.items():
        builder.add(key, sample(DT_NS, *values[3, 2]))
    row = signals.row(builder.row(DT_NS))
    assert row == {name: float(values[3, 2]) for name, values in whole.items()}
    sampler = SignalSampler(signals, DT_NS, 0)
    for key, values in states.items():
        sampler.add(key, sample(DT_NS, *values[3, 2]))
    assert list(sampler.slots()) == [Slot(0, DT_NS, row)]


def test_a_row_without_a_stream_gives_nan_for_its_signals_only():
    signals, builder = declared(), RowBuilder(robot(), ["thing", "arm"])
    builder.add("arm", sample(DT_NS, 1.0, 2.0))
    row = signals.row(builder.row(DT_NS))
    assert [name for name, value in row.items() if math.isnan(value)] == ["height", "across", "far"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (
            "{stream: wheel, component: x}",
            "signals.s.stream: expected one of .*'arm'.* saw 'wheel'",
        ),
        (
            "{stream: camera, component: x}",
            "expected numbers, such as joints.* saw sensor_msgs/msg/Image 'camera'",
        ),
        ("{stream: thing}", "expected either 'component' or 'norm', saw neither"),
        ("{stream: thing, component: x, norm: all}", "saw both"),
        ("{stream: thing, component: w}", r"component: expected one of \['x', 'y', 'z'\], saw 'w'"),
        ("{stream: arm, component: finger}", r"expected one of \['shoulder', 'elbow'\]"),
        ("{stream: thing, norm: [x, q]}", "norm: expected 'all' or names among .* saw 'q'"),
        ("{stream: thing, component: x, unit: cm}", "unit: expected 'm', the unit of.* saw 'cm'"),
        ("{stream: thing, component: x, bounds: [2, 1]}", r"expected \[lowest, highest\], saw"),
        ("{stream: thing, component: x, bounds: [0]}", "bounds: expected 2 numbers, saw 1"),
        ("{stream: thing, component: x, minus: [0, 0]}", "minus: expected 3 numbers, saw 2"),
        ("{stream: thing, component: x, minus: arm}", r"a stream of shape \(3,\) in 'm'.* 'arm'"),
        ("{stream: thing, component: x, interpolation: cubic}", "one of .*'hold', 'linear'.*cubic"),
        ("{stream: turn, component: w, interpolation: linear}", "'hold' for a quaternion"),
        (
            "{stream: thing, component: x, max_age_s: 0}",
            "max_age_s: expected a finite number above",
        ),
        ("{stream: thing, component: x, color: red}", "signals.s.color: unknown key"),
    ],
)
def test_bad_declarations_name_file_and_key(entry, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        one(entry)
    assert str(caught.value).startswith("spec.yaml: signals.s")


def test_select_refuses_undeclared_signals():
    assert list(declared().select(["far"], "f").streams) == ["thing"]
    with pytest.raises(UserError, match="f: unknown signal 'speed'; declared: across, apart"):
        declared().select(["far", "speed"], "f")


def sampler(entry: str, lateness_ms: int = 200) -> SignalSampler:
    return SignalSampler(one(entry), DT_NS, lateness_ms * MS)


def feed(target: SignalSampler, key: str, *points: tuple[int, float]) -> list[Slot]:
    """Samples (ms, value of the first component); returns the slots they close."""
    size, closed = target.signals.streams[key].shape[0], []
    for time_ms, value in points:
        target.add(key, sample(time_ms * MS, value, *[0.0] * (size - 1)))
        closed += target.slots()
    return closed


def shown(slots: list[Slot]) -> list[tuple[int, float]]:
    return [(slot.stamp_ns // MS, slot.values["s"]) for slot in slots]


def test_a_slot_holds_the_newest_sample_not_after_it():
    closed = feed(sampler("{stream: thing, component: x}"),
                  "thing", (90, 1.0), (150, 2.0), (200, 3.0), (310, 4.0))  # fmt: skip
    assert shown(closed) == [(100, 1.0), (200, 3.0), (300, 3.0)]


def test_linear_interpolation_between_the_neighbours_of_a_slot():
    target = sampler("{stream: thing, component: x, interpolation: linear}")
    assert shown(feed(target, "thing", (50, 1.0), (150, 2.0), (350, 4.0), (400, 5.0))) == [
        (100, 1.5), (200, 2.5), (300, 3.5), (400, 5.0),
    ]  # fmt: skip
    # too far apart to know what was in between, and nothing young enough to hold
    assert math.isnan(shown(feed(target, "thing", (2000, 9.0)))[5][1])


def test_angles_are_interpolated_the_short_way_round():
    target = sampler("{stream: arm, component: shoulder, interpolation: linear}")
    slots = feed(target, "arm", (50, 3.0), (150, -3.0))
    assert slots[0].values["s"] == pytest.approx(math.pi)


def test_a_sample_that_is_too_old_is_missing():
    target = sampler("{stream: thing, component: x, max_age_s: 0.15}")
    slots = shown(feed(target, "thing", (100, 1.0), (500, 2.0)))
    assert slots[:2] == [(100, 1.0), (200, 1.0)]
    assert [math.isnan(value) for _, value in slots] == [False, False, True, True, False]


TWO = "signals:\n  a: {stream: thing, component: x}\n  b: {stream: arm, component: shoulder}\n"


def test_a_slot_waits_for_every_stream_but_no_longer_than_the_lateness():
    target = SignalSampler(declared(TWO), DT_NS, 200 * MS)
    assert feed(target, "arm", (100, 1.0)) == []
    assert [s.values for s in feed(target, "thing", (100, 2.0))] == [{"a": 2.0, "b": 1.0}]
    assert feed(target, "arm", (200, 1.5), (300, 2.0), (390, 2.5)) == []
    closed = feed(target, "arm", (400, 3.0))
    assert [(s.stamp_ns // MS, s.values["b"]) for s in closed] == [(200, 1.5)]
    assert target.counts[Arrival.LATE] == 0
    feed(target, "thing", (190, 7.0))
    assert target.counts[Arrival.LATE] == 1 and target.late == {"thing": 1}


LINEAR = "signals:\n  a: {stream: thing, component: x, interpolation: linear, max_age_s: 0.1}\n"
LINEAR += "  b: {stream: arm, component: shoulder}\n"


@pytest.mark.parametrize("text", [TWO, LINEAR])
def test_the_order_of_arrival_within_the_lateness_changes_nothing(text):
    draw = random.Random(0)
    streams = [("thing", t, math.sin(t)) for t in range(100, 3000, 90)]
    streams += [("arm", t, math.cos(t)) for t in range(105, 3000, 20)]

    def run(delay_ms: int) -> list[Slot]:
        target, closed = SignalSampler(declared(text), DT_NS, 200 * MS), []
        target.restart(100 * MS)
        arrivals, newest = [], {"thing": 0.0, "arm": 0.0}
        delays = {key: draw.choice([20, delay_ms]) for key in newest}  # one topic lags, or both
        for key, time_ms, value in streams:  # a topic keeps its order, as ROS does
            newest[key] = max(newest[key], time_ms + draw.uniform(0, delays[key]))
            arrivals.append((newest[key], key, time_ms, value))
        for _, key, time_ms, value in sorted(arrivals):
            closed += feed(target, key, (time_ms, value))
        assert target.counts.keys() == {Arrival.OK}
        return closed + list(target.finish())

    plain = run(20)
    assert len(plain) > 25
    for _ in range(5):
        assert [repr(slot) for slot in run(190)] == [repr(slot) for slot in plain]


def test_slots_from_the_start_on_in_place_of_the_multiples():
    target = SignalSampler(one("{stream: thing, component: x}"), DT_NS, 0, from_start=True)
    target.restart(130 * MS)
    assert shown(feed(target, "thing", (130, 1.0), (230, 2.0), (400, 3.0))) == [
        (130, 1.0), (230, 2.0), (330, 2.0),
    ]  # fmt: skip
    target.restart(None)
    assert shown(feed(target, "thing", (555, 1.0), (655, 2.0))) == [(555, 1.0), (655, 2.0)]


def test_a_start_of_another_clock_is_not_waited_through():
    target = sampler("{stream: thing, component: x}")
    target.restart(1000 * MS)
    ages_ns = 3_000_000_000 * 1000 * MS
    assert target.add("thing", sample(ages_ns, 1.0, 0.0, 0.0)) is Arrival.CLOCK_JUMP
    assert [slot.stamp_ns for slot in target.slots()] == [ages_ns]
    closed = list(target.advance(2 * ages_ns))
    assert 550 < len(closed) <= 600, "a minute of silence, and no more"


def test_time_alone_closes_the_slots_of_silent_streams():
    target = sampler("{stream: thing, component: x}")
    feed(target, "thing", (100, 1.0))
    assert list(target.advance(399 * MS)) == []
    assert shown(list(target.advance(400 * MS))) == [(200, 1.0)]
    assert math.isnan(list(target.advance(700 * MS))[-1].values["s"])


def test_without_a_start_the_first_slot_waits_a_second_for_a_silent_stream():
    target = SignalSampler(declared(TWO), DT_NS, 0)
    assert feed(target, "arm", *((t, 1.0) for t in range(100, 1100, 50))) == []
    closed = feed(target, "arm", (1100, 1.0))
    assert closed[0].stamp_ns == 100 * MS and math.isnan(closed[0].values["a"])


@pytest.mark.parametrize("jump_ms", [50, 400_000])
def test_a_clock_that_is_set_anew_forgets_everything(jump_ms):
    target = sampler("{stream: thing, component: x}")
    feed(target, "thing", (5000, 1.0), (5100, 2.0))
    assert target.add("thing", sample(jump_ms * MS, 7.0, 0.0, 0.0)) is Arrival.CLOCK_JUMP
    after = list(target.slots()) + feed(target, "thing", (jump_ms + 100, 8.0))
    assert after[0].index == 0
    assert after[0].stamp_ns == -(-jump_ms // 100) * DT_NS and after[0].values["s"] == 7.0


def test_a_second_sample_of_a_stamp_is_dropped_and_disorder_sorted_in():
    target = sampler("{stream: thing, component: x}")
    feed(target, "thing", (40, 1.0), (60, 3.0), (60, 9.0), (50, 2.0))
    assert target.counts[Arrival.DUPLICATE] == 1 and target.counts[Arrival.DISORDERED] == 1
    assert shown(feed(target, "thing", (100, 4.0))) == [(100, 4.0)]


def test_samples_of_the_episode_before_do_not_count():
    target = sampler("{stream: thing, component: x}")
    target.restart(1000 * MS)
    slots = feed(target, "thing", (990, 1.0), (1050, 2.0), (1100, 3.0), (1300, 4.0))
    assert target.counts[Arrival.BEFORE_START] == 1
    assert math.isnan(slots[0].values["s"]) and shown(slots)[1:2] == [(1100, 3.0)]


def test_a_sample_without_a_stamp_is_refused():
    with pytest.raises(UserError, match="thing: expected a stamp in the header, saw 0 ns"):
        sampler("{stream: thing, component: x}").add("thing", sample(0, 1.0, 2.0, 3.0))


def test_infinite_values_are_missing_and_values_out_of_bounds_are_counted():
    target = sampler("{stream: thing, component: x, bounds: [0, 2]}")
    slots = feed(target, "thing", (100, math.inf), (200, 5.0), (300, 1.0))
    assert math.isnan(slots[0].values["s"]) and slots[1].values["s"] == 5.0
    assert target.out_of_bounds["s"] == 2


def test_memory_stays_flat():
    target = sampler("{stream: thing, component: x}")
    for i in range(5000):
        feed(target, "thing", (100 + 20 * i, 1.0))
    assert len(target._tracks["thing"].stamps) < 10
