"""From stamped samples to time-aligned observation windows, the same way live and offline.

Control ticks are the multiples of the control period on the ROS clock, so a live node and a bag
reader agree on them without a word. The row of a tick holds, for every stream, the newest sample
that counts as available at it (``asof``): stamped at least the stream's declared latency before it.
A sample older than the stream's maximum age, counted from its stamp, does not count. A window is a
strided stack of rows. What is missing is marked, never filled in silence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream

# A stamp this far behind the newest one of its stream is no late message of this run of the clock:
# a clock was set back, or a stray packet turned up.
CLOCK_JUMP_NS = NANOSECONDS
CONFIRMING = 3  # such stamps in a row of one stream make it a clock that was set back


@dataclass(frozen=True)
class Sample:
    """One value of one stream, stamped by its source."""

    stamp_ns: int
    value: np.ndarray


@dataclass(frozen=True)
class Observation:
    """The row of one control tick. Invalid floats are NaN, invalid integers 0, both marked."""

    stamp_ns: int
    values: dict[str, np.ndarray]
    valid: dict[str, bool]

    @property
    def missing(self) -> list[str]:
        return [key for key, valid in self.valid.items() if not valid]


@dataclass(frozen=True)
class Window:
    """``T`` rows, oldest first. ``inside`` is False where a row lies before the episode's start
    and repeats its first row; ``valid`` is False there and where a stream was missing."""

    values: dict[str, np.ndarray]  # key -> (T, ...)
    valid: dict[str, np.ndarray]  # key -> (T,)
    inside: np.ndarray  # (T,)


class Arrival(Enum):
    """What became of a sample that was handed to :class:`RowBuilder`."""

    OK = "ok"
    DISORDERED = "out of order, sorted in"
    LATE = "after the row that needed it was built"
    DUPLICATE = "a second sample of the same stamp, dropped"
    BEFORE_START = "stamped before the episode, dropped"
    STRAY = "stamped long before the newest of its stream, dropped"
    CLOCK_JUMP = "the clock was set back; older samples dropped"


def asof(
    stamps_ns: np.ndarray, ticks_ns: np.ndarray, max_age_ns: int, latency_ns: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """For each tick the newest sample that is available at it.

    Args:
        stamps_ns: ``(N,)`` rising stamps.
        ticks_ns: ``(K,)`` ticks.
        max_age_ns: a sample stamped longer than this before the tick does not count.
        latency_ns: a sample is available this long after its stamp.

    Returns:
        ``index (K,)`` into ``stamps_ns`` (0 where there is none) and ``valid (K,)``.
    """
    if len(stamps_ns) == 0:
        return np.zeros(len(ticks_ns), dtype=np.int64), np.zeros(len(ticks_ns), dtype=bool)
    index = np.searchsorted(stamps_ns, ticks_ns - latency_ns, side="right") - 1
    found = index >= 0
    index = np.maximum(index, 0)
    return index, found & (ticks_ns - stamps_ns[index] <= max_age_ns)


def missing_value(stream: Stream) -> np.ndarray:
    """What stands in a row in place of a missing sample: NaN, so that using it is loud."""
    fill = np.nan if np.issubdtype(np.dtype(stream.dtype), np.floating) else 0
    return np.full(stream.shape, fill, dtype=stream.dtype)


def first_tick(start_ns: int, period_ns: int) -> int:
    """The first control tick at or after a time."""
    return -(-start_ns // period_ns) * period_ns


def ticks_between(start_ns: int, end_ns: int, period_ns: int) -> np.ndarray:
    """All control ticks ``(K,)`` with ``start_ns <= tick <= end_ns``."""
    return np.arange(first_tick(start_ns, period_ns), end_ns + 1, period_ns, dtype=np.int64)


@dataclass
class _Buffer:
    """Samples of one stream that a coming row may still need, sorted by stamp."""

    stream: Stream
    stamps: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def insert(self, sample: Sample) -> Arrival:
        place = bisect_left(self.stamps, sample.stamp_ns)
        if place < len(self.stamps) and self.stamps[place] == sample.stamp_ns:
            return Arrival.DUPLICATE
        self.stamps.insert(place, sample.stamp_ns)
        self.values.insert(place, sample.value)
        return Arrival.OK if place == len(self.stamps) - 1 else Arrival.DISORDERED

    def clear(self) -> None:
        self.stamps.clear()
        self.values.clear()

    def forget_before(self, tick_ns: int) -> None:
        """Keep the newest sample available at ``tick_ns`` and all that follow."""
        keep = max(bisect_left(self.stamps, tick_ns - self.stream.latency_ns + 1) - 1, 0)
        del self.stamps[:keep], self.values[:keep]


class RowBuilder:
    """Live side of the row: takes samples in any order, gives the row of each tick in turn.

    Args:
        jitter: stamps of a stream may be this uneven. A row then waits, where the next sample could
            be stamped that much too early to be left out, until there is certainty. None waits for
            nothing but the nominal period, as is right where stamps lie on an exact grid.
        trust_stamps: believe stamps that a clock was set back; otherwise only :meth:`set_back`
            says so, for a caller with a clock of its own.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        keys: Iterable[str],
        jitter: Callable[[Stream], int] | None = None,
        trust_stamps: bool = True,
    ):
        self.streams = embodiment.require(keys)
        self.period_ns = embodiment.period_ns
        self._trust_stamps = trust_stamps
        self._buffers = {key: _Buffer(stream) for key, stream in self.streams.items()}
        # Past the newest stamp by this, the next sample may come.
        self._next_ns = {
            key: stream.period_ns - (min(jitter(stream), stream.period_ns) if jitter else 0)
            for key, stream in self.streams.items()
        }
        # Outlives reset(), or a clock set back right after it would only look like stray samples.
        self._newest_ns: dict[str, int] = {}
        self._strays: dict[str, list[Sample]] = {}
        self.counts: Counter[Arrival] = Counter()
        self.late: Counter[str] = Counter()  # by stream
        self.reset(0)

    def reset(self, start_ns: int) -> None:
        """Begin an episode: forget every sample stamped before ``start_ns``."""
        self._start_ns = start_ns
        self._built_ns = start_ns - 1
        for buffer in self._buffers.values():
            first = bisect_left(buffer.stamps, start_ns)
            del buffer.stamps[:first], buffer.values[:first]

    @property
    def start_ns(self) -> int:
        """Samples stamped before this do not count."""
        return self._start_ns

    def add(self, key: str, sample: Sample) -> Arrival:
        """Take one sample. After a CLOCK_JUMP nothing is kept but the samples that showed it; the
        caller resets what it derived from the old rows."""
        arrival = self._insert(key, sample)
        self.counts[arrival] += 1
        if arrival is Arrival.LATE:
            self.late[key] += 1
        return arrival

    def _insert(self, key: str, sample: Sample) -> Arrival:
        buffer, stamp_ns = self._buffers[key], sample.stamp_ns
        newest_ns = self._newest_ns.get(key, stamp_ns)
        if stamp_ns < newest_ns - CLOCK_JUMP_NS:
            strays = self._strays.setdefault(key, [])
            strays.append(sample)
            del strays[:-CONFIRMING]
            if not self._trust_stamps or len(strays) < CONFIRMING:
                return Arrival.STRAY
            self.set_back(min(stray.stamp_ns for stray in strays))
            return Arrival.CLOCK_JUMP
        self._strays.pop(key, None)
        self._newest_ns[key] = max(newest_ns, stamp_ns)
        if stamp_ns < self._start_ns:
            return Arrival.BEFORE_START
        arrival = buffer.insert(sample)
        available_ns = stamp_ns + buffer.stream.latency_ns
        if arrival is not Arrival.DUPLICATE and available_ns <= self._built_ns:
            return Arrival.LATE
        return arrival

    def set_back(self, start_ns: int) -> None:
        """The clock now shows ``start_ns``, earlier than before: forget all samples but those that
        have come from the new run of the clock."""
        strays, self._strays = self._strays, {}
        self._newest_ns = {}
        for buffer in self._buffers.values():
            buffer.clear()
        self._start_ns = start_ns
        self._built_ns = start_ns - 1
        for key, samples in strays.items():
            for sample in samples:
                self._insert(key, sample)

    def forget_before(self, time_ns: int) -> None:
        """Let go of samples that no row at or after ``time_ns`` can need."""
        for buffer in self._buffers.values():
            buffer.forget_before(time_ns)

    def complete(self, tick_ns: int) -> bool:
        """Whether no stream owes a sample any more: its next one is due after the tick."""
        return not self.owing(tick_ns)

    def owing(self, tick_ns: int) -> list[str]:
        """The streams of which a sample that counts at the tick may still come."""
        return [
            key
            for key, buffer in self._buffers.items()
            if not buffer.stamps or self._whole_until_ns(key, buffer) < tick_ns
        ]

    def whole_until_ns(self) -> int | None:
        """The latest time at which no stream owes a sample; None before every stream has spoken."""
        if not all(buffer.stamps for buffer in self._buffers.values()):
            return None
        return min(self._whole_until_ns(key, buffer) for key, buffer in self._buffers.items())

    def _whole_until_ns(self, key: str, buffer: _Buffer) -> int:
        """A sample of that very time is the last one that counts there."""
        wait_ns = max(self._next_ns[key] - 1, 0)
        return buffer.stamps[-1] + wait_ns + buffer.stream.latency_ns

    def row(self, tick_ns: int) -> Observation:
        """The row of one tick; ticks must be asked for in rising order."""
        tick = np.array([tick_ns])
        values, valid = {}, {}
        for key, buffer in self._buffers.items():
            stream = buffer.stream
            stamps = np.array(buffer.stamps, dtype=np.int64)
            index, found = asof(stamps, tick, stream.max_age_ns, stream.latency_ns)
            valid[key] = bool(found[0])
            values[key] = buffer.values[index[0]] if found[0] else missing_value(stream)
            buffer.forget_before(tick_ns)
        self._built_ns = tick_ns
        return Observation(tick_ns, values, valid)


def history_indices(tick: int, history: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows make the window that ends with row ``tick`` of an episode.

    Returns:
        ``index (T,)`` of the rows, oldest first, those before the episode replaced by row 0, and
        ``inside (T,)``, False for the replaced ones.
    """
    index = tick - stride * np.arange(history - 1, -1, -1)
    return np.maximum(index, 0), index >= 0


class History:
    """Ring of the rows that the newest window can reach."""

    def __init__(self, history: int, stride: int):
        self.history, self.stride = history, stride
        self._rows: deque[Observation] = deque(maxlen=(history - 1) * stride + 1)

    def clear(self) -> None:
        self._rows.clear()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> tuple[Observation, ...]:
        return tuple(self._rows)

    def push(self, observation: Observation) -> None:
        self._rows.append(observation)

    def window(self) -> Window:
        """The window that ends with the newest row. Needs at least one row."""
        index, inside = history_indices(len(self._rows) - 1, self.history, self.stride)
        rows = [self._rows[i] for i in index]
        keys = list(rows[0].values)
        return Window(
            values={key: np.stack([row.values[key] for row in rows]) for key in keys},
            valid={key: np.array([row.valid[key] for row in rows]) & inside for key in keys},
            inside=inside,
        )
