"""A specification watched while samples arrive: the same object in a node and over a bag.

Samples go in by :meth:`SpecificationMonitor.add`, events come out; nothing depends on the wall
clock or on how messages of different topics overtake each other within the lateness, so a live run
and the replay of its recording give the same events to the byte.

In ``episode`` mode each formula is judged once, at the episode's start. In ``sliding`` mode it is
judged at every step; neighbouring violated steps make one violation, which ends when ``debounce``
decided steps in a row have a robustness above ``hysteresis``. A violated step stays violated.

With a ``predictor`` the samples to come are taken to be the last ones (``hold``) or to go on as the
last two did (``linear``), as far as the declared bounds let them; the robustness of that completed
trace is an estimate, kept apart from the interval, which it never narrows. With a calibration there
is a lower bound to it that holds with a stated probability (:mod:`embodied_rl.stl.conformal`), kept
apart as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from embodied_rl.core.signals import SignalSampler, Slot
from embodied_rl.core.window import Arrival, Sample
from embodied_rl.stl import formula as fm
from embodied_rl.stl.conformal import Calibration
from embodied_rl.stl.events import Event, Evidence, Kind
from embodied_rl.stl.formula import Formula
from embodied_rl.stl.online import OnlineMonitor, Verdict
from embodied_rl.stl.robustness import robustness_interval
from embodied_rl.stl.spec import Specification
from embodied_rl.stl.text import infix


@dataclass(frozen=True)
class Clause:
    """What must hold and is judged by itself: the whole formula, and each part of it that the
    whole is a conjunction of."""

    path: str
    place: int  # in the monitor's program
    text: str
    signals: tuple[str, ...]  # that it reads


@dataclass(frozen=True)
class Status:
    """How a clause stands at its anchor: the episode's start, or in sliding mode the newest step
    whose horizon has been seen. ``violating``: a later step is violated already, or one was and
    the violation has not ended yet. ``missing`` are its signals without a sample now."""

    formula: str
    clause: Clause
    verdict: Verdict
    low: float
    high: float
    anchor_ns: int
    violating: bool = False
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """The robustness of a formula at its anchor: what is known, what is predicted (in sliding mode
    of the newest step), and the lower bound of the prediction, where there is one."""

    anchor_ns: int
    low: float
    high: float
    estimate: float | None
    bound: float | None


@dataclass
class _Violation:
    """A run of violated steps in sliding mode that has not ended yet."""

    onset: int
    last: int
    worst: float = math.inf
    clear: int = 0  # decided steps in a row since, each above the hysteresis


@dataclass
class _Watch:
    """One formula with its state."""

    name: str
    monitor: OnlineMonitor
    clauses: list[Clause]
    violations: list[_Violation | None] = field(default_factory=list)  # of each clause
    at_risk: bool = False
    estimated: tuple[int, float | None] = (-1, None)  # at which step, what
    finished: list[Status] | None = None  # episode mode: the verdicts, once the horizon is seen


def clauses_of(formula: Formula, dt_s: float) -> list[Clause]:
    """The clauses of a formula: the whole, then the parts of the outermost conjunction."""
    places = {node: i for i, node in enumerate(fm.program(formula).nodes)}
    found: list[Clause] = []

    def collect(node: Formula, path: str) -> None:
        if not path or not isinstance(node, fm.And):  # a and b and c has three parts
            names = tuple(fm.signal_names(node))
            found.append(Clause(path, places[node], infix(node, dt_s), names))
        if isinstance(node, fm.And):
            for i, child in enumerate(fm.children(node)):
                collect(child, f"{path}.{i}" if path else str(i))

    collect(formula, "")
    return found


class SpecificationMonitor:
    """All formulas of one specification; ``on_slot`` is called after each slot is dealt with."""

    def __init__(
        self,
        spec: Specification,
        on_slot: Callable[[SpecificationMonitor], None] | None = None,
        calibration: Calibration | None = None,
    ):
        self.spec, self._on_slot, self._calibration = spec, on_slot, calibration
        lateness_ns = round(spec.lateness_s * 1e9)
        self.sampler = SignalSampler(spec.signals, spec.dt_ns, lateness_ns, spec.grid == "start")
        self.start(None)

    def start(self, start_ns: int | None) -> None:
        """Forget everything; the first slot is the first at or after ``start_ns``, or the first at
        which every stream has spoken."""
        self.sampler.restart(start_ns)
        self._forget()

    def _forget(self) -> None:
        self.slot: Slot | None = None
        self._origin_ns = 0
        self._missing: set[str] = set()
        self._watches = []
        for name, formula in self.spec.formulas.items():
            clauses = clauses_of(formula, self.spec.dt_s)
            monitor = OnlineMonitor(formula, self.spec.signals.bounds)
            self._watches.append(_Watch(name, monitor, clauses, [None] * len(clauses)))

    # ---------------------------------------------------------------- samples in, events out
    def add(self, key: str, sample: Sample) -> list[Event]:
        """Take one sample of a stream; returns the events of the slots that it closes.

        Raises:
            UserError: the sample has no stamp.
        """
        events: list[Event] = []
        if self.sampler.add(key, sample) is Arrival.CLOCK_JUMP:
            self._forget()
            events.append(Event(Kind.RESET, sample.stamp_ns, self.spec.name))
        return events + self._take(self.sampler.slots())

    def advance(self, now_ns: int) -> list[Event]:
        """Close the slots that time alone has closed: for when the streams fall silent."""
        return self._take(self.sampler.advance(now_ns))

    def finish(self) -> list[Event]:
        """At the end of a recording: close the slots up to the newest sample."""
        return self._take(self.sampler.finish())

    def _take(self, slots: Iterable[Slot]) -> list[Event]:
        return [event for slot in slots for event in self.update(slot)]

    def update(self, slot: Slot) -> list[Event]:
        """Take the next slot, for a caller that has the signals already."""
        if self.slot is None:
            self._origin_ns = slot.stamp_ns
        self.slot = slot
        events = self._staleness(slot)
        for watch in self._watches:
            if watch.finished is not None:
                continue
            watch.monitor.update([slot.values[name] for name in watch.monitor.names])
            judge = self._judge_episode if self.spec.mode == "episode" else self._judge_sliding
            events += judge(watch)
            if self.spec.predictor != "none":
                events += self._predict(watch)
            if self.spec.mode == "episode" and watch.monitor.step == watch.monitor.horizon:
                watch.finished = self._status_of(watch, watch.clauses)
        if self._on_slot is not None:
            self._on_slot(self)
        return events

    def _staleness(self, slot: Slot) -> list[Event]:
        missing = set(slot.missing)
        new = tuple(sorted(missing - self._missing))
        self._missing = missing
        return [Event(Kind.STALE, slot.stamp_ns, self.spec.name, signals=new)] if new else []

    # ---------------------------------------------------------------- verdicts
    def _judge_episode(self, watch: _Watch) -> list[Event]:
        events, monitor = [], watch.monitor
        for clause in watch.clauses:
            if 0 in monitor.newly_satisfied(clause.place):
                events.append(self._verdict(Kind.SATISFIED, watch, clause, 0))
            elif 0 in monitor.newly_violated(clause.place):
                events.append(self._verdict(Kind.VIOLATED, watch, clause, 0))
        return events

    def _judge_sliding(self, watch: _Watch) -> list[Event]:
        events = []
        for i, (clause, violation) in enumerate(zip(watch.clauses, watch.violations)):
            violated = watch.monitor.newly_violated(clause.place)
            if violated and violation is None:
                violation = watch.violations[i] = _Violation(violated[0], violated[-1])
                events.append(self._verdict(Kind.VIOLATED, watch, clause, violated[0]))
            elif violated and violation is not None:
                violation.onset = min(violation.onset, violated[0])
                violation.last, violation.clear = max(violation.last, violated[-1]), 0
            if violation is not None and self._ended(watch, clause, violation):
                watch.violations[i] = None
                events.append(self._end_of(watch, clause, violation))
        return events

    def _ended(self, watch: _Watch, clause: Clause, violation: _Violation) -> bool:
        decided = watch.monitor.decided(clause.place)
        if decided is None or decided.step < violation.onset:
            return False
        if decided.step <= violation.last:
            violation.worst = min(violation.worst, decided.high)
            return False
        violation.clear = violation.clear + 1 if decided.low > self.spec.hysteresis else 0
        return violation.clear >= self.spec.debounce

    def _verdict(self, kind: Kind, watch: _Watch, clause: Clause, step: int) -> Event:
        monitor = watch.monitor
        low, high = monitor.interval(step, clause.place)
        found = monitor.witness(step, clause.place)
        signals = monitor.row(found.step) if found.step <= monitor.step else {}
        evidence = Evidence(
            infix(found.predicate), self._stamp_ns(found.step), found.value, signals
        )
        return Event(
            kind, self._stamp_ns(monitor.step), self.spec.name, watch.name, clause.path,
            clause.text, self._stamp_ns(step), low, high, evidence,
        )  # fmt: skip

    def _end_of(self, watch: _Watch, clause: Clause, violation: _Violation) -> Event:
        return Event(
            Kind.RECOVERED, self._stamp_ns(watch.monitor.step), self.spec.name, watch.name,
            clause.path, clause.text, self._stamp_ns(violation.onset),
            end_ns=self._stamp_ns(violation.last), worst=violation.worst,
        )  # fmt: skip

    def _stamp_ns(self, step: int) -> int:
        return self._origin_ns + step * self.spec.dt_ns

    # ---------------------------------------------------------------- prediction
    def _predict(self, watch: _Watch) -> list[Event]:
        """Events when the estimate at the anchor crosses 0 while the verdict is open."""
        monitor = watch.monitor
        step = 0 if self.spec.mode == "episode" else monitor.step
        if monitor.verdict(step) is not Verdict.UNDECIDED:
            return []
        value = self._estimate(watch)
        if value is None or (value < 0) == watch.at_risk:
            return []
        watch.at_risk = value < 0
        kind = Kind.AT_RISK if watch.at_risk else Kind.RECOVERED
        whole = watch.clauses[0]
        return [
            Event(
                kind,
                self._stamp_ns(monitor.step),
                self.spec.name,
                watch.name,
                whole.path,
                whole.text,
                self._stamp_ns(step),
                estimate=value,
            )  # fmt: skip
        ]

    def estimate(self, formula: str) -> float | None:
        """Predicted robustness at the anchor, if there is a predictor and nothing is missing."""
        return self._estimate(next(watch for watch in self._watches if watch.name == formula))

    def _estimate(self, watch: _Watch) -> float | None:
        monitor = watch.monitor
        if self.spec.predictor == "none" or watch.finished or monitor.step < 0:
            return None
        if watch.estimated[0] != monitor.step:
            past = monitor.signals()
            completed = {
                name: self._continued(values, monitor.horizon, monitor.bounds.get(name))
                for name, values in past.items()
            }
            low, high = robustness_interval(monitor.formula, completed, monitor.bounds)
            place = 0 if self.spec.mode == "episode" else monitor.step - monitor.first_step
            known = low[place] == high[place]
            watch.estimated = monitor.step, float(low[place]) if known else None
        return watch.estimated[1]

    def _continued(
        self, values: np.ndarray, count: int, bounds: tuple[float, float] | None
    ) -> np.ndarray:
        """The samples with ``count`` more as the predictor sees them coming, within the bounds."""
        slope = 0.0
        if self.spec.predictor == "linear" and len(values) > 1:
            slope = values[-1] - values[-2]
        more = values[-1] + slope * np.arange(1, count + 1)
        return np.concatenate([values, np.clip(more, *(bounds or (-np.inf, np.inf)))])

    # ---------------------------------------------------------------- state
    def readings(self) -> dict[str, Reading]:
        """The whole of every formula; none before the first slot."""
        if self.slot is None:
            return {}
        found = {}
        for watch in self._watches:
            whole = (watch.finished or self._status_of(watch, watch.clauses[:1]))[0]
            estimate = self._estimate(watch)
            bound = None
            if self._calibration is not None and estimate is not None:
                bound = estimate - self._calibration.quantiles[watch.name]
            found[watch.name] = Reading(
                whole.anchor_ns, whole.low, whole.high, estimate, bound
            )  # fmt: skip
        return found

    def status(self) -> list[Status]:
        """Every clause of every formula, for diagnostics; none before the first slot."""
        if self.slot is None:
            return []
        found = [watch.finished or self._status_of(watch, watch.clauses) for watch in self._watches]
        return [status for part in found for status in part]

    def _status_of(self, watch: _Watch, clauses: list[Clause]) -> list[Status]:
        # a step within memory: the start, or the newest that the whole formula has decided
        step = 0 if self.spec.mode == "episode" else watch.monitor.first_step
        return [self._status_at(watch, clause, step) for clause in clauses]

    def _status_at(self, watch: _Watch, clause: Clause, step: int) -> Status:
        low, high = watch.monitor.interval(step, clause.place)
        verdict = watch.monitor.verdict(step, clause.place)
        return Status(
            watch.name, clause, verdict, low, high, self._stamp_ns(step),
            watch.violations[watch.clauses.index(clause)] is not None,
            tuple(name for name in clause.signals if name in self._missing),
        )  # fmt: skip

    def open_steps(self) -> list[Status]:
        """The whole of each formula at every step in memory, the newest decided one and after."""
        return [
            self._status_at(watch, watch.clauses[0], step)
            for watch in self._watches
            for step in range(max(watch.monitor.first_step, 0), watch.monitor.step + 1)
        ]
