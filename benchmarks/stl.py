"""Signal temporal logic: agreement with rtamt and with the definitions, and what it costs.

Correctness, each as the number of formulas that failed: rtamt 0.4.10 offline at every index; the
grounding identity of decompositions; the online monitor (intervals nested, sound under random
completions, equal to the offline value at the end). Cost: one update of the monitor over window
widths beside rtamt's online update, and 1024 traces x 200 steps, window 100, beside stlcg++ where
`stlcgpp` is installed (it needs matplotlib and graphviz; a virtual environment of its own will do).
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import _stl_crosscheck as crosscheck
import _stl_load
import numpy as np
import tyro
from _report import report

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.window import Sample
from embodied_rl.stl import formula as fm
from embodied_rl.stl.decompose import DecompositionError, decompose, state_formulas
from embodied_rl.stl.monitor import SpecificationMonitor
from embodied_rl.stl.online import OnlineMonitor
from embodied_rl.stl.parse import parse
from embodied_rl.stl.robustness import robustness
from embodied_rl.stl.spec import parse_specification

SEED = 0
WIDTHS = (10, 100, 1000, 5000)
CHUNK = 1000  # updates that are timed together
MOST_GROUNDINGS = 200_000
TARGETS = {
    "rtamt_disagreements": ("<=", 0.0),
    "grounding_failures": ("<=", 0.0),
    "monitor_failures": ("<=", 0.0),
    "update_us_always_1000": ("<=", 5.0),
    "update_5000_over_10": ("<=", 2.0),
    "robot_100hz_percent_of_core": ("<=", 5.0),
}
BATCHED_TARGETS = {
    "eventually_times_faster": (">=", 10.0),
    "always_times_faster": (">=", 10.0),
    "until_times_faster": (">=", 20.0),
    "eventually_memory_ratio": ("<=", 1.0),
    "always_memory_ratio": ("<=", 1.0),
    "until_memory_ratio": ("<=", 1.0),
    "stlcgpp_largest_difference": ("<=", 1e-6),
}


@dataclass(frozen=True)
class Arguments:
    """Agreement and cost of signal temporal logic."""

    rtamt_formulas: int = 1000
    grounding_formulas: int = 200
    monitor_formulas: int = 500
    json: Path | None = None


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench stl")
    if importlib.util.find_spec("rtamt") is None:
        raise UserError("bench stl: expected rtamt 0.4.10, saw none: make setup")
    figures = {
        "rtamt_formulas": float(arguments.rtamt_formulas),
        "rtamt_disagreements": float(_rtamt_disagreements(arguments.rtamt_formulas)),
        "grounding_formulas": float(arguments.grounding_formulas),
        "grounding_failures": float(_grounding_failures(arguments.grounding_formulas)),
        "monitor_formulas": float(arguments.monitor_formulas),
        "monitor_failures": float(_monitor_failures(arguments.monitor_formulas)),
        **_update_costs(),
        "robot_100hz_percent_of_core": _robot_percent(),
    }
    targets = dict(TARGETS)
    if importlib.util.find_spec("stlcgpp") is not None:
        figures.update(_batched())
        targets.update(BATCHED_TARGETS)
    else:
        print("stlcgpp is not installed here: the comparison of batched robustness is left out")
    return report("stl", figures, targets, arguments.json)


# -------------------------------------------------------------------- agreement
def _rtamt_disagreements(count: int) -> int:
    """Formulas of depth <= 4 on traces of 60 whose values differ anywhere by more than 1e-9."""
    rng, failed = np.random.default_rng(SEED), 0
    for _ in range(count):
        formula, trace = crosscheck.random_formula(rng, 4), crosscheck.random_trace(rng, 60)
        ours, theirs = robustness(formula, trace), crosscheck.rtamt_robustness(formula, trace)
        same = (ours == theirs) | np.isclose(ours, theirs, rtol=0.0, atol=1e-9)
        failed += not same.all()
    return failed


def _grounding_failures(count: int) -> int:
    """Formulas for which, on one of 20 traces of 30, the best grounding misses the robustness."""
    rng, failed, done = np.random.default_rng(SEED), 0, 0
    while done < count:
        formula = crosscheck.random_fragment_formula(rng)
        if fm.is_state_formula(formula) or fm.horizon(formula) > 29:
            continue
        try:
            alternatives = decompose(formula)
            times = [part.assignments() for part in alternatives]
        except DecompositionError:  # too large: refused, which is not wrong
            continue
        if sum(map(len, times)) > MOST_GROUNDINGS:
            continue
        done += 1
        failed += not all(
            _best_grounding(alternatives, times, trace) == robustness(formula, trace)[0]
            for trace in (crosscheck.random_trace(rng, 30) for _ in range(20))
        )
    return failed


def _best_grounding(alternatives, times, trace) -> float:
    values = {formula: robustness(formula, trace) for formula in state_formulas(alternatives)}
    margins = [part.margin(some, values) for part, some in zip(alternatives, times)]
    return max(margin.max() for margin in margins if len(margin))


def _monitor_failures(count: int) -> int:
    rng = np.random.default_rng(SEED)
    return sum(not _monitor_holds(rng) for _ in range(count))


def _monitor_holds(rng: np.random.Generator) -> bool:
    """One formula: step 0 at every prefix, with 100 completions of random prefixes."""
    formula = crosscheck.random_formula(rng, 4)
    length = fm.horizon(formula) + 1
    bounds = dict.fromkeys(crosscheck.SIGNALS, (-crosscheck.BOUND, crosscheck.BOUND))
    trace, monitor = crosscheck.random_trace(rng, length), OnlineMonitor(formula, bounds)
    intervals = []
    for k in range(length):
        monitor.update([float(trace[name][k]) for name in monitor.names])
        intervals.append(monitor.interval(0))
    lows, highs = (np.array(ends) for ends in zip(*intervals))
    nested = bool((np.diff(lows) >= 0).all() and (np.diff(highs) <= 0).all())
    value = robustness(formula, trace)[0]
    decided = monitor.decided()
    equal = lows[-1] == value == highs[-1] and (decided.low, decided.high) == (value, value)
    for _ in range(100):
        seen = int(rng.integers(1, length + 1))
        completed = crosscheck.random_trace(rng, length)
        for name, values in completed.items():
            values[:seen] = trace[name][:seen]
        if not lows[seen - 1] <= robustness(formula, completed)[0] <= highs[seen - 1]:
            return False
    return nested and bool(equal)


# -------------------------------------------------------------------- cost
def _update_costs() -> dict[str, float]:
    """Microseconds of CPU time a sample, median over chunks of a thousand."""
    found = {}
    rows = np.random.default_rng(SEED).uniform(-1, 1, (20_000, 2)).tolist()
    for name, text in (("always", "G[0,{}] x > 0"), ("until", "(x > 0) U[0,{}] (y > 0)")):
        for width in WIDTHS:
            monitor = OnlineMonitor(parse(text.format(width - 1)))
            count = len(monitor.names)
            found[f"update_us_{name}_{width}"] = _median_us(
                monitor.update, [row[:count] for row in rows], skip=width
            )
    nested = OnlineMonitor(parse("G[0,500] (x > -2 -> F[0,499] (y > 0.9))"))
    found["update_us_nested_1000"] = _median_us(nested.update, rows, skip=1000)
    found["intervals_on_demand_us_1000"] = _on_demand_us(rows)
    for width in WIDTHS:
        found[f"rtamt_update_us_always_{width}"] = _rtamt_update_us(width, rows)
    found["update_5000_over_10"] = found["update_us_always_5000"] / found["update_us_always_10"]
    return found


def _median_us(update: Callable[[object], object], rows: list, skip: int) -> float:
    for row in rows[:skip]:
        update(row)
    rows, found = rows[skip:], []
    for first in range(0, len(rows) - CHUNK + 1, CHUNK):
        begin_s = time.thread_time()
        for row in rows[first : first + CHUNK]:
            update(row)
        found.append((time.thread_time() - begin_s) / CHUNK * 1e6)
    return float(np.median(found))


def _on_demand_us(rows: list) -> float:
    """All intervals of all open steps of ``G[0,999]``, asked for after an update."""
    monitor, found = OnlineMonitor(parse("G[0,999] x > 0")), []
    for row in rows[:1100]:
        monitor.update(row[:1])
    for row in rows[1100:1200]:
        monitor.update(row[:1])
        begin_s = time.thread_time()
        monitor.intervals()
        found.append((time.thread_time() - begin_s) * 1e6)
    return float(np.median(found))


def _robot_percent() -> float:
    """CPU time of the monitor without ROS under the load of `_stl_load`, percent of a core."""
    robot = Embodiment.parse(_stl_load.ROBOT, "bench")
    spec = parse_specification(_stl_load.specification(), robot, "bench")
    monitor = SpecificationMonitor(spec)
    values = np.random.default_rng(SEED).uniform(-1, 1, (5000, 20))
    samples = [Sample((i + 1) * spec.dt_ns, value) for i, value in enumerate(values)]
    slot_us = _median_us(lambda sample: monitor.add("q", sample), samples, skip=1000)
    return slot_us * 1e-6 * _stl_load.RATE_HZ * 100


def _rtamt_update_us(width: int, rows: list) -> float:
    import rtamt

    specification = rtamt.StlDiscreteTimeSpecification()
    specification.declare_var("x", "float")
    specification.spec = f"always[0:{width - 1}] (x > 0)"
    specification.parse()
    specification.pastify()
    samples = [(i, [("x", row[0])]) for i, row in enumerate(rows[: width + 2 * CHUNK])]
    return _median_us(lambda sample: specification.update(*sample), samples, skip=width)


def _batched() -> dict[str, float]:
    import _stlcgpp

    found, differences = {}, []
    for operator in _stlcgpp.FORMULAS:
        both = _stlcgpp.compare(operator)
        found[f"{operator}_ms"] = both["ours_s"] * 1e3
        found[f"{operator}_stlcgpp_ms"] = both["theirs_s"] * 1e3
        found[f"{operator}_times_faster"] = both["theirs_s"] / both["ours_s"]
        found[f"{operator}_peak_kib_a_trace"] = both["ours_kib"]
        found[f"{operator}_stlcgpp_peak_kib_a_trace"] = both["theirs_kib"]
        found[f"{operator}_memory_ratio"] = both["ours_kib"] / both["theirs_kib"]
        differences.append(both["difference"])
    found["stlcgpp_largest_difference"] = max(differences)
    return found
