"""Robustness: the fast paths against the definition, the definition against rtamt and by hand."""

from __future__ import annotations

import _stl_reference as reference
import numpy as np
import pytest
from _stl_crosscheck import BOUND, SIGNALS, random_formula, random_trace

from embodied_rl.core.errors import UserError
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl.parse import parse
from embodied_rl.stl.robustness import TailRule, robustness, robustness_interval

BOUNDS = dict.fromkeys(SIGNALS, (-BOUND, BOUND))
RISING = {"x": np.array([1.0, 2.0, 3.0, 4.0, 5.0]), "y": np.array([-1.0, 0.5, 2.0, -1.0, -1.0])}


def cases(count: int, depth: int = 4, length: int = 40):
    rng = np.random.default_rng(7)
    for _ in range(count):
        yield random_formula(rng, depth), random_trace(rng, length), rng


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x > 2", [-1, 0, 1, 2, 3]),
        ("x < 2", [1, 0, -1, -2, -3]),
        ("G[1,2] x", [2, 3, 4, 5, np.inf]),
        ("F[1,2] y", [2, 2, -1, -1, -np.inf]),
        ("not F[1,2] y", [-2, -2, 1, 1, np.inf]),
        ("x U[1,3] y", [1, 2, -1, -1, -np.inf]),
        ("true U[0,1] y", [0.5, 2, 2, -1, -1]),
        ("false -> x", [np.inf] * 5),
        ("norm(x, y) > min(x, 2, 3)",
         np.hypot(RISING["x"], RISING["y"]) - np.minimum(RISING["x"], 2)),
    ],
)  # fmt: skip
def test_by_hand(text, expected):
    formula = parse(text)
    assert robustness(formula, RISING) == pytest.approx(np.array(expected, dtype=float))
    assert reference.robustness(formula, RISING)[0] == pytest.approx(np.array(expected, float))


def test_strict_until_asks_nothing_of_the_left_side_at_the_switch():
    signals = {"x": np.array([1.0, -5.0]), "y": np.array([-1.0, 2.0])}
    formula = parse("x U[0,1] y")
    assert robustness(formula, signals)[0] == 1.0
    assert robustness(fm.inclusive(formula), signals)[0] == -1.0


def test_inclusive_until_is_its_definition():
    for _, trace, rng in cases(50, length=20):
        start, end = sorted(rng.integers(0, 8, 2))
        formula = fm.Until(int(start), int(end), parse("x"), parse("y"))
        found = robustness(fm.inclusive(formula), trace)
        for t in range(12):
            options = [
                min(trace["y"][u], trace["x"][t : u + 1].min())
                for u in range(t + start, t + end + 1)
            ]
            assert found[t] == max(options)


def test_tail_rules_differ_past_the_end_only():
    formula = parse("G[0,2] F[0,1] y")
    cut = robustness(formula, RISING, TailRule.TRUNCATE)
    padded = robustness(formula, RISING, TailRule.PAD_PESSIMISTIC)
    low, high = robustness_interval(formula, RISING, {"y": (-4.0, 4.0)})
    assert cut.tolist() == [0.5, -1.0, -1.0, -1.0, -1.0]
    assert padded.tolist() == [0.5, -1.0, -1.0, -1e9, -1e9]
    assert low.tolist() == [0.5, -1.0, -1.0, -4.0, -4.0]
    assert high.tolist() == [0.5, -1.0, -1.0, -1.0, 4.0]
    assert robustness(parse("G[3,4] y"), RISING)[2] == np.inf
    assert robustness(parse("F[3,4] y"), RISING)[2] == -np.inf
    assert robustness(parse("not G[0,9] x"), RISING, TailRule.PAD_PESSIMISTIC)[0] == 1e9


@pytest.mark.parametrize("tail", [TailRule.TRUNCATE, TailRule.PAD_PESSIMISTIC])
def test_fast_numpy_is_the_definition(tail):
    for formula, trace, _ in cases(60):
        assert np.array_equal(
            robustness(formula, trace, tail), reference.robustness(formula, trace, tail)[0]
        )


def test_fast_intervals_are_the_definition_with_holes_in_the_trace():
    for formula, trace, rng in cases(60):
        holed = {name: np.where(rng.random(40) < 0.2, np.nan, v) for name, v in trace.items()}
        fast = robustness_interval(formula, holed, BOUNDS)
        slow = reference.robustness(formula, holed, TailRule.INTERVAL, BOUNDS)
        assert np.array_equal(fast[0], slow[0]) and np.array_equal(fast[1], slow[1])


