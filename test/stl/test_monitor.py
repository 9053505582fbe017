"""Specifications: their files, the monitor's events, and that a replay repeats them to the byte."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.signals import Slot
from embodied_rl.core.window import Sample
from embodied_rl.stl.events import Event, Kind
from embodied_rl.stl.monitor import SpecificationMonitor
from embodied_rl.stl.online import Verdict
from embodied_rl.stl.replay import replay
from embodied_rl.stl.spec import Specification, parse_specification

MS = 1_000_000
ROBOT = """
name: cart
control_rate_hz: 10
streams:
  cart: {topic: joint_states, type: sensor_msgs/msg/JointState, field: position, joints: [x, y],
         unit: m, rate_hz: 50, max_age_s: 0.15}
  goal: {topic: goal, type: geometry_msgs/msg/PoseStamped, field: position, unit: m, rate_hz: 10,
         max_age_s: 0.3}
commands:
  cart: {topic: cart/commands, type: std_msgs/msg/Float64MultiArray, joints: [x, y], unit: m,
         lower: [-9, -9], upper: [9, 9], max_velocity: [1, 1]}
"""
SPEC = """
name: test
dt_s: 0.1
mode: {mode}
{more}
formulas:
  both: {formula}
signals:
  x: {{stream: cart, component: x, unit: m, bounds: [-5, 5]}}
  y: {{stream: cart, component: y}}
  goal: {{stream: goal, component: z}}
