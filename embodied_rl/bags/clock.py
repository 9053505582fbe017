"""Log times on the clock of the stamps: when something without a stamp happened.

A recorder writes down when it received a message (log time), by the clock of its own machine. The
stamps in headers may come from another clock: of another machine, or of a simulation that runs at
another pace and stands still at times. Each stamped message ties the two together: it was received
a short delay after its stamp. Delays vary and have long tails (a full queue, a latched message),
but none is negative, so the messages with the least delay tell how the clocks lie.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS

CLOCK = "/clock"
CLOCK_TYPE = "rosgraph_msgs/msg/Clock"
WINDOW_NS = 2 * NANOSECONDS  # of log time, in which pace and delay are looked for
LEAST = 8  # pairs from which a pace is estimated
PACE_TOLERANCE = 0.02  # clocks whose paces differ by less run alike: crystals do far better
LEAST_DELAY = 5.0  # percentile of the delays that counts as the least: a few stamps may be early
IN_HAND = 64  # newest pairs of a topic that decide while the bag is still being read
ALIKE = 0.9  # share of the windows that must find the clocks together


@dataclass
class _Pairs:
    """Log time and stamp of each message of one topic, in the order of reading."""

    log_ns: array = field(default_factory=lambda: array("q"))
    stamp_ns: array = field(default_factory=lambda: array("q"))
    newest: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=IN_HAND))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Log times and stamps ``(N,)`` in the order of log time."""
        log = np.array(self.log_ns, dtype=np.int64)
        stamps = np.array(self.stamp_ns, dtype=np.int64)
        order = np.argsort(log, kind="stable")
        return log[order], stamps[order]


@dataclass(frozen=True)
class Offset:
    """Log time minus stamp of one topic, least delay included, in seconds."""

    topic: str
    first_s: float
    last_s: float
    drift_s: float  # between the least and the greatest offset of the recording


