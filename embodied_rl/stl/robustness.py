"""Quantitative semantics on whole traces: how far a formula is from changing its verdict.

The algorithms are written once over a :class:`Lattice` (max, min and a few array operations): for
one numpy trace here, for batches of torch traces and for a smooth variant in
:mod:`embodied_rl.stl.batched`. Windows take O(T log w) by doubling, until O(T).

A trace of T samples ends before windows of its last steps do. Three rules say what then:

``truncate``         windows are cut at the end; an empty one is -inf for F and U, +inf for G
``pad_pessimistic``  the operand of every temporal operator is -1e9 past the end, also below ``not``
``interval``         predicates past the end, or missing within, lie in bounds; gives [low, high]

Where the trace covers ``t + horizon``, all three agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

import numpy as np

from embodied_rl.core.errors import UserError
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl import text
from embodied_rl.stl.formula import Formula

PESSIMISTIC = -1e9


class TailRule(Enum):
    """What a window past the end of the trace is; see the module's docstring."""

    TRUNCATE = "truncate"
    PAD_PESSIMISTIC = "pad_pessimistic"
    INTERVAL = "interval"


class Lattice(Protocol):
    """Max and min over arrays ``(..., T)`` of one library."""

    functions: ex.Functions
    infinity: float
    idempotent: bool  # whether max(x, x) is x, so that overlapping blocks may be joined

    def maximum(self, a: Any, b: Any) -> Any: ...
    def minimum(self, a: Any, b: Any) -> Any: ...

    def extended(self, array: Any, count: int, value: float) -> Any:
        """``(..., T + count)``, the new cells at the end filled."""

    def full(self, like: Any, value: float) -> Any: ...

    def untimed_until(self, left: Any, right: Any) -> Any:
        """``u[t] = max(right[t], min(left[t], u[t + 1]))`` from the end back."""


