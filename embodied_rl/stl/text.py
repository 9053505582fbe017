"""From a formula back to text: infix with few parentheses, a tree, and rtamt's language."""

from __future__ import annotations

from collections.abc import Callable

from embodied_rl.core.errors import UserError
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl.expression import Expression
from embodied_rl.stl.formula import Formula

# How tightly each operator binds; the levels of embodied_rl.stl.parse.
_LEVEL: dict[type, int] = {
    fm.Implies: 1, fm.Or: 2, fm.And: 3, fm.Until: 4, fm.Not: 5, fm.Eventually: 5, fm.Always: 5,
    fm.Predicate: 6, fm.Truth: 10,
}  # fmt: skip
_ARITHMETIC_LEVEL = {"+": 7, "-": 7, "*": 8, "/": 8}
_NEGATIVE_LEVEL, _ATOM_LEVEL = 9, 10
_SYMBOL: dict[type, str] = {
    fm.Implies: "->", fm.Or: "or", fm.And: "and", fm.Until: "U", fm.Not: "not",
    fm.Eventually: "F", fm.Always: "G",
}  # fmt: skip


def infix(formula: Formula, dt_s: float = 1.0) -> str:
    """The formula with as few parentheses as ``parse(infix(f, dt), dt) == f`` allows."""
    if isinstance(formula, fm.Truth):
        return "true" if formula.value else "false"
    if isinstance(formula, fm.Predicate):
        left, right = infix_expression(formula.left), infix_expression(formula.right)
        return f"{left} {formula.relation} {right}"
    level, head = _LEVEL[type(formula)], label(formula, dt_s)
    if isinstance(formula, (fm.Not, fm.Eventually, fm.Always)):
        return f"{head} {_wrapped(formula.operand, level, dt_s)}"
    # `and`, `or` group to the left, `->` to the right, and until in neither way
    left_level = level + (not isinstance(formula, (fm.And, fm.Or)))
    right_level = level + (not isinstance(formula, fm.Implies))
    left = _wrapped(formula.left, left_level, dt_s)
    return f"{left} {head} {_wrapped(formula.right, right_level, dt_s)}"


def _wrapped(formula: Formula, level: int, dt_s: float) -> str:
    text = infix(formula, dt_s)
    return text if _LEVEL[type(formula)] >= level else f"({text})"


def label(formula: Formula, dt_s: float = 1.0) -> str:
    """The operator with its interval in seconds, or the predicate: one line of the tree."""
    if isinstance(formula, (fm.Truth, fm.Predicate)):
        return infix(formula)
    symbol = _SYMBOL[type(formula)]
    if isinstance(formula, fm.TEMPORAL):
        return f"{symbol}[{_seconds(formula.start, dt_s)},{_seconds(formula.end, dt_s)}]"
    return symbol


def _seconds(steps: int, dt_s: float) -> str:
    return f"{steps * dt_s:.12g}"


def infix_expression(expression: Expression) -> str:
    """The expression with as few parentheses as reading it back to the same tree allows."""
    if isinstance(expression, ex.Constant):
        return number(expression.value)
    if isinstance(expression, ex.Signal):
        return expression.name
    if isinstance(expression, ex.Call):
        arguments = ", ".join(infix_expression(part) for part in expression.arguments)
        return f"{expression.function}({arguments})"
    if isinstance(expression, ex.Negative):
        return f"-{_wrapped_expression(expression.operand, _ATOM_LEVEL)}"
    level = _ARITHMETIC_LEVEL[expression.operator]
    left = _wrapped_expression(expression.left, level)
    return f"{left} {expression.operator} {_wrapped_expression(expression.right, level + 1)}"


def _wrapped_expression(expression: Expression, level: int) -> str:
    own, negative = _ATOM_LEVEL, isinstance(expression, ex.Negative)
    if isinstance(expression, ex.Arithmetic):
        own = _ARITHMETIC_LEVEL[expression.operator]
    elif negative or (isinstance(expression, ex.Constant) and expression.value < 0):
        own = _NEGATIVE_LEVEL
    text = infix_expression(expression)
    return text if own >= level else f"({text})"


def number(value: float) -> str:
    """The shortest text that reads back to the same float."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else repr(value)


def tree(formula: Formula, dt_s: float = 1.0, note: Callable[[Formula], str] = lambda _: "") -> str:
    """One line a node, children below their operator; ``note`` adds to the end of a line."""
    lines: list[str] = []

    def draw(node: Formula, first: str, rest: str) -> None:
        remark = note(node)
        lines.append(f"{first}{label(node, dt_s)}{'  ' + remark if remark else ''}")
        parts = fm.children(node)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
            draw(part, rest + branch, rest + below)

    draw(formula, "", "")
    return "\n".join(lines)


def rtamt(formula: Formula) -> str:
    """The formula in the language of rtamt's discrete-time specifications, period 1, unit s.

    Every operand stands in parentheses, since rtamt's precedences differ. The text is also one of
    ours: ``parse(rtamt(f)) == f`` up to the spelling of ``norm``.

    Raises:
        UserError: rtamt has no such operator; names the sub-formula.
    """
    if isinstance(formula, fm.Truth):
        raise UserError(f"rtamt: no constant '{infix(formula)}' in its language")
    if isinstance(formula, fm.Predicate):
        return f"{_rtamt(formula.left)} {formula.relation} {_rtamt(formula.right)}"
    parts = [f"({rtamt(part)})" for part in fm.children(formula)]
    word = {fm.Until: "until", fm.Eventually: "eventually", fm.Always: "always"}.get(
        type(formula), _SYMBOL[type(formula)]
    )
    if isinstance(formula, fm.TEMPORAL):
        word += f"[{formula.start}:{formula.end}]"
    return f"{word} {parts[0]}" if len(parts) == 1 else f" {word} ".join(parts)


def _rtamt(expression: Expression) -> str:
    if isinstance(expression, ex.Constant):
        return f"({number(expression.value)})" if expression.value < 0 else number(expression.value)
    if isinstance(expression, ex.Signal):
        return expression.name
    parts = [_rtamt(part) for part in ex.children(expression)]
    if isinstance(expression, ex.Negative):
        return f"(0 - {parts[0]})"
    if isinstance(expression, ex.Arithmetic):
        return f"({parts[0]} {expression.operator} {parts[1]})"
    if expression.function == "norm":
        return f"sqrt({' + '.join(f'({part} * {part})' for part in parts)})"
    if expression.function in ("min", "max"):
        raise UserError(
            f"rtamt: no function '{expression.function}' in its language, needed by "
            f"'{infix_expression(expression)}'"
        )
    return f"{expression.function}({parts[0]})"
