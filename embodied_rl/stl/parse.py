"""From text to a formula: tokens, then one precedence climb over arithmetic and logic.

::

    always / G / alw     eventually / F / ev     until / U     with [a,b] or [a:b]
    not / ! / ~     and / &     or / |     -> / implies     true     false
    >= > <= <     + - * /     abs sqrt min max norm     x     odom.pose.pose.position.x

Bounds are seconds (``5``, ``5 s``) or milliseconds (``250 ms``) and whole multiples of dt. From
tight to loose: arithmetic, comparison, ``not F G``, ``U`` (no chains), ``and``, ``or``, ``->`` (to
the right). A name that stands alone is its own margin: ``A`` means ``A >= 0``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from embodied_rl.core.errors import UserError
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl.expression import ARITY, Expression
from embodied_rl.stl.formula import Formula

_MULTIPLE_TOLERANCE = 1e-6  # of a step, by which a bound may miss a multiple of dt
# What follows walks formulas recursively; both limits keep that far from Python's own.
_DEEPEST = 50  # brackets and prefixes within each other
_FARTHEST = 1_000_000_000  # steps that a bound may be away
_LONGEST = 200  # signals, numbers, brackets and prefixes in all

_TOKEN = re.compile(
    r"""\s*(?: (?P<number> (?:\d+\.?\d*|\.\d+) (?:[eE][+-]?\d+)? )
    | (?P<name> [A-Za-z_]\w*(?:\.[A-Za-z_]\w*)* )
    | (?P<symbol> ->|>=|<=|==|!=|&&|\|\||[-+*/()\[\],:<>&|!~=] )
    | (?P<end> $ ) | (?P<other> . ) )""",
    re.VERBOSE,
)
_WORDS = {
    "always": "G", "alw": "G", "G": "G", "eventually": "F", "ev": "F", "F": "F",
    "until": "U", "U": "U", "and": "and", "&": "and", "&&": "and", "or": "or", "|": "or",
    "||": "or", "not": "not", "!": "not", "~": "not", "->": "->", "implies": "->",
    "true": "true", "false": "false",
}  # fmt: skip
_COMPARISONS = (">=", ">", "<=", "<")
# binary operator -> how tightly it binds; the prefixes stand between until and the comparisons
_LEVEL = {
    "->": 1, "or": 2, "and": 3, "U": 4, **dict.fromkeys(_COMPARISONS, 6),
    "+": 7, "-": 7, "*": 8, "/": 8,
}  # fmt: skip
_PREFIX, _MINUS = 5, 9
_UNITS_S = {"s": 1.0, "ms": 1e-3}


class FormulaError(UserError):
    """A text that is not a formula. ``column`` counts from 1."""

    def __init__(self, text: str, column: int, expected: str, seen: str):
        self.column, self.expected = column, expected
        line = re.sub(r"\s", " ", text)
        super().__init__(
            f"formula, column {column}: expected {expected}, saw {seen}\n"
            f"  {line}\n  {' ' * (column - 1)}^"
        )


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, end, or the operator itself
    text: str
    column: int

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else f"'{self.text}'"


def parse(text: str, dt_s: float = 1.0) -> Formula:
    """The formula with its intervals in steps of ``dt_s`` seconds.

    Raises:
        FormulaError: not a formula, an interval that is unbounded, reversed or no multiple of dt;
            shows the column and what was expected there.
    """
    if not 0 < dt_s < float("inf"):
        raise UserError(f"dt: expected a step above 0 s, saw {dt_s}")
    return _Parser(text, dt_s).whole()


def _tokens(text: str) -> list[_Token]:
    found, place = [], 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, place)
        assert match is not None and match.lastgroup is not None  # `other` takes what is left
        place, kind, word = match.end(), match.lastgroup, match[match.lastgroup]
        column = match.start(kind) + 1
        if kind == "other":
            raise FormulaError(text, column, "a name, a number or an operator", f"'{word}'")
        if kind in ("name", "symbol"):
            kind = _WORDS.get(word, word if kind == "symbol" else "name")
        found.append(_Token(kind, word, column))
    return found


class _Parser:
    """Recursive precedence climb; every part is an expression or a formula, checked on use."""

    def __init__(self, text: str, dt_s: float):
        self._text, self._dt_s = text, dt_s
        self._list = _tokens(text)
        self._place = self._nesting = self._operands = 0

    # ---------------------------------------------------------------- tokens
    @property
    def _next(self) -> _Token:
        return self._list[self._place]

    def _take(self) -> _Token:
        token = self._next
        self._place += 1
        return token

    def _expect(self, kind: str, after: str) -> _Token:
        if self._next.kind != kind:
            self._fail(self._next, f"'{kind}' {after}")
        return self._take()

    def _fail(self, token: _Token, expected: str, seen: str = "") -> NoReturn:
        raise FormulaError(self._text, token.column, expected, seen or token.shown)

    # ---------------------------------------------------------------- grammar
    def whole(self) -> Formula:
        first = self._next
        node = self._climb(0)
        if self._next.kind != "end":
            self._fail(self._next, "an operator or the end")
        return self._formula(node, first)

    def _climb(self, level: int) -> Expression | Formula:
        first = self._next
        node = self._operand()
        while _LEVEL.get(self._next.kind, -1) >= max(level, 1):
            operator = self._take()
            node = self._binary(operator, node, first)
        if self._next.kind in ("==", "!=", "="):
            self._fail(self._next, "one of >= > <= < (equality has no positive margin)")
        return node

    def _binary(
        self, operator: _Token, left: Expression | Formula, first: _Token
    ) -> Expression | Formula:
        kind = operator.kind
        interval = self._interval(operator) if kind == "U" else (0, 0)
        second = self._next
        right = self._climb(_LEVEL[kind] + (kind != "->"))
        if kind in "+-*/":
            sides = self._expression(left, first), self._expression(right, second)
            return ex.Arithmetic(kind, *sides)
        if kind in _COMPARISONS:
            if self._next.kind in _COMPARISONS:
                self._fail(self._next, "'and' (write a < x and x < b)")
            sides = self._expression(left, first), self._expression(right, second)
            return fm.Predicate(sides[0], kind, sides[1])
        parts = self._formula(left, first), self._formula(right, second)
        if kind == "U":
            if self._next.kind == "U":
                self._fail(self._next, "parentheses around one of two untils in a row")
            return fm.Until(*interval, *parts)
        return {"->": fm.Implies, "or": fm.Or, "and": fm.And}[kind](*parts)

    def _operand(self) -> Expression | Formula:
        self._nesting += 1
        self._operands += 1
        token = self._take()
        if self._nesting > _DEEPEST or self._operands > _LONGEST:
            limits = f"at most {_LONGEST} operands and {_DEEPEST} levels of nesting"
            self._fail(token, limits, "one more")
        node = self._operand_of(token)
        self._nesting -= 1
        return node

    def _operand_of(self, token: _Token) -> Expression | Formula:
        if token.kind == "number":
            return ex.Constant(self._number(token))
        if token.kind in ("true", "false"):
            return fm.Truth(token.kind == "true")
        if token.kind == "name":
            return self._call(token) if self._next.kind == "(" else ex.Signal(token.text)
        if token.kind == "(":
            node = self._climb(0)
            self._expect(")", f"for the '(' in column {token.column}")
            return node
        if token.kind == "-":
            first = self._next
            inner = self._expression(self._climb(_MINUS), first)
            if isinstance(inner, ex.Constant):
                return ex.Constant(-inner.value)
            return ex.Negative(inner)
        if token.kind not in ("not", "F", "G"):
            self._fail(token, "a signal, a number, '(', not, F[a,b] or G[a,b]")
        interval = self._interval(token) if token.kind != "not" else (0, 0)
        first = self._next
        inside = self._formula(self._climb(_PREFIX), first)
        if token.kind == "not":
            return fm.Not(inside)
        return (fm.Eventually if token.kind == "F" else fm.Always)(*interval, inside)

    def _call(self, token: _Token) -> Expression:
        if token.text not in ARITY:
            self._fail(token, f"one of the functions {', '.join(ARITY)}")
        self._expect("(", "")
        arguments: list[Expression] = []
        while True:
            first = self._next
            arguments.append(self._expression(self._climb(0), first))
            if self._next.kind != ",":
                break
            self._take()
        self._expect(")", f"or ',' in {token.text}(...)")
        fewest, most = ARITY[token.text]
        if len(arguments) < fewest or (most is not None and len(arguments) > most):
            wanted = str(fewest) if fewest == most else f"at least {fewest}"
            self._fail(token, f"{wanted} arguments of {token.text}", str(len(arguments)))
        return ex.Call(token.text, tuple(arguments))

    # ---------------------------------------------------------------- types
    def _formula(self, node: Expression | Formula, token: _Token) -> Formula:
        if isinstance(node, ex.Signal):
            return fm.Predicate(node, ">=", ex.Constant(0.0))
        if isinstance(node, Expression):
            self._fail(token, "a formula such as x > 0", "a number without a comparison")
        return node

    def _expression(self, node: Expression | Formula, token: _Token) -> Expression:
        if not isinstance(node, Expression):
            self._fail(token, "a number or a signal", "a formula")
        return node

    # ---------------------------------------------------------------- intervals
    def _interval(self, operator: _Token) -> tuple[int, int]:
        opening = self._next
        if opening.kind != "[":
            self._fail(opening, f"a bounded interval [a,b] after '{operator.text}'")
        self._take()
        start, _ = self._bound()
        if self._next.kind not in (",", ":"):
            self._fail(self._next, "',' or ':' between the bounds")
        self._take()
        end, written = self._bound()
        self._expect("]", "after the interval")
        if start > end:
            self._fail(written, "a second bound that is not below the first", "a reversed interval")
        return start, end

    def _bound(self) -> tuple[int, _Token]:
        token = self._take()
        if token.kind != "number":
            unbounded = token.text in ("inf", "infinity", "oo", "]", "")
            self._fail(token, "a finite bound in s or ms" if unbounded else "a bound such as 2.5 s")
        seconds = self._number(token)
        if self._next.kind == "name":
            unit = self._take()
            if unit.text not in _UNITS_S:
                self._fail(unit, "the unit s or ms")
            seconds *= _UNITS_S[unit.text]
        steps = seconds / self._dt_s
        if not steps <= _FARTHEST:
            self._fail(token, f"a bound of at most {_FARTHEST * self._dt_s:g} s", f"{seconds:g} s")
        if abs(steps - round(steps)) > _MULTIPLE_TOLERANCE:
            near = f"{int(steps) * self._dt_s:.6g} or {(int(steps) + 1) * self._dt_s:.6g} s"
            self._fail(token, f"a multiple of dt = {self._dt_s:g} s ({near})", f"{seconds:g} s")
        return round(steps), token

    def _number(self, token: _Token) -> float:
        value = float(token.text)
        if value == float("inf"):
            self._fail(token, "a finite number")
        return value