def test_intervals_hold_whatever_the_missing_samples_are():
    for formula, trace, rng in cases(40, depth=3):
        known = {n: np.where(rng.random(40) < 0.3, np.nan, v[:40]) for n, v in trace.items()}
        low, high = robustness_interval(formula, known, BOUNDS)
        reach = fm.horizon(formula)
        for _ in range(5):
            filled = random_trace(rng, 40 + reach)
            for name, values in known.items():
                filled[name][:40] = np.where(np.isnan(values), filled[name][:40], values)
            value = robustness(formula, filled)[:40]
            assert np.all(low <= value) and np.all(value <= high)


def test_all_rules_agree_where_the_trace_covers_the_horizon():
    for formula, trace, _ in cases(60):
        covered = 40 - fm.horizon(formula)
        if covered <= 0:
            continue
        cut = robustness(formula, trace)[:covered]
        padded = robustness(formula, trace, TailRule.PAD_PESSIMISTIC)[:covered]
        low, high = robustness_interval(formula, trace)
        assert np.array_equal(cut, padded)
        assert np.array_equal(cut, low[:covered]) and np.array_equal(cut, high[:covered])


def test_rtamt_agrees_at_every_step():
    pytest.importorskip("rtamt")
    from _stl_crosscheck import rtamt_robustness

    differed = 0
    for formula, trace, _ in cases(100, length=60):
        ours, theirs = robustness(formula, trace), rtamt_robustness(formula, trace)
        same = (ours == theirs) | np.isclose(ours, theirs, rtol=0.0, atol=1e-9)
        differed += not same.all()
    assert differed == 0


def test_properties_of_the_semantics():
    for formula, trace, _ in cases(80):
        value = robustness(formula, trace)
        assert np.array_equal(robustness(fm.Not(formula), trace), -value)
        normal = fm.negation_normal_form(formula)
        assert np.array_equal(robustness(normal, trace), value)
        for node in fm.subformulas(normal):
            assert not isinstance(node, fm.Implies)
            assert not isinstance(node, fm.Not) or isinstance(node.operand, fm.Until)
        covered = 40 - fm.horizon(formula) - 3
        if covered > 0:  # a trace that begins three steps later gives the same values
            later = robustness(formula, {name: v[3:] for name, v in trace.items()})
            assert np.array_equal(later[:covered], value[3 : 3 + covered])


def raised(formula: fm.Formula, by: float) -> fm.Formula:
    """The formula, which holds no ``not``, with every margin larger."""
    if isinstance(formula, fm.Predicate):
        more = ex.Arithmetic("+", formula.margin, ex.Constant(by))
        return fm.Predicate(more, ">=", ex.Constant(0.0))
    parts = [raised(child, by) for child in fm.children(formula)]
    if isinstance(formula, fm.TEMPORAL):
        return type(formula)(formula.start, formula.end, *parts)
    return type(formula)(*parts)


def test_robustness_moves_with_the_margins_and_no_further_than_they_do():
    tried = 0
    for formula, trace, _ in cases(80):
        normal = fm.negation_normal_form(formula)
        if any(isinstance(node, fm.Not) for node in fm.subformulas(normal)):
            continue
        with np.errstate(invalid="ignore"):  # empty windows: inf - inf
            moved = robustness(raised(normal, 0.25), trace) - robustness(normal, trace)
        finite = moved[np.isfinite(moved)]
        assert np.all(finite >= -1e-12) and np.all(finite <= 0.25 + 1e-12)
        tried += len(finite) > 0
    assert tried > 30


def test_bad_signals_are_named():
    formula = parse("F[0,1] speed > 1 and x > 0")
    with pytest.raises(UserError, match="unknown signal 'speed'; known: x, y"):
        robustness(formula, RISING)
    with pytest.raises(UserError, match="expected arrays of one shape"):
        robustness(formula, {"speed": np.zeros(3), "x": np.zeros(4)})
    with pytest.raises(UserError, match="signal 'x': expected numbers, saw NaN.*'interval'"):
        robustness(formula, {"speed": np.zeros(2), "x": np.array([0.0, np.nan])})
    with pytest.raises(UserError, match="'interval' gives two values"):
        robustness(parse("x"), RISING, TailRule.INTERVAL)
    with pytest.raises(UserError, match="predicate 'sqrt\\(x\\) > 0': not a number"):
        robustness(parse("sqrt(x) > 0"), {"x": np.array([-1.0])})
