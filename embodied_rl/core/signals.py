"""Named scalar signals: what a number of a formula or of an event means in a robot's streams.

A signal is declared once and evaluated alike on live samples, on the rows of a bag and on the
states of a simulator. A file declares signals under ``signals``::

    signals:
      tool_height: {stream: tool_position, component: z, unit: m, bounds: [-0.1, 1.2]}
      tool_to_hub: {stream: tool_position, minus: object_position, norm: [x, y], bounds: [0, 2]}
      reach: {stream: tool_position, minus: [0, 0, 0.16], norm: all}
      elbow: {stream: arm_position, component: elbow_joint, interpolation: linear, max_age_s: 0.2}
      heading: {stream: base_yaw, component: yaw, unit: rad, bounds: [-3.15, 3.15]}

``minus`` is another stream or a constant vector, taken off before ``component`` or ``norm``
(Euclidean) makes a number of the rest. ``unit``, if given, must be the stream's. ``bounds`` are
what the value cannot leave; they stand in for it where a sample is missing, default: nothing is
known. ``max_age_s`` is how long a sample holds, default: the stream's.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section
from embodied_rl.core.window import CLOCK_JUMP_NS, Arrival, Observation, Sample, first_tick

INTERPOLATIONS = ("hold", "linear")
LEAP_NS = 60 * NANOSECONDS  # a stamp this far ahead of all others is a clock that was set anew
PATIENCE_NS = NANOSECONDS  # without a declared start: how long a silent stream is waited for


@dataclass(frozen=True)
class Signal:
    """A scalar function of one or two streams; see the module's docstring."""

    name: str
    stream: str
    places: tuple[int, ...]  # components of the stream that count
    norm: bool  # their Euclidean norm; otherwise there is one
    unit: str
    bounds: tuple[float, float]
    max_age_ns: int
    interpolation: str = "hold"
    minus: str = ""  # a stream
    origin: tuple[float, ...] = ()  # or a constant

    @property
    def streams(self) -> tuple[str, ...]:
        return (self.stream, self.minus) if self.minus else (self.stream,)

    def value(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The signal ``(...)`` from streams of shape ``(..., n)``: one sample, or many at once."""
        parts = values[self.stream]
        if self.minus:
            parts = parts - values[self.minus]
        elif self.origin:
            parts = parts - np.array(self.origin)
        if not self.norm:
            return np.asarray(parts[..., self.places[0]])
        chosen = parts[..., list(self.places)]
        return np.sqrt((chosen * chosen).sum(axis=-1))


@dataclass(frozen=True)
class SignalSet:
    """The signals of one file, over the streams of one embodiment."""

    signals: dict[str, Signal]
    streams: dict[str, Stream]  # those that the signals need

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        return {name: signal.bounds for name, signal in self.signals.items()}

    def select(self, names: Iterable[str], origin: str) -> SignalSet:
        """The named signals.

        Raises:
            UserError: one is not declared; names ``origin`` and the signals that are.
        """
        chosen = {}
        for name in names:
            if name not in self.signals:
                known = ", ".join(sorted(self.signals))
                raise UserError(f"{origin}: unknown signal '{name}'; declared: {known}")
            chosen[name] = self.signals[name]
        keys = [key for signal in chosen.values() for key in signal.streams]
        return SignalSet(chosen, {key: self.streams[key] for key in dict.fromkeys(keys)})

    def evaluate(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every signal ``(...)`` from whole streams ``(..., n)``, such as a simulator's states."""
        return {name: signal.value(values) for name, signal in self.signals.items()}

    def row(self, observation: Observation) -> dict[str, float]:
        """Every signal of one row, NaN where a stream of it was missing."""
        return {
            name: float(signal.value(observation.values))
            if all(observation.valid[key] for key in signal.streams)
            else math.nan
            for name, signal in self.signals.items()
        }


def parse_signals(parts: Iterable[tuple[str, Section]], embodiment: Embodiment) -> SignalSet:
    """The signals of a file's section ``signals``.

    Raises:
        UserError: names file and key: an unknown stream or component, another unit than the
            stream's, two streams that do not match, an image.
    """
    signals = {name: _signal(part, embodiment) for name, part in parts}
    keys = [key for signal in signals.values() for key in signal.streams]
    return SignalSet(signals, embodiment.require(dict.fromkeys(keys)))


def _signal(part: Section, embodiment: Embodiment) -> Signal:
    stream = embodiment.streams[part.choice("stream", embodiment.streams)]
    if not stream.components:
        part.fail("stream", "numbers, such as joints or a pose", f"{stream.type} '{stream.key}'")
    minus, origin = _minus(part, stream, embodiment)
    places, norm = _places(part, stream)
    unit = part.text("unit", default=stream.unit)
    if unit != stream.unit:
        part.fail("unit", f"'{stream.unit}', the unit of stream '{stream.key}'", f"'{unit}'")
    low, high = -math.inf, math.inf
    if part.value("bounds", None) is not None:
        low, high = part.vector("bounds", 2).tolist()
        if low > high:
            part.fail("bounds", "[lowest, highest]", [low, high])
    interpolation = str(part.value("interpolation", "hold"))
    if interpolation not in INTERPOLATIONS:
        part.fail("interpolation", f"one of {list(INTERPOLATIONS)}", f"'{interpolation}'")
    if interpolation == "linear" and stream.field == "orientation":
        part.fail("interpolation", "'hold' for a quaternion", "'linear'")
    max_age_s = stream.max_age_s
    if part.value("max_age_s", None) is not None:
        max_age_s = part.positive("max_age_s")
    part.done()
    return Signal(
        part.key, stream.key, places, norm, unit, (low, high), round(max_age_s * NANOSECONDS),
        interpolation, minus, origin,
    )  # fmt: skip


def _minus(part: Section, stream: Stream, embodiment: Embodiment) -> tuple[str, tuple[float, ...]]:
    value = part.value("minus", None)
    if value is None:
        return "", ()
    if isinstance(value, list):
        return "", tuple(part.vector("minus", stream.shape[0]).tolist())
    other = embodiment.streams[part.choice("minus", embodiment.streams)]
    if (other.shape, other.unit) != (stream.shape, stream.unit):
        part.fail(
            "minus",
            f"a stream of shape {stream.shape} in '{stream.unit}' like '{stream.key}'",
            f"'{other.key}' of shape {other.shape} in '{other.unit}'",
        )
    return other.key, ()


def _places(part: Section, stream: Stream) -> tuple[tuple[int, ...], bool]:
    """The components that count, and whether their norm is asked for."""
    names = stream.components
    component, norm = part.value("component", None), part.value("norm", None)
    if (component is None) == (norm is None):
        part.fail("component", "either 'component' or 'norm'", "both" if norm else "neither")
    if norm is None:
        return (names.index(part.choice("component", names)),), False
    if norm == "all":
        return tuple(range(len(names))), True
    chosen = part.names("norm")
    for name in chosen:
        if name not in names:
            part.fail("norm", f"'all' or names among {list(names)}", f"'{name}'")
    return tuple(names.index(name) for name in chosen), True


@dataclass(frozen=True)
class Slot:
    """The signals at one instant of the grid, NaN where a sample was missing."""

    index: int
    stamp_ns: int
    values: dict[str, float]

    @property
    def missing(self) -> list[str]:
        return [name for name, value in self.values.items() if math.isnan(value)]


@dataclass
class _Track:
    """Samples of one stream that a coming slot may need, by rising stamps."""

    unwrap: bool  # angles: the short way round between two samples
    stamps: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def at(self, time_ns: int, max_age_ns: int, linear: bool) -> np.ndarray | None:
        place = bisect_right(self.stamps, time_ns) - 1
        if place < 0:
            return None
        age_ns = time_ns - self.stamps[place]
        if linear and age_ns and place + 1 < len(self.stamps):
            gap_ns = self.stamps[place + 1] - self.stamps[place]
            if gap_ns <= max_age_ns:
                change = self.values[place + 1] - self.values[place]
                if self.unwrap:
                    change = np.remainder(change + np.pi, 2 * np.pi) - np.pi
                return self.values[place] + change * (age_ns / gap_ns)
        return self.values[place] if age_ns <= max_age_ns else None

    def forget_before(self, time_ns: int) -> None:
        keep = max(bisect_right(self.stamps, time_ns) - 1, 0)
        del self.stamps[:keep], self.values[:keep]


_Request = tuple[str, int, bool]  # stream, oldest sample that counts in ns, linear or held


class SignalSampler:
    """From stamped samples to signals on a fixed grid, live or from a bag with the same result.

    Slots are the multiples of ``dt_ns`` on the clock of the stamps, or with ``from_start`` the
    start and every ``dt_ns`` after it. A slot closes as soon as every stream has a sample at or
    after it, and at the latest when any stream, or the time given to :meth:`advance`, is
    ``patience_ns`` past it: the lateness, and for linear interpolation as long again as the next
    sample may be away. A sample that comes later is counted and dropped. So what a slot holds does
    not depend on how messages of different topics overtake each other within the lateness; those
    of one topic come in order.
    """

    def __init__(self, signals: SignalSet, dt_ns: int, lateness_ns: int, from_start: bool = False):
        self.signals, self.dt_ns, self._from_start = signals, dt_ns, from_start
        linear = [s.max_age_ns for s in signals.signals.values() if s.interpolation == "linear"]
        self.patience_ns = lateness_ns + max(linear, default=0)
        self._requests: list[tuple[str, Signal, list[_Request]]] = [
            (name, one, [(key, one.max_age_ns, one.interpolation == "linear") for key in keys])
            for name, one in signals.signals.items()
            for keys in [dict.fromkeys(one.streams)]
        ]
        self.counts: Counter[Arrival] = Counter()
        self.late: Counter[str] = Counter()  # by stream
        self.out_of_bounds: Counter[str] = Counter()
        self.restart(None)

    def restart(self, start_ns: int | None) -> None:
        """Forget every sample; the first slot is the first at or after ``start_ns``, and samples
        from before that do not count. Without a start it is the first at which every stream has
        spoken."""
        angles = {key: stream.unit == "rad" for key, stream in self.signals.streams.items()}
        self._tracks = {key: _Track(unwrap) for key, unwrap in angles.items()}
        self._newest: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._index = 0
        self._start_ns = start_ns
        self._next_ns = None if start_ns is None else self._first_slot(start_ns)

    def _first_slot(self, start_ns: int) -> int:
        return start_ns if self._from_start else first_tick(start_ns, self.dt_ns)

    def add(self, key: str, sample: Sample) -> Arrival:
        """Take one sample. After CLOCK_JUMP (set back by more than a second, or more than a minute
        ahead of all others and of the start) everything before it is forgotten; the caller resets
        what it derived from it.

        Raises:
            UserError: the sample has no stamp.
        """
        if sample.stamp_ns <= 0:
            topic = self.signals.streams[key].topic
            raise UserError(f"{topic}: expected a stamp in the header, saw {sample.stamp_ns} ns")
        arrival = self._insert(key, sample)
        self.counts[arrival] += 1
        if arrival is Arrival.LATE:
            self.late[key] += 1
        return arrival

    def _insert(self, key: str, sample: Sample) -> Arrival:
        stamp, arrival = sample.stamp_ns, Arrival.OK
        newest = self._newest_ns(default=stamp)
        if stamp < self._newest.get(key, stamp) - CLOCK_JUMP_NS or stamp > newest + LEAP_NS:
            self.restart(None)
            arrival = Arrival.CLOCK_JUMP
        elif self._start_ns is not None and stamp < self._start_ns:
            return Arrival.BEFORE_START  # of the episode before
        elif self._index and self._next_ns is not None and stamp <= self._next_ns - self.dt_ns:
            return Arrival.LATE
        track = self._tracks[key]
        place = bisect_left(track.stamps, stamp)
        if place < len(track.stamps):
            if track.stamps[place] == stamp:
                return Arrival.DUPLICATE
            arrival = Arrival.DISORDERED
        track.stamps.insert(place, stamp)
        track.values.insert(place, sample.value)
        self._newest[key] = max(self._newest.get(key, stamp), stamp)
        self._first.setdefault(key, stamp)
        return arrival

    def _newest_ns(self, default: int) -> int:
        """The newest stamp, before the first sample the start."""
        return max(self._newest.values(), default=self._start_ns or default)

    def slots(self) -> Iterator[Slot]:
        """The slots that the samples so far have closed, in order."""
        newest = max(self._newest.values(), default=0)
        if self._next_ns is None and self._newest:
            self._next_ns = self._begin(newest)
        while self._next_ns is not None:
            complete = len(self._newest) == len(self._tracks) and all(
                stamp >= self._next_ns for stamp in self._newest.values()
            )
            if not complete and newest < self._next_ns + self.patience_ns:
                return
            yield self._close(self._next_ns)

    def advance(self, now_ns: int) -> Iterator[Slot]:
        """The slots that time alone has closed: for when the streams fall silent. After a minute of
        silence there are no more: a sample from then on finds a clock that was set anew."""
        yield from self.slots()
        now_ns = min(now_ns, self._newest_ns(default=0) + LEAP_NS)
        while self._next_ns is not None and now_ns >= self._next_ns + self.patience_ns:
            yield self._close(self._next_ns)

    def finish(self) -> Iterator[Slot]:
        """At the end of a recording: the slots up to the newest sample."""
        yield from self.advance(max(self._newest.values(), default=0) + self.patience_ns)

    def _begin(self, newest: int) -> int | None:
        waiting = len(self._first) < len(self._tracks)
        if waiting and newest < min(self._first.values()) + PATIENCE_NS:
            return None
        first = min(self._first.values()) if waiting else max(self._first.values())
        return self._first_slot(first)

    def _close(self, time_ns: int) -> Slot:
        values = {}
        found: dict[_Request, np.ndarray | None] = {}  # alike for many signals
        for name, signal, requests in self._requests:
            known = {}
            for request in requests:
                if request not in found:
                    key, max_age_ns, linear = request
                    found[request] = self._tracks[key].at(time_ns, max_age_ns, linear)
                if (part := found[request]) is not None:
                    known[request[0]] = part
            value = float(signal.value(known)) if len(known) == len(requests) else math.nan
            if value < signal.bounds[0] or value > signal.bounds[1]:
                self.out_of_bounds[name] += 1
            values[name] = value if math.isfinite(value) else math.nan
        for track in self._tracks.values():
            track.forget_before(time_ns)
        slot = Slot(self._index, time_ns, values)
        self._index += 1
        self._next_ns = time_ns + self.dt_ns
        return slot
