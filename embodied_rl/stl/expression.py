"""Arithmetic over named signals: what stands on the two sides of a predicate.

One expression is evaluated in four ways that agree: on arrays (numpy or torch, by
:class:`Functions`), on one row of floats (:func:`compile_scalar`, for the online monitor), and on
intervals (:func:`enclose`, where a signal is missing and only its declared bounds are known).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from embodied_rl.core.errors import UserError

Interval = tuple[float, float]
EVERYTHING: Interval = (-math.inf, math.inf)


@dataclass(frozen=True)
class Constant:
    value: float


@dataclass(frozen=True)
class Signal:
    """A named scalar of :mod:`embodied_rl.core.signals`, or of whoever calls the evaluation."""

    name: str


@dataclass(frozen=True)
class Negative:
    operand: Expression


@dataclass(frozen=True)
class Arithmetic:
    """``left operator right`` with operator ``+ - * /``."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Call:
    """A function of :data:`ARITY`."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Constant | Signal | Negative | Arithmetic | Call

# function -> fewest and most arguments (None: any number)
ARITY: dict[str, tuple[int, int | None]] = {
    "abs": (1, 1),
    "sqrt": (1, 1),
    "min": (2, None),
    "max": (2, None),
    "norm": (1, None),
}


@dataclass(frozen=True)
class Functions:
    """The functions of an array library that expressions need."""

    absolute: Callable[[Any], Any]
    sqrt: Callable[[Any], Any]
    minimum: Callable[[Any, Any], Any]
    maximum: Callable[[Any, Any], Any]
    norm: Callable[[list[Any]], Any]


def _norm(parts: Sequence[Any]) -> Any:
    """Euclidean length; squares are added from left to right in every numpy and scalar path."""
    return np.sqrt(reduce(lambda total, part: total + part, [part * part for part in parts]))


NUMPY = Functions(np.abs, np.sqrt, np.minimum, np.maximum, _norm)


def children(expression: Expression) -> tuple[Expression, ...]:
    if isinstance(expression, Negative):
        return (expression.operand,)
    if isinstance(expression, Arithmetic):
        return (expression.left, expression.right)
    return expression.arguments if isinstance(expression, Call) else ()


def signal_names(expression: Expression) -> set[str]:
    if isinstance(expression, Signal):
        return {expression.name}
    return set().union(*(signal_names(child) for child in children(expression)))


def substitute(expression: Expression, values: Mapping[str, Expression]) -> Expression:
    """The expression with the named signals replaced."""
    if isinstance(expression, Signal):
        return values.get(expression.name, expression)
    parts = [substitute(child, values) for child in children(expression)]
    if isinstance(expression, Negative):
        return Negative(*parts)
    if isinstance(expression, Arithmetic):
        return Arithmetic(expression.operator, *parts)
    return Call(expression.function, tuple(parts)) if isinstance(expression, Call) else expression


def evaluate(expression: Expression, signals: Mapping[str, Any], functions: Functions) -> Any:
    """The value on arrays of any one shape.

    Raises:
        UserError: a signal is not among ``signals``.
    """
    if isinstance(expression, Constant):
        return expression.value
    if isinstance(expression, Signal):
        if expression.name not in signals:
            raise unknown_signal(expression.name, signals)
        return signals[expression.name]
    values = [evaluate(child, signals, functions) for child in children(expression)]
    if isinstance(expression, Negative):
        return -values[0]
    if isinstance(expression, Arithmetic):
        return _ARITHMETIC[expression.operator](*values)
    if expression.function == "abs":
        return functions.absolute(values[0])
    if expression.function == "sqrt":
        return functions.sqrt(values[0])
    if expression.function == "norm":
        return functions.norm(values)
    return reduce(functions.minimum if expression.function == "min" else functions.maximum, values)


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
}


def unknown_signal(name: str, known: Mapping[str, Any]) -> UserError:
    return UserError(f"formula: unknown signal '{name}'; known: {', '.join(sorted(known))}")


Scalar = Callable[[Sequence[float]], float]


def compile_scalar(expression: Expression, places: Mapping[str, int]) -> Scalar:
    """A function of one row of floats, signal ``s`` at ``row[places[s]]``.

    A value outside a function's domain (the root of a negative number, a division by zero) is NaN.
    """
    if isinstance(expression, Constant):
        value = expression.value
        return lambda row: value
    if isinstance(expression, Signal):
        if expression.name not in places:
            raise unknown_signal(expression.name, places)
        place = places[expression.name]
        return lambda row: row[place]
    parts = [compile_scalar(child, places) for child in children(expression)]
    if isinstance(expression, Negative):
        (operand,) = parts
        return lambda row: -operand(row)
    if isinstance(expression, Arithmetic):
        return _scalar_arithmetic(expression.operator, *parts)
    return _scalar_call(expression.function, parts)


def _scalar_arithmetic(operator: str, left: Scalar, right: Scalar) -> Scalar:
    if operator == "+":
        return lambda row: left(row) + right(row)
    if operator == "-":
        return lambda row: left(row) - right(row)
    if operator == "*":
        return lambda row: left(row) * right(row)

    def quotient(row: Sequence[float]) -> float:
        divisor = right(row)
        return left(row) / divisor if divisor else math.nan

    return quotient


def _scalar_call(function: str, parts: list[Scalar]) -> Scalar:
    if function == "abs":
        return lambda row: abs(parts[0](row))
    if function in ("min", "max"):
        choose = min if function == "min" else max
        return lambda row: choose([part(row) for part in parts])

    def root(row: Sequence[float]) -> float:
        square = parts[0](row)
        return math.sqrt(square) if square >= 0 else math.nan

    def length(row: Sequence[float]) -> float:
        values = [part(row) for part in parts]
        return math.sqrt(sum([value * value for value in values]))

    return root if function == "sqrt" else length


def enclose(expression: Expression, box: Mapping[str, Interval]) -> Interval:
    """Bounds of the value when every signal lies in its interval, by interval arithmetic.

    They hold for all values in the box; a signal that occurs twice may make them wider than need
    be. Where a function is not defined on the whole interval, nothing is known: ``EVERYTHING``.
    """
    if isinstance(expression, Constant):
        return expression.value, expression.value
    if isinstance(expression, Signal):
        return box.get(expression.name, EVERYTHING)
    parts = [enclose(child, box) for child in children(expression)]
    if isinstance(expression, Negative):
        return -parts[0][1], -parts[0][0]
    if isinstance(expression, Arithmetic):
        return _enclose_arithmetic(expression.operator, *parts)
    if expression.function == "abs":
        return _enclose_abs(parts[0])
    if expression.function == "sqrt":
        low, high = parts[0]
        return (math.sqrt(low), math.sqrt(high)) if low >= 0 else EVERYTHING
    if expression.function == "norm":
        sides = [_enclose_abs(part) for part in parts]
        low, high = (math.sqrt(sum([side[end] * side[end] for side in sides])) for end in (0, 1))
        return low, high
    choose = min if expression.function == "min" else max
    return choose(low for low, _ in parts), choose(high for _, high in parts)


def _enclose_abs(part: Interval) -> Interval:
    low, high = part
    if low >= 0 or high <= 0:
        return min(abs(low), abs(high)), max(abs(low), abs(high))
    return 0.0, max(-low, high)


def _enclose_arithmetic(operator: str, left: Interval, right: Interval) -> Interval:
    if operator == "+":
        return left[0] + right[0], left[1] + right[1]
    if operator == "-":
        return left[0] - right[1], left[1] - right[0]
    if operator == "/":
        if right[0] <= 0 <= right[1]:
            return EVERYTHING
        right = (1 / right[1], 1 / right[0])
    # 0 * inf counts as 0: the infinite end is never reached
    products = [x * y if x and y else 0.0 for x in left for y in right]
    return min(products), max(products)
