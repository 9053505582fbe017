"""Bounded signal temporal logic in discrete time: the formulas, their horizon and normal form.

::

    f ::= true | false | h >= 0 | not f | f and f | f or f | f -> f
        | F[a,b] f | G[a,b] f | f U[a,b] f              0 <= a <= b, whole steps of dt

Until is strict: the left side must hold before the step at which the right side does, not at it.
The inclusive variant needs no operator of its own: :func:`inclusive`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from embodied_rl.core.errors import UserError
from embodied_rl.stl import expression as ex
from embodied_rl.stl.expression import Expression


@dataclass(frozen=True)
class Truth:
    """``true`` (robustness +inf) or ``false`` (-inf)."""

    value: bool


@dataclass(frozen=True)
class Predicate:
    """``left relation right`` with relation ``>= > <= <``.

    Its robustness is the margin ``left - right`` (or ``right - left``), in the signals' unit;
    strict and non-strict relations have the same.
    """

    left: Expression
    relation: str
    right: Expression

    @property
    def greater(self) -> bool:
        return self.relation in (">=", ">")

    @property
    def margin(self) -> Expression:
        if self.right == ex.Constant(0.0) and self.greater:
            return self.left
        sides = (self.left, self.right) if self.greater else (self.right, self.left)
        return ex.Arithmetic("-", *sides)


@dataclass(frozen=True)
class Not:
    operand: Formula


@dataclass(frozen=True)
class And:
    left: Formula
    right: Formula


@dataclass(frozen=True)
class Or:
    left: Formula
    right: Formula


@dataclass(frozen=True)
class Implies:
    left: Formula
    right: Formula


@dataclass(frozen=True)
class _Timed:
    """Holds the interval of a temporal operator, in steps, both ends included."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise UserError(
                f"{type(self).__name__.lower()}: expected an interval 0 <= a <= b in steps, "
                f"saw [{self.start},{self.end}]"
            )


@dataclass(frozen=True)
class Eventually(_Timed):
    operand: Formula


@dataclass(frozen=True)
class Always(_Timed):
    operand: Formula


@dataclass(frozen=True)
class Until(_Timed):
    """At some step of ``[t + start, t + end]`` ``right`` holds, and ``left`` from t to before."""

    left: Formula
    right: Formula


Formula = Truth | Predicate | Not | And | Or | Implies | Eventually | Always | Until
TEMPORAL = (Eventually, Always, Until)
_DUAL = {">=": "<", ">": "<=", "<=": ">", "<": ">="}


def children(formula: Formula) -> tuple[Formula, ...]:
    if isinstance(formula, (Not, Eventually, Always)):
        return (formula.operand,)
    if isinstance(formula, (And, Or, Implies, Until)):
        return (formula.left, formula.right)
    return ()


def subformulas(formula: Formula) -> Iterator[Formula]:
    """The formula's nodes, children before parents; equal ones come as often as they occur."""
    for child in children(formula):
        yield from subformulas(child)
    yield formula


def predicates(formula: Formula) -> list[Predicate]:
    """The different predicates, in order of appearance."""
    return list(dict.fromkeys(n for n in subformulas(formula) if isinstance(n, Predicate)))


def signal_names(formula: Formula) -> list[str]:
    """The signals that the formula reads, sorted."""
    names = [ex.signal_names(predicate.margin) for predicate in predicates(formula)]
    return sorted(set().union(*names))


def horizon(formula: Formula) -> int:
    """Steps after t that the robustness at t depends on; at t + horizon it is decided."""
    below = max((horizon(child) for child in children(formula)), default=0)
    return below + formula.end if isinstance(formula, TEMPORAL) else below


@dataclass(frozen=True)
class Program:
    """The different sub-formulas, children before parents, the whole formula last.

    ``children[i]`` are the places of the children of ``nodes[i]``. Evaluations walk this list, so
    that what occurs twice is computed once.
    """

    nodes: tuple[Formula, ...]
    children: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=256)
def program(formula: Formula) -> Program:
    places = {node: i for i, node in enumerate(dict.fromkeys(subformulas(formula)))}
    below = [tuple(places[child] for child in children(node)) for node in places]
    return Program(tuple(places), tuple(below))


def is_state_formula(formula: Formula) -> bool:
    """Whether no temporal operator occurs, so that one step's signals decide it."""
    return not any(isinstance(node, TEMPORAL) for node in subformulas(formula))


def depth(formula: Formula) -> int:
    """Operators on the longest way down to a predicate, which itself has depth 0."""
    return max((1 + depth(child) for child in children(formula)), default=0)


def inclusive(formula: Formula) -> Formula:
    """The formula with every until read as inclusive: the left side must hold at the step of the
    right one too. ``f U g`` inclusive is ``f U (f and g)`` strict, at every step and robustness."""
    parts = [inclusive(child) for child in children(formula)]
    if isinstance(formula, Until):
        left, right = parts
        return Until(formula.start, formula.end, left, And(left, right))
    return rebuilt(formula, parts)


def negation_normal_form(formula: Formula) -> Formula:
    """The same robustness everywhere, with ``->`` expanded and ``not`` pushed into the predicates.

    A negated until has no dual among these operators and stays as ``not (f U g)``.
    """
    return _nnf(formula, negated=False)


def _nnf(formula: Formula, negated: bool) -> Formula:
    if isinstance(formula, Not):
        return _nnf(formula.operand, not negated)
    if isinstance(formula, Truth):
        return Truth(formula.value != negated)
    if isinstance(formula, Predicate):
        if not negated:
            return formula
        return Predicate(formula.left, _DUAL[formula.relation], formula.right)
    if isinstance(formula, Implies):
        parts = [_nnf(formula.left, not negated), _nnf(formula.right, negated)]
        return And(*parts) if negated else Or(*parts)
    if isinstance(formula, Until):
        left, right = _nnf(formula.left, False), _nnf(formula.right, False)
        until = Until(formula.start, formula.end, left, right)
        return Not(until) if negated else until
    if isinstance(formula, (And, Or)):
        parts = [_nnf(formula.left, negated), _nnf(formula.right, negated)]
        return And(*parts) if isinstance(formula, And) != negated else Or(*parts)
    kind = Eventually if isinstance(formula, Eventually) != negated else Always
    return kind(formula.start, formula.end, _nnf(formula.operand, negated))


def rebuilt(formula: Formula, parts: list[Formula]) -> Formula:
    """The same operator over other children."""
    if isinstance(formula, TEMPORAL):
        return type(formula)(formula.start, formula.end, *parts)
    return type(formula)(*parts) if parts else formula