class StampClock:
    """Ties log times to stamps for one run of the clock.

    Args:
        period_ns: control period. Clocks that lie closer together than this are taken for one,
            whose difference is the delay of the messages.
        measuring: topics that tell what the actuators do. Commands are dated by their clock, if
            they have stamps: no command may come after the motion that it caused.
    """

    def __init__(self, period_ns: int, measuring: Iterable[str] = ()):
        self._period_ns = period_ns
        self._measuring = (CLOCK, *measuring)
        self._pairs: dict[str, _Pairs] = {}

    def add(self, topic: str, log_ns: int, stamp_ns: int) -> None:
        """A message of ``topic`` with this stamp was received at this log time."""
        pairs = self._pairs.setdefault(topic, _Pairs())
        pairs.log_ns.append(log_ns)
        pairs.stamp_ns.append(stamp_ns)
        pairs.newest.append((log_ns, stamp_ns))

    # ---------------------------------------------------------------- while reading
    def at_once(self, log_ns: int) -> int:
        """A log time on the clock of the stamps, as far as is known by now."""
        found = [self._pairs[topic].newest for topic in self._references()]
        if not found:
            return log_ns
        pairs = np.array(sorted(pair for newest in found for pair in newest), dtype=np.int64)
        log, stamps = pairs[:, 0], pairs[:, 1]
        delay_ns = int((log - stamps).min())
        pace = _pace(log, stamps)
        if pace is None or abs(pace - 1) <= PACE_TOLERANCE:
            return log_ns if self._together(delay_ns) else log_ns - delay_ns
        newest = int(np.argmax(stamps))
        return int(stamps[newest] + pace * (log_ns - log[newest]))

    # ---------------------------------------------------------------- when all has been read
    def at(self, log_ns: np.ndarray) -> np.ndarray:
        """Log times ``(N,)`` on the clock of the stamps, from the whole recording."""
        references = self._references()
        if not references:
            return log_ns
        knots = [self._knots(topic) for topic in references]
        steady = [k for k in knots if k.steady]
        if len(steady) == len(knots):
            # the least delay of all topics in each window
            best = _least(steady)
            offsets = best.log_ns - best.stamp_ns
            near = np.array([self._together(int(offset)) for offset in offsets])
            if near.mean() >= ALIKE:
                return log_ns
            return best.at(log_ns)
        ahead = np.stack([k.at(log_ns) for k in knots])
        return ahead.max(axis=0)  # the newest that anybody had been stamped by then

    def offsets(self) -> list[Offset]:
        """How log time and stamps lie, for each stamped topic."""
        found = []
        for topic in sorted(self._pairs):
            knots = self._knots(topic)
            offsets = (knots.log_ns - knots.stamp_ns) / NANOSECONDS
            spread = float(offsets.max() - offsets.min())
            found.append(Offset(topic, float(offsets[0]), float(offsets[-1]), spread))
        return found

    def _references(self) -> list[str]:
        """The topics that date what has no stamp."""
        measuring = [topic for topic in self._measuring if topic in self._pairs]
        if CLOCK in measuring:
            return [CLOCK]
        return measuring or list(self._pairs)

    def _knots(self, topic: str) -> _Knots:
        return _Knots.of(*self._pairs[topic].arrays(), self._period_ns // 2)

    def _together(self, offset_ns: int) -> bool:
        # A recorder on simulated time may be one tick behind the samples of that tick.
        return -self._period_ns <= offset_ns <= self._period_ns // 2


@dataclass(frozen=True)
class _Knots:
    """Where log time and stamps lie, ``(N,)`` each, rising; straight lines in between."""

    log_ns: np.ndarray
    stamp_ns: np.ndarray
    steady: bool  # the clocks run at one pace

    @classmethod
    def of(cls, log: np.ndarray, stamps: np.ndarray, step_ns: int) -> _Knots:
        """From the messages ``(N,)`` of one topic in the order of log time; where their delay
        changes by more than ``step_ns`` at once, a clock was stepped or stood still."""
        steady = cls._steady(log, stamps)
        if steady is not None and np.all(
            np.abs(np.diff(steady.stamp_ns - steady.log_ns)) <= step_ns
        ):
            return steady
        newest = np.maximum.accumulate(stamps)
        rising = np.concatenate([[True], newest[1:] > newest[:-1]])
        log, newest = log[rising], newest[rising]
        last = np.concatenate([log[1:] > log[:-1], [True]])  # of one log time the newest
        return cls(log[last], newest[last], steady=False)

    @classmethod
    def _steady(cls, log: np.ndarray, stamps: np.ndarray) -> _Knots | None:
        """The least delay in each window; None where the clocks run at different paces."""
        pace = _pace(log, stamps)
        if pace is not None and abs(pace - 1) > PACE_TOLERANCE:
            return None
        centres, least = [], []
        half = WINDOW_NS // 2
        for start in range(int(log[0]), int(log[-1]) + 1, half):
            begin, end = np.searchsorted(log, [start, start + WINDOW_NS])
            if end - begin < min(LEAST, len(log)):
                continue
            delays = log[begin:end] - stamps[begin:end]
            centres.append(start + half)
            least.append(int(np.percentile(delays, LEAST_DELAY, method="lower")))
        if not centres:
            centres = [int(log[-1])]
            least = [int(np.percentile(log - stamps, LEAST_DELAY, method="lower"))]
        at = np.array(centres, dtype=np.int64)
        return cls(at, at - np.array(least, dtype=np.int64), steady=True)

    def at(self, log_ns: np.ndarray) -> np.ndarray:
        """Log times ``(M,)`` on the clock of the stamps."""
        first, last = self.log_ns[0], self.log_ns[-1]
        inside = np.clip(log_ns, first, last)
        # float64 holds a day in ns exactly, not a date: both sides are counted from the start
        share = np.interp(inside - first, self.log_ns - first, self.stamp_ns - self.stamp_ns[0])
        found = np.round(share).astype(np.int64) + self.stamp_ns[0]
        pace = 1.0
        if not self.steady and last > first:
            pace = (self.stamp_ns[-1] - self.stamp_ns[0]) / (last - first)
        return found + np.round(pace * (log_ns - inside)).astype(np.int64)


def _least(knots: list[_Knots]) -> _Knots:
    """The least delay of several topics at the places of the first."""
    log = max(knots, key=lambda k: len(k.log_ns)).log_ns
    return _Knots(log, np.stack([k.at(log) for k in knots]).max(axis=0), steady=True)


def _pace(log: np.ndarray, stamps: np.ndarray) -> float | None:
    """Seconds of the stamps in a second of log time; None where too little is known.

    The median over pairs of messages that lie half the recording apart: a queue that was emptied
    at once, or a stamp far off, spoils few of them.
    """
    half = len(log) // 2
    if len(log) < LEAST:
        return None
    run, rise = log[half:] - log[: len(log) - half], stamps[half:] - stamps[: len(log) - half]
    sound = run > 0
    if not sound.any():
        return None
    return float(np.median(rise[sound] / run[sound]))
