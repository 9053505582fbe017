"""Where a robot is, as its own sensors say: what every command is limited from.

:class:`StateWatch` takes each sample at its word, which a simulator's deserve. :class:`AgreedState`
believes a sample only when another one agrees with it: a single glitch never becomes a command.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from embodied_rl.core.cartesian import Tool
from embodied_rl.core.embodiment import (
    JOINT_STATE,
    NANOSECONDS,
    ODOMETRY,
    TWIST_DIMENSIONS,
    TWIST_STAMPED,
    Embodiment,
    Stream,
)
from embodied_rl.core.errors import UserError
from embodied_rl.core.window import Arrival, Observation, RowBuilder, Sample

# Two samples agree when what lies between them is at most this many times what the limits allow in
# the time between them (and one more sampling period, for clocks that are read unevenly) ...
SLACK = 2.0
# ... and this share of the range of the dimension, for the noise of the sensor: velocities are
# noisier than positions, and a blow may change them faster than any command.
POSITION_NOISE, VELOCITY_NOISE = 1e-3, 5e-2
LEAST_REACH_S = 0.04  # a driver may publish faster than it measures
AWAY_NS = NANOSECONDS  # so long a robot that comes back elsewhere must say so before it is believed
READ_NS = 5_000_000  # two arrivals may be dated in the wrong order by so much


def measured_by(stream: Stream) -> dict[str, int]:
    """Commanded dimension -> place in the stream that measures it."""
    if stream.type == JOINT_STATE and stream.field == "position":
        return {joint: i for i, joint in enumerate(stream.joints)}
    if stream.type in (ODOMETRY, TWIST_STAMPED):
        return {
            dimension: stream.components.index(component)
            for dimension, (field, component) in TWIST_DIMENSIONS.items()
            if field == stream.field
        }
    return {}


class StateWatch:
    """Measured state of every commanded dimension, which is where the limiter starts from:
    positions of joints, poses of tools, velocities of a base.

    Raises:
        UserError: no stream of the embodiment measures a commanded dimension.
    """

    KEEP_NS = 2 * NANOSECONDS  # a command is never older than this when it starts

    def __init__(self, embodiment: Embodiment):
        self._names = embodiment.action_names
        self._source: dict[str, tuple[str, int]] = {}
        self._turning: dict[str, Tool] = {}  # by the stream that measures their orientation
        for command in embodiment.commands.values():
            if command.tool:
                self._source |= zip(command.names, command.tool.measured_by, strict=True)
                if command.tool.turns:
                    self._turning[command.tool.orientation_stream] = command.tool
        for key, stream in embodiment.streams.items():
            for name, place in measured_by(stream).items():
                self._source.setdefault(name, (key, place))
        unmeasured = [name for name in self._names if name not in self._source]
        if unmeasured:
            raise UserError(
                f"{embodiment.origin}: streams: expected one that measures every commanded joint "
                "(JointState, field position) and every velocity of a base (Odometry), "
                f"saw none of {unmeasured[0]}"
            )
        self.keys = sorted({self._source[name][0] for name in self._names})
        self._builder = RowBuilder(embodiment, self.keys)

    def reset(self, start_ns: int) -> None:
        self._builder.reset(start_ns)

    def add(self, key: str, sample: Sample) -> Arrival | None:
        """What became of a sample; None where a subclass does not believe it yet."""
        tool = self._turning.get(key)
        if tool is not None:
            sample = Sample(sample.stamp_ns, tool.rotation_vector(sample.value))
        return self._take(key, sample)

    def _take(self, key: str, sample: Sample) -> Arrival | None:
        arrival = self._builder.add(key, sample)
        self._builder.forget_before(sample.stamp_ns - self.KEEP_NS)
        return arrival

    def owing(self, time_ns: int) -> list[str]:
        """The streams whose sample for that time has not arrived yet."""
        return self._builder.owing(time_ns)

    def state(self, time_ns: int) -> np.ndarray:
        """Positions and velocities ``(A,)`` at a time, in action order.

        Raises:
            UserError: one was not measured within the maximum age of its stream.
        """
        row = self._builder.row(time_ns)
        if row.missing:
            raise UserError(f"measured state: stream '{row.missing[0]}' is missing or too old")
        return self._picked(row)

    def in_row(self, row: Observation) -> np.ndarray:
        """State ``(A,)`` in a row of at least :attr:`keys`; NaN where one was not measured."""
        values = {key: row.values[key].astype(np.float64) for key in self.keys}
        for key in self.keys:
            if not row.valid[key]:
                values[key] = np.full_like(values[key], np.nan)
            elif key in self._turning:
                values[key] = self._turning[key].rotation_vector(values[key])
        return self._picked(Observation(row.stamp_ns, values, row.valid))

    def _picked(self, row: Observation) -> np.ndarray:
        picked = [self._source[name] for name in self._names]
        return np.array([row.values[key][i] for key, i in picked])


class AgreedState(StateWatch):
    """Measured state that two samples in a row agree on.

    A sample is believed when it agrees with the last one that was believed, or with the one right
    before it, and only then shown to the rest of :class:`StateWatch`. So the state starts with the
    second sample, and a glitch is passed over.

    No joint gets from one place to another between two samples. Where its sensor says so, and goes
    on saying so, the stream is not believed any more (:attr:`leapt`) until it tells the old place
    again, or :meth:`reset` says that the new one is true.
    """

    def __init__(self, embodiment: Embodiment):
        super().__init__(embodiment)
        lower, upper, rate = embodiment.limits()
        noise = np.where(embodiment.velocities, VELOCITY_NOISE, POSITION_NOISE)
        noise = noise * (upper - lower)
        self._places: dict[str, tuple[list[int], np.ndarray, np.ndarray]] = {}
        for key in self.keys:
            found = [i for i, name in enumerate(self._names) if self._source[name][0] == key]
            places = [self._source[self._names[i]][1] for i in found]
            self._places[key] = (places, rate[found], noise[found])
        self._streams = embodiment.require(self.keys)
        # No joint is further outside its range than the range is wide, whatever its sensor says.
        wide = upper - lower
        self._least, self._most = {}, {}
        for key, (places, _, _) in self._places.items():
            found = [i for i, name in enumerate(self._names) if self._source[name][0] == key]
            free = embodiment.velocities[found]
            self._least[key] = np.where(free, -np.inf, (lower - wide)[found])
            self._most[key] = np.where(free, np.inf, (upper + wide)[found])
            assert len(places) == len(found)
        self._run_ns: dict[str, int] = {}  # since when the samples of a stream agree
        self._last: dict[str, Sample] = {}
        self._believed: dict[str, deque[Sample]] = {key: deque(maxlen=2) for key in self.keys}
        self._positions = {
            key: not np.any(embodiment.velocities[[i for i, n in enumerate(self._names)
                                                   if self._source[n][0] == key]])
            for key in self.keys
        }  # fmt: skip
        self.leapt: set[str] = set()
        self.doubted = 0

    def reset(self, start_ns: int) -> None:
        super().reset(start_ns)
        self._last.clear()
        self._run_ns.clear()
        self.leapt.clear()
        for samples in self._believed.values():
            samples.clear()

    def _take(self, key: str, sample: Sample) -> Arrival | None:
        """None for a sample that no other one agrees with so far."""
        believed = self._believed[key]
        last = believed[-1] if believed else None
        sample = self._unwrapped(key, sample, last)
        before, self._last[key] = self._last.get(key), sample
        if before is None or not self._agree(key, before, sample):
            self._run_ns[key] = sample.stamp_ns
        if not self._believable(key, sample, last, before):
            self.doubted += before is not None
            return None
        self.leapt.discard(key)
        believed.append(sample)
        return super()._take(key, sample)

    def _believable(
        self, key: str, sample: Sample, last: Sample | None, before: Sample | None
    ) -> bool:
        """Whether a sample counts, after the ``last`` that did and the one right ``before`` it."""
        if key in self.leapt:
            return last is not None and self._near(key, last, sample)
        if last is not None and self._agree(key, last, sample):
            return True
        if before is None or not self._agree(key, before, sample):
            return False
        if last is None or not self._positions[key]:
            return True
        if self._follows(key, last, sample):
            self.leapt.add(key)
            return False
        # It was away for a while: near where it was at once, elsewhere when it goes on saying so.
        away_ns = sample.stamp_ns - self._run_ns[key]
        return self._near(key, last, sample) or away_ns >= AWAY_NS

    def _unwrapped(self, key: str, sample: Sample, last: Sample | None) -> Sample:
        """Joints that turn without end go on counting where their driver begins again."""
        endless = self._streams[key].continuous
        if not endless or last is None or not np.all(np.isfinite(sample.value)):
            return sample
        turns = np.round((last.value - sample.value) / (2 * np.pi))
        mask = np.array([centre is not None for centre in endless])
        return Sample(sample.stamp_ns, sample.value + np.where(mask, 2 * np.pi * turns, 0.0))

    def _follows(self, key: str, one: Sample, other: Sample) -> bool:
        """Whether no more time lies between two samples than between samples of the stream."""
        stream = self._streams[key]
        apart_ns = other.stamp_ns - one.stamp_ns
        return -READ_NS < apart_ns <= stream.max_age_ns + stream.period_ns

    def _agree(self, key: str, one: Sample, other: Sample) -> bool:
        if not self._follows(key, one, other):
            return False
        return self._within(key, one, other, max(other.stamp_ns - one.stamp_ns, 0))

    def _near(self, key: str, one: Sample, other: Sample) -> bool:
        """Whether two samples tell the same place, however much time lies between them."""
        return self._within(key, one, other, self._streams[key].max_age_ns)

    def _within(self, key: str, one: Sample, other: Sample, apart_ns: int) -> bool:
        places, rate, noise = self._places[key]
        values = other.value[places]
        if np.any((values < self._least[key]) | (values > self._most[key])):
            return False
        reach_s = max((apart_ns + self._streams[key].period_ns) / NANOSECONDS, LEAST_REACH_S)
        gap = np.abs(values - one.value[places])
        return bool(np.all(gap <= SLACK * rate * reach_s + noise))

    def newest(self) -> np.ndarray | None:
        """Newest believed value of every dimension ``(A,)``; None where one was never believed."""
        if not all(self._believed.values()):
            return None
        picked = [self._source[name] for name in self._names]
        return np.array([self._believed[key][-1].value[i] for key, i in picked])

    def stamps_ns(self) -> np.ndarray:
        """Stamp of the newest believed sample of every dimension ``(A,)``; 0 where none is."""
        return np.array([self.stamp_ns(self._source[name][0]) for name in self._names])

    def stamp_ns(self, key: str) -> int:
        """Stamp of the newest believed sample of a stream; 0 when there is none."""
        samples = self._believed[key]
        return samples[-1].stamp_ns if samples else 0
