"""A specification watched live: in which episode, in which order samples count, what is kept.

What :class:`~embodied_rl.stl.monitor.SpecificationMonitor` leaves to its caller where samples come
as they are sent and not sorted from a file. Like it, it knows of no ROS and no wall clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.window import CLOCK_JUMP_NS, Sample
from embodied_rl.stl.conformal import Calibration
from embodied_rl.stl.events import Event, Kind
from embodied_rl.stl.monitor import SpecificationMonitor
from embodied_rl.stl.spec import Specification

RECENT_NS = 5 * NANOSECONDS  # an announcement may be this much slower than the first samples
MOST_RECENT = 20_000

Arrived = tuple[str, Sample]
OnSlot = Callable[[SpecificationMonitor], None]


class State(Enum):
    WAITING = "no episode has been announced yet"
    WATCHING = "watching"
    OVER = "the episode is over"


class LiveMonitor:
    """One specification over the episodes of a robot.

    Args:
        announced: episodes are announced (:meth:`begin`, :meth:`end`), and between them nothing is
            judged; otherwise everything is from the first sample on, and an announcement begins
            anew.
        on_slot: called after each slot.
        calibration: of the specification, for bounds.
    """

    def __init__(
        self,
        spec: Specification,
        announced: bool,
        on_slot: OnSlot | None = None,
        calibration: Calibration | None = None,
    ):
        self.own, self._announced = spec, announced
        self._on_slot, self._calibration = on_slot, calibration
        self.monitor = SpecificationMonitor(spec, on_slot, calibration)
        self.state = State.WAITING if announced else State.WATCHING
        self.start_ns: int | None = None  # as announced
        self._newest: dict[str, int] = {}
        # In the order of their stamps, but for topics that overtake each other between two batches.
        self._recent: deque[Arrived] = deque(maxlen=MOST_RECENT)

    @property
    def spec(self) -> Specification:
        return self.monitor.spec

    # ---------------------------------------------------------------- episodes
    def begin(self, start_ns: int) -> list[Event]:
        """An episode was announced; it begins with the specification that this was made for. The
        same announcement heard twice changes nothing."""
        if start_ns == self.start_ns:
            return []
        self.start_ns, self.state = start_ns, State.WATCHING
        if self.spec is not self.own:
            self._replace(self.own, self._calibration)
        self.monitor.start(start_ns)
        return self._feed_recent(start_ns)

    def end(self) -> list[Event]:
        """The episode is over: judge what it showed, and nothing of what comes until the next."""
        if not self._announced or self.state is not State.WATCHING:
            return []
        self.state = State.OVER
        return self.monitor.finish()

    def reset(self, now_ns: int) -> list[Event]:
        """Somebody asked for a new beginning, from the next samples on."""
        if self.state is State.WATCHING:
            self.monitor.start(None)
            self._recent.clear()
        return [Event(Kind.RESET, now_ns, self.spec.name)]

    def adopt(self, spec: Specification, anchor_ns: int) -> list[Event]:
        """Watch another specification, over the same streams, from ``anchor_ns`` to the end of the
        episode; no calibration is for it."""
        self.state = State.WATCHING
        self._replace(spec, None)
        self.monitor.start(anchor_ns)
        return [Event(Kind.RESET, anchor_ns, spec.name), *self._feed_recent(anchor_ns)]

    def _replace(self, spec: Specification, calibration: Calibration | None) -> None:
        before = self.monitor.sampler
        self.monitor = SpecificationMonitor(spec, self._on_slot, calibration)
        # what was counted of the topics so far
        self.monitor.sampler.counts, self.monitor.sampler.late = before.counts, before.late

    def _feed_recent(self, start_ns: int) -> list[Event]:
        again = [(key, sample) for key, sample in self._recent if sample.stamp_ns >= start_ns]
        return [event for key, sample in again for event in self.monitor.add(key, sample)]

    # ---------------------------------------------------------------- samples
    def take(self, batch: Iterable[Arrived]) -> list[Event]:
        """Take the samples that have come since the last call, in the order of each topic.

        They count in the order of their stamps. A process that was kept waiting finds many
        messages of each topic; taken topic by topic, or one of each in turn, fast topics would
        fall behind slow ones by more than any lateness.

        Raises:
            UserError: a sample has no stamp.
        """
        events = []
        for number, run in enumerate(self._runs(batch)):
            if number:  # a clock that was set back: announcements of before mean nothing now
                self._recent.clear()
                self.start_ns = None
            for key, sample in run:
                self._recent.append((key, sample))
                if self.state is State.WATCHING:
                    events += self.monitor.add(key, sample)
        self._forget()
        return events

    def _runs(self, batch: Iterable[Arrived]) -> list[list[Arrived]]:
        """The samples by stamp, apart for each run of the clock; the first may be empty."""
        runs: list[list[Arrived]] = [[]]
        falls: Counter[str] = Counter()
        for key, sample in batch:
            newest = self._newest.get(key, sample.stamp_ns)
            if sample.stamp_ns < newest - CLOCK_JUMP_NS:
                falls[key] += 1
                newest = sample.stamp_ns
                while len(runs) <= falls[key]:
                    runs.append([])
            self._newest[key] = max(newest, sample.stamp_ns)
            runs[falls[key]].append((key, sample))
        return [sorted(run, key=lambda item: item[1].stamp_ns) for run in runs]

    def _forget(self) -> None:
        oldest_ns = max(self._newest.values(), default=0) - RECENT_NS
        while self._recent and self._recent[0][1].stamp_ns < oldest_ns:
            self._recent.popleft()

    def advance(self, now_ns: int) -> list[Event]:
        """Close the slots that time alone has closed; what was sent by then must be taken first."""
        return self.monitor.advance(now_ns) if self.state is State.WATCHING else []
