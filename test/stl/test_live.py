"""A monitor whose samples come as they are sent: episodes, order, clocks, another formula."""

from __future__ import annotations

import numpy as np
import pytest
from test_monitor import MS, overtaking, samples, spec, texts

from embodied_rl.core.window import Arrival, Sample
from embodied_rl.stl import conformal
from embodied_rl.stl.events import Kind
from embodied_rl.stl.live import LiveMonitor, State
from embodied_rl.stl.replay import replay

START_NS = 1000 * MS
WATCHED = "G[0,0.5] (x > goal - 1.2 or y > 0) and F[0,1] x > goal"


def cart(time_ms: int, x: float) -> tuple[str, Sample]:
    return "cart", Sample(time_ms * MS, np.array([x, 0.0]))


def kinds(events) -> list[tuple[Kind, int]]:
    return [(event.event, event.stamp_ns // MS) for event in events]


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_batches_of_any_size_give_the_events_of_the_recording(size):
    """However long the process was kept waiting, and in which order it finds the topics."""
    specification = spec(WATCHED)
    plain = texts(replay(specification, samples(), START_NS).events)
    assert plain.count("\n") >= 3
    stream = overtaking(samples(), seed=size)
    live, events = LiveMonitor(specification, announced=True), []
    events += live.begin(START_NS)
    for first in range(0, len(stream), size):
        batch = stream[first : first + size]
        events += live.take(sorted(batch, key=lambda item: item[0]))  # topic by topic
    events += live.end()
    assert texts(events) == plain
    assert live.state is State.OVER and live.monitor.sampler.late == {}


def test_an_announcement_slower_than_the_first_samples_loses_nothing():
    specification, stream = spec(WATCHED), samples()
    live = LiveMonitor(specification, announced=True)
    before = [("cart", Sample(s.stamp_ns - 500 * MS, s.value)) for _, s in stream[:20]]
    assert live.take(before) == [] and live.state is State.WAITING
    assert live.take(stream[:100]) == []
    events = live.begin(START_NS) + live.take(stream[100:]) + live.end()
    assert texts(events) == texts(replay(specification, stream, START_NS).events)


def test_between_episodes_nothing_is_judged():
    live = LiveMonitor(spec("G[0,3] x < 2"), announced=True)
    live.begin(START_NS)
    live.take([cart(1000, 0.0), cart(1100, 0.0)])
    assert kinds(live.end()) == []
    assert live.take([cart(1200, 9.0), cart(1300, 9.0)]) == [] and live.end() == []
    assert live.begin(START_NS) == [], "heard twice"
    assert live.state is State.OVER
    assert kinds(live.begin(1300 * MS)) == [(Kind.VIOLATED, 1300)]
    assert live.advance(9000 * MS)[0].event is Kind.STALE


def test_without_announcements_everything_is_judged():
    live = LiveMonitor(spec("G[0,3] x < 2"), announced=False)
    assert kinds(live.take([cart(1000, 9.0)])) == [(Kind.VIOLATED, 1000)]
    assert live.end() == [] and live.state is State.WATCHING


def test_a_reset_says_so_and_begins_with_the_next_sample():
    live = LiveMonitor(spec("G[0,3] x < 2"), announced=False)
    live.take([cart(1000, 9.0), cart(1100, 9.0)])
    assert kinds(live.reset(1150 * MS)) == [(Kind.RESET, 1150)]
    assert live.monitor.status() == []
    assert live.take([cart(1200, 0.0)]) == []
    assert live.monitor.status()[0].anchor_ns == 1200 * MS


def test_a_clock_set_back_within_one_batch():
    live = LiveMonitor(spec("G[0,0.2] x < 2"), announced=True)
    live.begin(9000 * MS)
    batch = [cart(t, 0.0) for t in (9000, 9100, 1000, 1100, 1200, 1300)]
    assert kinds(live.take(batch)) == [(Kind.RESET, 1000), (Kind.SATISFIED, 1200)]
    assert live.monitor.sampler.counts[Arrival.CLOCK_JUMP] == 1
    # The simulator began anew: its first episode may start when the one before did.
    assert live.begin(9000 * MS) == [] and live.state is State.WATCHING
    assert live.monitor.slot is None


def test_another_formula_is_watched_from_its_own_start_on():
    own, other = spec("G[0,3] x < 2"), spec("F[0,0.3] x > 1")
    live = LiveMonitor(own, announced=True)
    live.begin(START_NS)
    live.take([cart(1000 + t, t / 1000) for t in range(0, 1500, 100)])
    events = live.adopt(other, 2000 * MS)  # said late: the samples since then still count
    assert kinds(events)[0] == (Kind.RESET, 2000)
    assert kinds(events)[1:] == [(Kind.SATISFIED, 2100)]
    assert live.monitor.status()[0].anchor_ns == 2000 * MS
    live.end()
    live.begin(4000 * MS)
    assert live.spec is own, "the next episode is the own task again"


def test_a_calibration_is_for_the_own_specification_only():
    own = spec("G[0,1] x < 2", more="predictor: hold")
    other = spec("G[0,1] x < 3", more="predictor: hold")
    made = conformal.calibrate(own, {"both": [0.5] * 100}, 0.1)
    live = LiveMonitor(own, announced=False, calibration=made)
    live.take([cart(1000, 1.0)])
    assert live.monitor.readings()["both"].bound == 0.5
    live.adopt(other, START_NS)
    reading = live.monitor.readings()["both"]
    assert reading.estimate == 2.0 and reading.bound is None


def test_memory_stays_flat():
    live = LiveMonitor(spec("G[0,1] x < 2", "sliding"), announced=False)
    for i in range(3000):
        live.take([cart(1000 + 20 * i, 0.0)])
    assert len(live._recent) <= 252