class NumpyLattice:
    """One trace ``(T,)`` in float64."""

    functions = ex.NUMPY
    infinity = np.inf
    idempotent = True
    maximum = staticmethod(np.maximum)
    minimum = staticmethod(np.minimum)

    def extended(self, array: np.ndarray, count: int, value: float) -> np.ndarray:
        return np.concatenate([array, np.full(count, value)])

    def full(self, like: np.ndarray, value: float) -> np.ndarray:
        return np.full(like.shape, value)

    def untimed_until(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        found, value = [], -np.inf
        for hold, goal in zip(left[::-1].tolist(), right[::-1].tolist()):
            value = max(goal, min(hold, value))  # on plain floats: far faster than numpy's
            found.append(value)
        return np.array(found[::-1])


Pair = tuple[Any, Any]  # lower and upper robustness; one and the same array where they are equal


def robustness(
    formula: Formula, signals: Mapping[str, np.ndarray], tail: TailRule = TailRule.TRUNCATE
) -> np.ndarray:
    """Robustness ``(T,)`` at every step of one trace; ``signals`` are ``(T,)`` each.

    Raises:
        UserError: a signal is unknown, of another length or not a number; or the tail rule is
            ``interval``, which has two values a step: :func:`robustness_interval`.
    """
    return evaluate(formula, checked(formula, signals), NumpyLattice(), tail)[-1][0]


def robustness_interval(
    formula: Formula,
    signals: Mapping[str, np.ndarray],
    bounds: Mapping[str, ex.Interval] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds ``(T,), (T,)`` of the robustness over everything that the missing samples may be.

    ``signals`` are ``(T,)`` each, NaN where a sample is missing; ``bounds`` of a signal hold where
    it is missing and after the end, default: everything.

    Raises:
        UserError: a signal is unknown or of another length.
    """
    low, high = all_intervals(formula, signals, bounds)[-1]
    reach = fm.horizon(formula)
    return low[: len(low) - reach], high[: len(high) - reach]


def all_intervals(
    formula: Formula,
    signals: Mapping[str, np.ndarray],
    bounds: Mapping[str, ex.Interval] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """:func:`robustness_interval` of every node of ``program(formula)``, ``(T + horizon,)`` each.

    The steps past the end are those that windows reach: sound wherever the value of a step before
    the end depends on them, and not meant for more.
    """
    signals, lattice = _lengths(formula, signals), NumpyLattice()
    length, reach = _length(signals), fm.horizon(formula)
    atoms: dict[fm.Predicate, Pair] = {}
    for predicate in fm.predicates(formula):
        pair = predicate_interval(predicate, signals, bounds or {}, length)
        if reach:
            outside = ex.enclose(predicate.margin, bounds or {})
            pair = tuple(lattice.extended(v, reach, end) for v, end in zip(pair, outside))
        atoms[predicate] = pair
    return _walk(formula, atoms, np.zeros(length + reach), lattice, TailRule.TRUNCATE)


def predicate_interval(
    predicate: fm.Predicate,
    signals: Mapping[str, np.ndarray],
    bounds: Mapping[str, ex.Interval],
    length: int,
) -> Pair:
    """Margin ``(T,)`` where all its signals are known, bounds of it elsewhere."""
    names = sorted(ex.signal_names(predicate.margin))
    with np.errstate(all="ignore"):
        value = ex.evaluate(predicate.margin, signals, ex.NUMPY)
    low = np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), (length,)))
    missing = ~np.isfinite(low)
    for name in names:
        missing |= ~np.isfinite(signals[name])
    unknown = np.flatnonzero(missing)
    if not len(unknown):
        return low, low
    high = low.copy()
    for t in unknown:
        box = dict(bounds)
        box.update({n: (v, v) for n in names if np.isfinite(v := float(signals[n][t]))})
        low[t], high[t] = ex.enclose(predicate.margin, box)
    return low, high


def checked(formula: Formula, signals: Mapping[str, Any]) -> dict[str, Any]:
    """The formula's signals.

    Raises:
        UserError: one is unknown, differs in shape, or holds a NaN.
    """
    found = _lengths(formula, signals)
    for name, values in found.items():
        if bool((values != values).any()):
            raise UserError(
                f"signal '{name}': expected numbers, saw NaN; missing samples need the tail rule "
                f"'{TailRule.INTERVAL.value}'"
            )
    return found


def _lengths(formula: Formula, signals: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in fm.signal_names(formula):
        if name not in signals:
            raise ex.unknown_signal(name, signals)
        found[name] = signals[name]
    if not found:  # a formula of constants still has a value at every step
        found = dict(signals)
    shapes = {name: tuple(values.shape) for name, values in found.items()}
    if len(set(shapes.values())) != 1:
        raise UserError(f"signals: expected arrays of one shape, saw {shapes or 'none'}")
    return found


def _length(signals: Mapping[str, Any]) -> int:
    return int(next(iter(signals.values())).shape[-1])


def evaluate(
    formula: Formula, signals: Mapping[str, Any], lattice: Lattice, tail: TailRule
) -> list[Pair]:
    """Robustness of every node of ``program(formula)`` on complete signals ``(..., T)``.

    Raises:
        UserError: a predicate is not a number somewhere; or the rule is ``interval``.
    """
    if tail is TailRule.INTERVAL:
        raise UserError("tail rule 'interval' gives two values a step: use robustness_interval")
    like = next(iter(signals.values()))
    atoms: dict[fm.Predicate, Pair] = {}
    for predicate in fm.predicates(formula):
        with np.errstate(all="ignore"):
            value = ex.evaluate(predicate.margin, signals, lattice.functions)
        value = lattice.full(like, 0.0) + value
        if bool((value != value).any()):
            raise UserError(f"predicate '{text.infix(predicate)}': not a number on this trace")
        atoms[predicate] = (value, value)
    return _walk(formula, atoms, like, lattice, tail)


def _walk(
    formula: Formula,
    atoms: Mapping[fm.Predicate, Pair],
    like: Any,
    lattice: Lattice,
    tail: TailRule,
) -> list[Pair]:
    """Bottom-up over the program. Every operator but ``not`` is monotone: it acts on the lower and
    on the upper robustness alike, and once only where they are the same."""
    program, found = fm.program(formula), []
    for node, places in zip(program.nodes, program.children):
        if isinstance(node, fm.Predicate):
            found.append(atoms[node])
        elif isinstance(node, fm.Truth):
            value = lattice.full(like, lattice.infinity if node.value else -lattice.infinity)
            found.append((value, value))
        elif isinstance(node, fm.Not):
            low, high = found[places[0]]
            found.append(_paired(lambda value: -value, [(high, low)]))
        elif isinstance(node, fm.Implies):
            (low, high), right = found[places[0]], found[places[1]]
            negated = _paired(lambda value: -value, [(high, low)])
            found.append(_paired(lattice.maximum, [negated, right]))
        else:
            found.append(_paired(_operation(node, lattice, tail), [found[i] for i in places]))
    return found


def _paired(operation: Callable[..., Any], operands: list[Pair]) -> Pair:
    lows, highs = zip(*operands)
    low = operation(*lows)
    exact = all(a is b for a, b in operands)
    return (low, low) if exact else (low, operation(*highs))


def _operation(node: Formula, lattice: Lattice, tail: TailRule) -> Callable[..., Any]:
    if isinstance(node, fm.And):
        return lattice.minimum
    if isinstance(node, fm.Or):
        return lattice.maximum
    if isinstance(node, fm.Until):
        return lambda left, right: until(left, right, node.start, node.end, lattice, tail)
    assert isinstance(node, (fm.Eventually, fm.Always))
    highest = isinstance(node, fm.Eventually)
    return lambda operand: window(operand, node.start, node.end, highest, lattice, tail)


def window(
    array: Any, start: int, end: int, highest: bool, lattice: Lattice, tail: TailRule
) -> Any:
    """Maximum (``highest``) or minimum over ``[t + start, t + end]`` at every t, ``(..., T)``.

    By doubling: a block of 2k cells is two blocks of k, and two blocks that overlap make any
    width. Where joining a cell twice would count it twice, the blocks are laid end to end.
    """
    join = lattice.maximum if highest else lattice.minimum
    neutral = -lattice.infinity if highest else lattice.infinity
    fill = PESSIMISTIC if tail is TailRule.PAD_PESSIMISTIC else neutral
    length, width = array.shape[-1], end - start + 1
    block, size = lattice.extended(array, end, fill)[..., start:], 1
    found, covered = None, 0
    while True:
        if width & size and not lattice.idempotent:
            part = block[..., covered : covered + length]
            found, covered = (part if found is None else join(found, part)), covered + size
        if 2 * size > width:
            break
        block, size = join(block[..., :-size], block[..., size:]), 2 * size
    if not lattice.idempotent:
        return found
    rest = width - size
    head = block[..., :length]
    return join(head, block[..., rest : rest + length]) if rest else head


def until(left: Any, right: Any, start: int, end: int, lattice: Lattice, tail: TailRule) -> Any:
    """Strict ``left U[start,end] right`` at every t, ``(..., T)``.

    With ``start = 0`` it is the minimum of "right occurs within the window" and of the untimed
    until; a later start asks for ``left`` until then as well.
    """
    length, padded = left.shape[-1], tail is TailRule.PAD_PESSIMISTIC
    left = lattice.extended(left, end, PESSIMISTIC if padded else lattice.infinity)
    right = lattice.extended(right, end, PESSIMISTIC if padded else -lattice.infinity)
    occurs = window(right, start, end, True, lattice, TailRule.TRUNCATE)[..., :length]
    untimed = lattice.untimed_until(left, right)[..., start : start + length]
    found = lattice.minimum(occurs, untimed)
    if start == 0:
        return found
    before = window(left, 0, start - 1, False, lattice, TailRule.TRUNCATE)[..., :length]
    return lattice.minimum(before, found)
