"""Random formulas and traces, and rtamt as a second opinion: for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl import text
from embodied_rl.stl.formula import Formula

SIGNALS = ("x", "y")
BOUND = 3.0  # of every signal, either way


def random_formula(
    rng: np.random.Generator, depth: int, latest_start: int = 4, widest: int = 6
) -> Formula:
    """A formula over :data:`SIGNALS` of depth at most ``depth``, every operator equally likely."""
    kind = rng.integers(8) if depth else 0
    if kind == 0:
        return _random_predicate(rng)
    parts = [random_formula(rng, depth - 1, latest_start, widest) for _ in range(2)]
    start = int(rng.integers(latest_start + 1))
    end = start + int(rng.integers(widest + 1))
    return (
        lambda: fm.Not(parts[0]),
        lambda: fm.And(*parts),
        lambda: fm.Or(*parts),
        lambda: fm.Implies(*parts),
        lambda: fm.Eventually(start, end, parts[0]),
        lambda: fm.Always(start, end, parts[0]),
        lambda: fm.Until(start, end, *parts),
    )[kind - 1]()


def _random_predicate(rng: np.random.Generator) -> fm.Predicate:
    level = ex.Constant(round(float(rng.uniform(-1.0, 1.0)), 2))
    name = str(rng.choice(SIGNALS))
    side: ex.Expression = ex.Signal(name)
    if rng.random() < 0.2:
        side = ex.Arithmetic(str(rng.choice(["+", "-", "*"])), side, ex.Signal(SIGNALS[0]))
    elif rng.random() < 0.2:
        side = ex.Call("abs", (side,))
    return fm.Predicate(side, str(rng.choice([">=", "<=", ">", "<"])), level)


def random_trace(rng: np.random.Generator, length: int) -> dict[str, np.ndarray]:
    """Signals ``(length,)`` within :data:`BOUND`, no two values of a trace alike."""
    return {name: rng.uniform(-BOUND, BOUND, length) for name in SIGNALS}


def rtamt_robustness(formula: Formula, signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Robustness ``(T,)`` by rtamt's offline discrete-time evaluation, tail rule ``truncate``.

    Its online evaluation and other builds have known faults; rtamt 0.4.10 offline has none known.
    """
    import rtamt

    specification = rtamt.StlDiscreteTimeSpecification()
    for name in signals:
        specification.declare_var(name, "float")
    specification.spec = text.rtamt(formula)
    specification.parse()
    length = len(next(iter(signals.values())))
    columns = {name: values.tolist() for name, values in signals.items()}
    return np.array(
        [v for _, v in specification.evaluate({"time": list(range(length)), **columns})]
    )


def random_fragment_formula(rng: np.random.Generator, depth: int = 3) -> Formula:
    """A formula that :mod:`embodied_rl.stl.decompose` takes."""
    kind = int(rng.integers(9)) if depth else 0
    state = random_formula(rng, int(rng.integers(2)), 0, 0)
    state = state if fm.is_state_formula(state) else _random_predicate(rng)
    start = int(rng.integers(3))
    end = start + int(rng.integers(5))
    if kind == 0:
        return state
    if kind in (1, 2):
        return fm.Eventually(start, end, random_fragment_formula(rng, depth - 1))
    if kind == 3:
        return fm.Always(start, end, state)
    if kind == 4:
        left = state if rng.random() < 0.5 else fm.Always(0, int(rng.integers(4)), state)
        return fm.Until(start, end, left, random_fragment_formula(rng, depth - 1))
    if kind == 5:
        later = int(rng.integers(2))
        inner = fm.Eventually(later, later + int(rng.integers(4)), state)
        return fm.Always(start, start + int(rng.integers(8)), inner)
    if kind == 6:
        return fm.Eventually(start, end, fm.Always(0, int(rng.integers(4)), state))
    parts = [random_fragment_formula(rng, depth - 1) for _ in range(2)]
    return fm.And(*parts) if kind == 7 else fm.Or(*parts)
