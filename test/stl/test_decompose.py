"""Decomposition: the grounding identity, the table of rules, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from _stl_crosscheck import random_fragment_formula, random_trace

from embodied_rl.core.errors import UserError
from embodied_rl.stl import formula as fm
from embodied_rl.stl.decompose import (
    Alternative,
    DecompositionError,
    DecompositionTooLarge,
    Hold,
    Moment,
    Reach,
    decompose,
    describe,
    state_formulas,
    visit_counts,
)
from embodied_rl.stl.parse import parse
from embodied_rl.stl.robustness import robustness

A, B, C = (parse(name) for name in "ABC")


def grounded(alternatives, trace) -> float:
    values = {formula: robustness(formula, trace) for formula in state_formulas(alternatives)}
    margins = [part.margin(part.assignments(), values) for part in alternatives]
    return max(margin.max() for margin in margins if len(margin))


def test_grounding_identity():
    rng, tried = np.random.default_rng(5), 0
    while tried < 60:
        formula = random_fragment_formula(rng)
        if fm.is_state_formula(formula) or fm.horizon(formula) > 29:
            continue
        alternatives = decompose(formula)
        tried += 1
        for _ in range(5):
            trace = random_trace(rng, 30)
            assert grounded(alternatives, trace) == robustness(formula, trace)[0]


def test_the_papers_example():
    (found,) = decompose(parse("F[0,160] A and F[0,160] B and G[0,200] not C"))
    assert [(v.low, v.high) for v in found.variables] == [(0, 160), (0, 160)]
    assert found.reach == (Reach(A, Moment(0, (0,))), Reach(B, Moment(0, (1,))))
    assert found.hold == (Hold(parse("C < 0"), Moment(0), Moment(200)),)
    assert describe(found, 0.5)[-1] == "hold   C < 0   over [0, 100]"


@pytest.mark.parametrize(
    ("text", "alternatives", "variables"),
    [
        ("A and not (B or C)", 1, 0),
        ("F[0,9] (A and F[1,5] B)", 1, 2),
        ("F[0,9] F[1,5] A", 1, 1),
        ("G[0,9] G[1,5] A", 1, 0),
        ("G[0,9] (A and G[0,3] B and F[0,9] C)", 2, 1),
        ("F[0,9] (A or B)", 1, 1),
        ("F[0,9] (A or G[0,1] B)", 2, 1),
        ("F[0,9] A or F[0,9] B or C", 3, 0),
        ("F[3,3] A and G[4,4] F[2,2] B", 1, 0),
        ("not F[0,5] C", 1, 0),
        ("A -> F[0,3] B", 2, 0),
        ("true U[0,5] A", 1, 1),
    ],
)
def test_alternatives_and_time_variables(text, alternatives, variables):
    found = decompose(parse(text))
    assert len(found) == alternatives
    assert min(len(part.variables) for part in found) == variables


def test_until_asks_for_its_left_side_before_the_switch_only():
    (found,) = decompose(parse("(A and G[0,3] B) U[0,5] C"))
    assert found.reach == (Reach(C, Moment(0, (0,))),)
    assert found.hold == (
        Hold(A, Moment(0), Moment(-1, (0,)), 0),
        Hold(B, Moment(0), Moment(2, (0,)), 0),
    )
    values = {A: np.full(9, -1.0), B: np.full(9, -1.0), C: np.full(9, 2.0)}
    assert found.margin(np.array([[0], [1]]), values).tolist() == [2.0, -1.0]


def test_staying_has_a_guide_that_changes_nothing():
    (found,) = decompose(parse("F[0,5] G[1,3] A"))
    assert found.reach == (Reach(A, Moment(1, (0,)), guide=True),)
    assert found.hold == (Hold(A, Moment(1, (0,)), Moment(3, (0,))),)


def recurs(visited: set[int], length: int, widest: int) -> bool:
    return all(visited & set(range(t, t + widest)) for t in range(length + 1))


@pytest.mark.parametrize(("length", "widest"), [*itertools.product(range(1, 10), range(1, 5))])
def test_recurrence_is_exact_on_every_boolean_trace(length, widest):
    steps = length + widest
    formula = fm.Always(0, length, fm.Eventually(0, widest - 1, A)) if widest > 1 else None
    fewest, most = visit_counts(length, widest)
    needed = set()
    for bits in range(1 << min(steps, 11)):
        visited = {t for t in range(steps) if bits >> t & 1}
        if recurs(visited, length, widest):
            needed.add(
                next(
                    n
                    for n in range(steps + 1)
                    for plan in itertools.combinations(sorted(visited), n)
                    if recurs(set(plan), length, widest)
                )
            )
    if steps <= 11:
        assert min(needed) == fewest and max(needed) <= most
    if formula is not None:
        found = decompose(formula)
        assert [len(part.variables) for part in found] == list(range(fewest, most + 1))
        assert len(decompose(formula, fewest_visits=True)) == 1


def test_feasible_assignments_keep_bounds_and_gaps():
    for part in decompose(parse("G[0,7] F[1,3] A")):
        ranges = [range(12)] * len(part.variables)
        every = np.array(list(itertools.product(*ranges)))
        kept = every[part.feasible(every)]
        assert np.array_equal(kept, part.assignments())
        gaps = np.diff(kept, axis=1)
        assert ((gaps >= 1) & (gaps <= 3)).all()


@pytest.mark.parametrize(
    ("text", "subformula", "rule"),
    [
        ("F[0,9] A and not (A U[0,1] B)", "not (A >= 0 U[0,1] B >= 0)", "negated until"),
        ("G[0,3] (A U[0,1] B)", "G[0,3] (A >= 0 U[0,1] B >= 0)", "G over until has no rule"),
        ("G[0,3] (A or F[0,1] B)", "G[0,3] (A >= 0 or F[0,1] B >= 0)", "G over 'or'"),
        ("not F[0,3] (A U[0,1] B)", "G[0,3] not (A >= 0 U[0,1] B >= 0)", "a negated until"),
        ("G[0,3] F[0,2] G[0,2] A", "G[0,3] F[0,2] G[0,2] A >= 0", "a state formula below F"),
        ("(F[0,1] A) U[0,3] B", "F[0,1] A >= 0 U[0,3] B >= 0", "left side of until"),
    ],
)
def test_outside_the_fragment_is_refused_by_name(text, subformula, rule):
    with pytest.raises(DecompositionError) as caught:
        decompose(parse(text))
    assert str(caught.value).startswith(f"outside the fragment: '{subformula}': ")
    assert rule in caught.value.rule


def test_errors_show_seconds():
    with pytest.raises(DecompositionError, match=r"'G\[0,1.5\] \(A >= 0 U\[0,0.5\] B >= 0\)'"):
        decompose(parse("G[0,1.5] (A U[0,0.5] B)", 0.5), 0.5)


def test_too_large_is_refused():
    with pytest.raises(DecompositionTooLarge, match="more than 16 time variables"):
        decompose(parse(" and ".join(["F[0,9] A"] * 17)))
    with pytest.raises(DecompositionTooLarge, match="more than 64 alternatives"):
        decompose(parse(" and ".join(["(F[0,9] A or F[0,9] B)"] * 7)))
    with pytest.raises(DecompositionTooLarge, match="G\\[0,100\\].*more than 16 time variables"):
        decompose(parse("G[0,100] F[0,10] A"))
    assert len(decompose(parse("G[0,100] F[0,10] A"), fewest_visits=True)) == 1
    (many,) = decompose(parse(" and ".join(["F[0,200] A"] * 4)))
    with pytest.raises(UserError, match="at most 2000000 candidates"):
        many.assignments()


def test_state_formulas_are_listed_once():
    found = decompose(parse("F[0,3] A and F[1,2] A and G[0,5] (B or C)"))
    assert state_formulas(found) == [A, fm.Or(B, C)]
    assert isinstance(found[0], Alternative)
