"""The grammar: what is read, how it is printed, and where an error points."""

from __future__ import annotations

import numpy as np
import pytest
from _stl_crosscheck import random_formula

from embodied_rl.stl import formula as fm
from embodied_rl.stl.expression import Arithmetic, Call, Constant, Negative, Signal
from embodied_rl.stl.formula import Always, And, Eventually, Implies, Not, Or, Predicate, Until
from embodied_rl.stl.parse import FormulaError, parse
from embodied_rl.stl.text import infix, rtamt, tree

X, Y, Z = (Predicate(Signal(name), ">=", Constant(0.0)) for name in "xyz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", X),
        ("x >= 0", X),
        ("G[0,3] x", Always(0, 3, X)),
        ("always[0:3] x", Always(0, 3, X)),
        ("alw[0,3] ev[1,2] x", Always(0, 3, Eventually(1, 2, X))),
        ("!x & y", And(Not(X), Y)),
        ("not x >= 0 and y >= 0", And(Not(X), Y)),
        ("~x | y & z", Or(Not(X), And(Y, Z))),
        ("x -> y implies z", Implies(X, Implies(Y, Z))),
        ("F[0,1] x and y", And(Eventually(0, 1, X), Y)),
        ("F[0,1] x U[2,3] y", Until(2, 3, Eventually(0, 1, X), Y)),
        ("x until[2,3] y or z", Or(Until(2, 3, X, Y), Z)),
        ("(x and y) and z", And(And(X, Y), Z)),
        ("x and y and z", And(And(X, Y), Z)),
        ("x and (y and z)", And(X, And(Y, Z))),
        ("true or x", Or(fm.Truth(True), X)),
        ("1 - x / 2 < -3",
         Predicate(Arithmetic("-", Constant(1.0), Arithmetic("/", Signal("x"), Constant(2.0))),
                   "<", Constant(-3.0))),
        ("-(x + 1) > 0",
         Predicate(Negative(Arithmetic("+", Signal("x"), Constant(1.0))), ">", Constant(0.0))),
        ("norm(x - 1, y) <= min(x, 2, abs(y))",
         Predicate(Call("norm", (Arithmetic("-", Signal("x"), Constant(1.0)), Signal("y"))), "<=",
                   Call("min", (Signal("x"), Constant(2.0), Call("abs", (Signal("y"),)))))),
        ("odom.pose.pose.position.x > 1e-3",
         Predicate(Signal("odom.pose.pose.position.x"), ">", Constant(0.001))),
    ],
)  # fmt: skip
def test_reads(text, expected):
    assert parse(text) == expected


def test_intervals_in_seconds_and_milliseconds_become_steps():
    assert parse("F[0.5,2 s] x", 0.1) == Eventually(5, 20, X)
    assert parse("F[500 ms:2s] x", 0.1) == Eventually(5, 20, X)
    assert parse("G[0,0.3] x", 0.1) == Always(0, 3, X)  # 0.3 / 0.1 is not 3 in floats


