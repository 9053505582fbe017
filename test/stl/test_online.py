"""The online monitor: at every sample what the definition says of the trace so far."""

from __future__ import annotations

import math

import _stl_reference as reference
import numpy as np
import pytest
from _stl_crosscheck import BOUND, SIGNALS, random_formula, random_trace

from embodied_rl.core.errors import UserError
from embodied_rl.stl import formula as fm
from embodied_rl.stl.online import Decided, OnlineMonitor, Verdict
from embodied_rl.stl.parse import parse
from embodied_rl.stl.robustness import TailRule, robustness

BOUNDS = dict.fromkeys(SIGNALS, (-BOUND, BOUND))


def feed(monitor: OnlineMonitor, *values: float) -> OnlineMonitor:
    for value in values:
        monitor.update([value])
    return monitor


def defined(formula, trace, seen, bounds):
    prefix = {name: values[:seen] for name, values in trace.items()}
    return reference.robustness(formula, prefix, TailRule.INTERVAL, bounds)


@pytest.mark.parametrize("seed", range(24))
def test_every_open_step_of_every_subformula_is_as_defined(seed):
    rng = np.random.default_rng(seed)
    formula = random_formula(rng, 3)
    length = fm.horizon(formula) + 5
    trace = random_trace(rng, length)
    if seed % 3 == 0:
        trace = {n: np.where(rng.random(length) < 0.15, np.nan, v) for n, v in trace.items()}
    bounds = BOUNDS if seed % 2 else {}
    if seed % 4 == 1:  # within bounds so tight that they settle many predicates unseen
        trace = {name: values / 5 for name, values in trace.items()}
        bounds = dict.fromkeys(SIGNALS, (-BOUND / 5, BOUND / 5))
    monitor = OnlineMonitor(formula, bounds)
    known: dict[tuple[int, int], tuple[float, float]] = {}
    for k in range(length):
        monitor.update([float(trace[name][k]) for name in monitor.names])
        for place, node in enumerate(monitor.program.nodes):
            low, high = defined(node, trace, k + 1, bounds)
            for t in range(max(0, k - monitor.horizon), k + 1):
                assert monitor.interval(t, place) == (low[t], high[t])
                before = known.get((place, t), (-math.inf, math.inf))
                assert before[0] <= low[t] and high[t] <= before[1]  # nested
                known[place, t] = (low[t], high[t])
                check_verdict(monitor, place, t)
                assert (t in monitor.newly_satisfied(place)) == (low[t] > 0 >= before[0])
                assert (t in monitor.newly_violated(place)) == (high[t] < 0 <= before[1])
            check_decided(monitor, place, low, high)


def check_verdict(monitor, place, t):
    low, high = monitor.interval(t, place)
    seen = monitor.step - t >= fm.horizon(monitor.program.nodes[place])
    still = Verdict.UNDETERMINED if seen else Verdict.UNDECIDED
    expected = Verdict.SATISFIED if low > 0 else Verdict.VIOLATED if high < 0 else still
    assert monitor.verdict(t, place) is expected
    if expected in (Verdict.SATISFIED, Verdict.VIOLATED):
        found = monitor.witness(t, place)
        assert abs(found.value) == abs(high if high < 0 else low)


def check_decided(monitor, place, low, high):
    t = monitor.step - fm.horizon(monitor.program.nodes[place])
    expected = Decided(t, low[t], high[t]) if t >= 0 else None
    assert monitor.decided(place) == expected


@pytest.mark.parametrize("seed", range(12))
def test_sound_under_random_completions_and_equal_at_the_end(seed):
    rng = np.random.default_rng(100 + seed)
    formula = random_formula(rng, 4)
    length = fm.horizon(formula) + 1
    trace, monitor = random_trace(rng, length), OnlineMonitor(formula, BOUNDS)
    for k in range(length):
        monitor.update([float(trace[name][k]) for name in monitor.names])
        low, high = monitor.interval(0)
        for _ in range(5):
            completed = random_trace(rng, length)
            for name, values in completed.items():
                values[: k + 1] = trace[name][: k + 1]
            assert low <= robustness(formula, completed)[0] <= high
    assert monitor.interval(0) == (robustness(formula, trace)[0],) * 2