"""
CART = Embodiment.parse(ROBOT, "cart.yaml")


def spec(formula: str, mode: str = "episode", more: str = "") -> Specification:
    text = SPEC.format(formula=formula, mode=mode, more=more)
    return parse_specification(text, CART, "spec.yaml")


def run(specification: Specification, *values: float) -> tuple[SpecificationMonitor, list[Event]]:
    """The monitor after slots with these values of x (y is 0), and all its events."""
    monitor, events = SpecificationMonitor(specification), []
    for i, x in enumerate(values):
        row = {name: (x if name == "x" else 0.0) for name in specification.signals.signals}
        events += monitor.update(Slot(i, 1000 * MS + i * 100 * MS, row))
    return monitor, events


def brief(events: list[Event]) -> list[tuple[str, str, int]]:
    return [(e.event.value, e.path, (e.stamp_ns - 1000 * MS) // (100 * MS)) for e in events]


# ------------------------------------------------------------------ files
def test_a_file_is_read_with_its_defaults():
    found = spec("G[0,0.5] x > 0")
    assert (found.dt_ns, found.mode, found.until, found.lateness_s) == (
        100 * MS, "episode", "strict", 0.2,
    )  # fmt: skip
    assert list(found.signals.signals) == ["x"] and list(found.signals.streams) == ["cart"]
    more = "until: inclusive\nlateness_s: 0.05\nhysteresis: 0.1\ndebounce: 2\npredictor: hold"
    found = spec("x U[0,1] y", "sliding", more)
    assert (found.lateness_s, found.hysteresis, found.debounce) == (0.05, 0.1, 2)
    assert found.formulas["both"] == spec("x U[0,1] (x and y)").formulas["both"]


@pytest.mark.parametrize(
    ("formula", "mode", "more", "complaint"),
    [
        ("G[0,0.25] x > 0", "episode", "", "formulas.both: formula, column 5: .*multiple of dt"),
        (
            "G[0,1] speed > 0",
            "episode",
            "",
            "formulas.both: unknown signal 'speed'; declared: goal",
        ),
        ("F[0,1] true", "episode", "", "formulas: expected at least one signal"),
        ("G x > 0", "episode", "", "formulas.both: formula, column 3: expected a bounded interval"),
        ("F[2,1] x > 0", "episode", "", "formula, column 5: .* saw a reversed interval"),
        ("x", "episode", "grid: hexagonal", r"grid: expected one of \['clock', 'start'\]"),
        ("x", "always", "", r"mode: expected one of \['episode', 'sliding'\], saw 'always'"),
        ("x", "sliding", "debounce: 0", "debounce: expected a whole number of 1 or more, saw 0"),
        ("x", "sliding", "hysteresis: -1", "hysteresis: expected a number of 0 or more, saw -1"),
        ("x", "episode", "until: weak", "until: expected one of"),
        ("x", "episode", "lateness_s: 0", "lateness_s: expected a finite number above 0"),
        ("x", "episode", "windw: 3", "windw: unknown key"),
        ("[1, 2]", "episode", "", "formulas.both: expected a formula in text"),
    ],
)
def test_bad_files_name_file_and_key(formula, mode, more, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        spec(formula, mode, more)
    assert str(caught.value).startswith("spec.yaml: ")


def test_names_of_formulas_can_be_listed_with_commas():
    text = SPEC.format(formula="x", mode="episode", more="").replace("both:", "'one, two':")
    with pytest.raises(UserError, match="formulas.one, two: expected a name without a comma"):
        parse_specification(text, CART, "spec.yaml")


# ------------------------------------------------------------------ episode mode
def test_events_name_sub_formula_witness_and_interval():
    _, events = run(spec("G[0,0.3] x < 2 and F[0,0.5] x > 1"), 0.0, 1.5, 3.0, 0.0)
    assert brief(events) == [("satisfied", "1", 1), ("violated", "", 2), ("violated", "0", 2)]
    whole = json.loads(events[1].to_json())
    assert whole == {
        "event": "violated",
        "stamp_ns": 1200 * MS,
        "spec": "test",
        "formula": "both",
        "subformula": "G[0,0.3] x < 2 and F[0,0.5] x > 1",
        "anchor_ns": 1000 * MS,
        "low": -3.0,
        "high": -1.0,
        "witness": {
            "predicate": "x < 2",
            "stamp_ns": 1200 * MS,
            "value": -1.0,
            "signals": {"x": 3.0},
        },
    }


def test_an_episode_is_judged_once():
    monitor, events = run(spec("F[0,0.2] x > 1"), 0.0, 0.0, 0.0, 5.0, -5.0, 5.0)
    assert brief(events) == [("violated", "", 2)]
    (status,) = monitor.status()
    assert (status.verdict, status.low, status.high) == (Verdict.VIOLATED, -1.0, -1.0)
    assert status.anchor_ns == 1000 * MS


def test_open_and_undetermined_verdicts_are_no_events():
    monitor, events = run(spec("G[0,0.5] x > 0"), 1.0, 1.0)
    assert events == [] and monitor.status()[0].verdict is Verdict.UNDECIDED
    monitor, events = run(spec("G[0,0.1] x > 0"), 1.0, math.nan)
    assert brief(events) == [("stale", "", 1)]
    assert monitor.status()[0].verdict is Verdict.UNDETERMINED
    monitor, events = run(spec("G[0,0.1] x > 0"), 1.0, 0.0)
    assert events == [] and monitor.status()[0].verdict is Verdict.UNDETERMINED


def test_a_missing_signal_is_said_once():
    _, events = run(spec("G[0,9] x > 0"), 1.0, math.nan, math.nan, 1.0, math.nan)
    assert brief(events) == [("stale", "", 1), ("stale", "", 4)]
    assert events[0].signals == ("x",)
    assert json.loads(events[0].to_json())["signals"] == ["x"]


# ------------------------------------------------------------------ sliding mode
def test_neighbouring_violations_are_one_with_an_end():
    values = [1.0, 1.0, -0.5, -2.0, 1.0, -1.0, *[1.0] * 8]
    monitor, events = run(spec("G[0,0.1] x > 0", "sliding", "debounce: 3"), *values)
    assert brief(events) == [("violated", "", 2), ("recovered", "", 9)]
    assert events[0].anchor_ns == 1100 * MS
    end = json.loads(events[1].to_json())
    assert (end["anchor_ns"], end["end_ns"], end["worst"]) == (1100 * MS, 1500 * MS, -2.0)
    assert [s.verdict for s in monitor.status()] == [Verdict.SATISFIED]


def test_a_violation_ends_only_above_the_hysteresis():
    more = "debounce: 2\nhysteresis: 0.5"
    _, events = run(spec("x > 0", "sliding", more), -1.0, 0.3, 0.3, 0.3, 0.9, 0.4, 0.9, 0.9)
    assert brief(events) == [("violated", "", 0), ("recovered", "", 7)]
    assert events[1].end_ns == 1000 * MS and events[1].worst == -1.0


def test_each_conjunct_has_its_own_violations():
    formula = "G[0,0.1] x > 0 and F[0,0.4] x > 2"
    _, events = run(spec(formula, "sliding", "debounce: 1"), 3.0, -1.0, 3.0, 3.0, 3.0, 3.0, 3.0)
    assert ("violated", "0", 1) in brief(events) and ("recovered", "0", 3) in brief(events)
    assert not any(event.path == "1" for event in events)


def test_sliding_events_match_the_definition_on_random_runs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.uniform(-1, 3, 60)
        _, events = run(spec("G[0,0.2] x > 0", "sliding", "debounce: 1"), *values.tolist())
        # by hand: robustness of every decided step, runs of negative ones
        rho = np.array([values[t : t + 3].min() for t in range(58)])
        starts = [t for t in range(58) if rho[t] < 0 and (t == 0 or rho[t - 1] >= 0)]
        anchors = [e.anchor_ns for e in events if e.event is Kind.VIOLATED]
        assert anchors[: len(starts)] == [1000 * MS + t * 100 * MS for t in starts]
        for event in events:
            if event.event is Kind.RECOVERED:
                first, last = ((ns - 1000 * MS) // (100 * MS) for ns in
                               (event.anchor_ns, event.end_ns))  # fmt: skip
                assert event.worst == rho[first : last + 1].min()


# ------------------------------------------------------------------ prediction
def test_at_risk_is_an_estimate_beside_the_interval():
    monitor, events = run(spec("G[0,2] x < 1", more="predictor: linear"), 0.0, 0.0, 0.2, 0.3)
    assert brief(events) == [("at_risk", "", 2)]
    assert events[0].estimate == pytest.approx(1 - (0.2 + 0.2 * 18))
    assert events[0].low is None and monitor.status()[0].verdict is Verdict.UNDECIDED
    assert monitor.estimate("both") == pytest.approx(1 - (0.3 + 0.1 * 17))
    far, _ = run(spec("G[0,3] x < 1", more="predictor: linear"), 0.0, 3.0)
    assert far.estimate("both") == 1 - 5, "within the bounds of the signal"
    _, events = run(spec("F[0,2] x > 1", more="predictor: hold"), 0.0, 0.5, 0.9)
    assert brief(events) == [("at_risk", "", 0)]
    _, events = run(spec("G[0,2] x < 1", more="predictor: linear"), 0.0, 0.2, 0.2)
    assert brief(events) == [("at_risk", "", 1), ("recovered", "", 2)]


def test_a_chain_of_conjuncts_has_a_clause_for_each_and_one_for_the_whole():
    _, events = run(spec("F[0,0.2] x > 1 and G[0,0.1] x < 3 and F[0,0.1] x > 0.5"), 0.0, 1.5)
    assert [(e.path, e.subformula) for e in events] == [
        ("", "F[0,0.2] x > 1 and G[0,0.1] x < 3 and F[0,0.1] x > 0.5"),
        ("0.0", "F[0,0.2] x > 1"), ("0.1", "G[0,0.1] x < 3"), ("1", "F[0,0.1] x > 0.5"),
    ]  # fmt: skip


# ------------------------------------------------------------------ samples
def samples(seconds: float = 4.0, start_ms: int = 1000) -> list[tuple[str, Sample]]:
    found = []
    for t in range(start_ms, start_ms + round(seconds * 1000), 20):
        value = np.array([math.sin(t / 300), math.cos(t / 500)])
        found.append(("cart", Sample(t * MS, value)))
        if t % 100 == 0:
            found.append(("goal", Sample(t * MS, np.array([0.0, 0.0, 0.3]))))
    return found


WATCHED = "G[0,0.5] (x > goal - 1.2 or y > 0) and F[0,1] x > goal"


def texts(events: list[Event]) -> str:
    return "".join(event.to_json() + "\n" for event in events)


def overtaking(stream: list[tuple[str, Sample]], seed: int) -> list[tuple[str, Sample]]:
    """The samples as they may arrive: topics overtake each other by up to 0.19 s."""
    draw, newest, arrivals = random.Random(seed), {"cart": 0.0, "goal": 0.0}, []
    for number, (key, sample) in enumerate(stream):
        newest[key] = max(newest[key], sample.stamp_ns + draw.uniform(0, 190 * MS))
        arrivals.append((newest[key], number))
    return [stream[number] for _, number in sorted(arrivals)]


@pytest.mark.parametrize("mode", ["episode", "sliding"])
def test_live_arrival_and_replay_give_the_same_bytes(mode):
    specification = spec(WATCHED, mode)
    plain = replay(specification, samples(), 1000 * MS)
    assert len(plain.events) >= 3
    for seed in range(4):
        live, monitor = [], SpecificationMonitor(specification)
        monitor.start(1000 * MS)
        for key, sample in overtaking(samples(), seed):
            live += monitor.add(key, sample)
        live += monitor.finish()
        assert texts(live) == texts(plain.events)


def test_one_violation_at_its_exact_slot():
    specification = spec("G[0,3] x < 2")
    stream = samples(3.5)
    stream = [
        (key, Sample(s.stamp_ns, np.array([2.5, 0.0])) if s.stamp_ns == 2300 * MS else s)
        for key, s in stream
        if key == "cart"
    ]
    found = replay(specification, stream, 1000 * MS)
    (event,) = found.events
    assert (event.event, event.stamp_ns) == (Kind.VIOLATED, 2300 * MS)
    assert event.witness.stamp_ns == 2300 * MS and event.witness.value == -0.5


def test_a_clock_set_back_resets_and_says_so():
    specification = spec("G[0,2] x < 2")
    found = replay(specification, samples(1.0, 9000) + samples(3.0, 1000), None)
    assert [event.event for event in found.events] == [Kind.RESET, Kind.SATISFIED]
    assert found.events[1].anchor_ns == 1000 * MS


def test_silence_is_missing_and_never_a_verdict():
    specification = spec("G[0,2] x < 2")
    monitor = SpecificationMonitor(specification)
    monitor.start(1000 * MS)
    events = []
    for key, sample in samples(1.0):
        if key == "cart":
            events += monitor.add(key, sample)
    events += monitor.advance(5000 * MS)
    assert [event.event for event in events] == [Kind.STALE]
    assert monitor.status()[0].verdict is Verdict.UNDETERMINED


def test_missing_stamps_are_refused():
    monitor = SpecificationMonitor(spec("x"))
    with pytest.raises(UserError, match="joint_states: expected a stamp in the header"):
        monitor.add("cart", Sample(0, np.zeros(2)))


def test_history_shows_the_band_narrow_and_the_sliding_verdicts():
    episode = replay(spec("G[0,2] x < 2"), samples(3.0), None).history("both")
    lows = [status.low for _, status in episode]
    assert lows == sorted(lows) and len(lows) == 30
    sliding = replay(spec("G[0,2] x < 2", "sliding"), samples(3.0), None).history("both")
    assert [stamp for stamp, _ in sliding] == [(1000 + 100 * i) * MS for i in range(30)]
    assert [s.verdict for _, s in sliding][9:11] == [Verdict.SATISFIED, Verdict.UNDECIDED]