@pytest.mark.parametrize(
    ("text", "column", "expected", "seen"),
    [
        ("G x > 0", 3, "a bounded interval [a,b] after 'G'", "'x'"),
        ("G[0,inf] x", 5, "a finite bound in s or ms", "'inf'"),
        ("G[0,1e308] x", 5, "a bound of at most 1e+08 s", "1e+308 s"),
        ("F[2e9,3e9] x", 3, "a bound of at most 1e+08 s", "2e+09 s"),
        ("G[0,] x", 5, "a finite bound in s or ms", "']'"),
        ("G[-1,2] x", 3, "a bound such as 2.5 s", "'-'"),
        ("F[3,1] x", 5, "a second bound that is not below the first", "a reversed interval"),
        ("F[0,0.25] x", 5, "a multiple of dt = 0.1 s (0.2 or 0.3 s)", "0.25 s"),
        ("F[0,2 h] x", 7, "the unit s or ms", "'h'"),
        ("F[0,2 x", 7, "the unit s or ms", "'x'"),
        ("F[0 2] x", 5, "',' or ':' between the bounds", "'2'"),
        ("x + 1", 1, "a formula such as x > 0", "a number without a comparison"),
        ("y and x + 1", 7, "a formula such as x > 0", "a number without a comparison"),
        ("(x > 0", 7, "')' for the '(' in column 1", "the end"),
        ("x > 0)", 6, "an operator or the end", "')'"),
        ("x y", 3, "an operator or the end", "'y'"),
        ("x and", 6, "a signal, a number, '(', not, F[a,b] or G[a,b]", "the end"),
        ("", 1, "a signal, a number, '(', not, F[a,b] or G[a,b]", "the end"),
        ("1 < x < 2", 7, "'and' (write a < x and x < b)", "'<'"),
        ("x U[0,1] y U[0,1] z", 12, "parentheses around one of two untils in a row", "'U'"),
        ("foo(x) > 0", 1, "one of the functions abs, sqrt, min, max, norm", "'foo'"),
        ("abs(x, y) > 0", 1, "1 arguments of abs", "2"),
        ("min(x) > 0", 1, "at least 2 arguments of min", "1"),
        ("x == 1", 3, "one of >= > <= < (equality has no positive margin)", "'=='"),
        ("x @ 3", 3, "a name, a number or an operator", "'@'"),
        ("-(x > 0) > 1", 2, "a number or a signal", "a formula"),
        ("x > 1e999", 5, "a finite number", "'1e999'"),
        ("(" * 60 + "x" + ")" * 60, 51, "at most 200 operands and 50 levels of nesting",
         "one more"),
    ],
)  # fmt: skip
def test_errors_show_the_column_and_what_was_expected(text, column, expected, seen):
    with pytest.raises(FormulaError) as caught:
        parse(text, 0.1)
    assert caught.value.column == column
    first, line, caret = str(caught.value).split("\n")
    assert first == f"formula, column {column}: expected {expected}, saw {seen}"
    assert line == f"  {text}"
    assert caret.index("^") == column + 1


def test_very_long_formulas_are_refused_before_recursion_ends():
    with pytest.raises(FormulaError, match="at most 200 operands"):
        parse(" -> ".join(["x"] * 1000))
    assert fm.horizon(parse(" -> ".join(["x"] * 200))) == 0


def test_printed_formulas_read_back_to_the_same_tree():
    rng = np.random.default_rng(1)
    for _ in range(150):
        formula = random_formula(rng, 5)
        assert parse(infix(formula)) == formula
        assert parse(infix(formula, 0.25), 0.25) == formula
        assert parse(rtamt(formula)) == formula


def test_few_parentheses():
    text = "G[0,10] (tool.z > 0.01 and not norm(x - 1, y) < 0.3) -> F[0.5,2] A >= 0 U[0,1] x <= 1"
    assert infix(parse(text, 0.1), 0.1) == text
    assert infix(parse("((x > 0) and (y > 0)) or (-(x - (y - 1)) * 2 > 3)")) == (
        "x > 0 and y > 0 or -(x - (y - 1)) * 2 > 3"
    )


def test_tree_has_one_line_a_node():
    drawn = tree(parse("G[0,2] (x > 0 -> F[0,1] y > 0)"), note=lambda n: f"h={fm.horizon(n)}")
    assert drawn == (
        "G[0,2]  h=3\n└─ ->  h=1\n   ├─ x > 0  h=0\n   └─ F[0,1]  h=1\n      └─ y > 0  h=0"
    )


def test_horizon_adds_along_a_path_and_takes_the_longest():
    assert fm.horizon(parse("x > 0")) == 0
    assert fm.horizon(parse("F[1,5] G[2,7] x and F[0,9] y")) == 12
    assert fm.horizon(parse("F[0,4] x U[1,3] G[0,2] y")) == 7
    assert fm.depth(parse("F[1,5] G[2,7] not x and y")) == 4


def test_unbounded_nodes_are_refused_however_they_are_made():
    with pytest.raises(fm.UserError, match="0 <= a <= b in steps, saw \\[3,2\\]"):
        Eventually(3, 2, X)


def test_rtamt_export_refuses_what_rtamt_lacks():
    with pytest.raises(fm.UserError, match="no function 'min'.*'min\\(x, 1\\)'"):
        rtamt(parse("min(x, 1) > 0"))
    with pytest.raises(fm.UserError, match="no constant 'true'"):
        rtamt(parse("true or x"))