def test_verdicts_come_with_the_first_sample_that_settles_them():
    monitor = feed(OnlineMonitor(parse("G[0,5] x > 0")), 1.0, 2.0, -0.5)
    assert monitor.newly_violated() == [0, 1, 2]
    assert monitor.verdict(1) is Verdict.VIOLATED
    monitor = feed(OnlineMonitor(parse("F[2,5] x > 0")), 1.0, -1.0, -1.0)
    assert monitor.verdict(0) is Verdict.UNDECIDED
    assert feed(monitor, 0.5).newly_satisfied() == [0, 1]
    # the short side of a conjunction does not wait for the long one
    monitor = feed(OnlineMonitor(parse("G[0,2] x > 0 and F[0,90] x > 9")), 1.0, -1.0)
    assert monitor.newly_violated() == [0, 1] and monitor.decided() is None


def test_declared_bounds_can_settle_a_verdict_before_the_end():
    formula = parse("F[0,9] x > 5")
    assert feed(OnlineMonitor(formula, {"x": (-1.0, 4.0)}), 0.0).verdict(0) is Verdict.VIOLATED
    assert feed(OnlineMonitor(formula, {"x": (-1.0, 6.0)}), 0.0).interval(0) == (-5.0, 1.0)
    always = OnlineMonitor(parse("G[3,9] x > -2"), {"x": (-1.0, 4.0)})
    assert feed(always, 0.0).newly_satisfied() == [0]
    assert feed(always, 0.0).newly_satisfied() == [1]


@pytest.mark.parametrize("gap", [math.nan, math.inf, -math.inf])
def test_a_missing_sample_is_anything_within_its_bounds(gap):
    monitor = OnlineMonitor(parse("G[0,2] x > 0"), {"x": (-3.0, 3.0)})
    feed(monitor, 1.0, gap, 2.0)
    assert monitor.decided() == Decided(0, -3.0, 1.0)
    assert monitor.verdict(0) is Verdict.UNDETERMINED
    assert monitor.row(1) == {}
    feed(monitor, 2.0, 2.0)
    assert monitor.decided() == Decided(2, 2.0, 2.0)
    assert monitor.verdict(2) is Verdict.SATISFIED


def test_margins_of_zero_and_undefined_margins_decide_nothing():
    assert feed(OnlineMonitor(parse("x > 1")), 1.0).verdict(0) is Verdict.UNDETERMINED
    for text in ("sqrt(x) > 1", "1 / (x + 4) > 1"):
        monitor = feed(OnlineMonitor(parse(text)), -4.0)
        assert monitor.verdict(0) is Verdict.UNDETERMINED
        assert monitor.interval(0) == (-math.inf, math.inf)


def test_the_witness_names_predicate_step_and_value():
    formula = parse("G[0,4] (x > 0 -> F[0,2] y > 1)")
    monitor = OnlineMonitor(formula)
    assert monitor.names == ("x", "y")
    for row in [(-1.0, 0.0), (2.0, 0.5), (-1.0, 0.75), (-1.0, 0.25)]:
        monitor.update(row)
    assert monitor.newly_violated() == [0, 1]
    found = monitor.witness(0)
    assert (found.step, found.value) == (2, -0.25)
    assert found.predicate == parse("y > 1")
    assert monitor.row(found.step) == {"x": -1.0, "y": 0.75}


def test_constants_need_no_signals():
    monitor = OnlineMonitor(parse("F[0,2] true"))
    assert monitor.names == ()
    monitor.update([])
    assert monitor.verdict(0) is Verdict.SATISFIED
    assert monitor.interval(0) == (math.inf, math.inf)


def test_steps_out_of_memory_are_refused():
    monitor = feed(OnlineMonitor(parse("F[0,2] x")), *[1.0] * 10)
    assert monitor.verdict(7) is Verdict.SATISFIED
    for step in (6, 10):
        with pytest.raises(UserError, match=rf"step {step} is not in memory \(7 to 9\)"):
            monitor.interval(step)


def test_reset_forgets():
    monitor = feed(OnlineMonitor(parse("G[0,2] x > 0")), -1.0, -1.0)
    monitor.reset()
    assert monitor.step == -1 and monitor.decided() is None
    assert feed(monitor, 1.0).newly_violated() == []
    assert monitor.verdict(0) is Verdict.UNDECIDED


def test_memory_does_not_grow_with_the_run():
    formula = parse("G[0,20] (x > 0 -> F[0,10] x < 0) and (x > -9) U[5,30] (x < 1)")
    monitor, rng = OnlineMonitor(formula), np.random.default_rng(0)
    sizes = []
    for _ in range(3):
        for _ in range(2000):
            monitor.update([float(rng.uniform(-1, 1))])
        sizes.append(max(max(n.true, n.false).bit_length() for n in monitor._nodes))
    assert len(monitor._rows) == monitor.horizon + 1
    assert max(sizes) <= monitor.horizon + 1
