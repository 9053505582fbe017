"""Where a robot is, as its own sensors say: what every command is limited from.

:class:`StateWatch` takes each sample at its word, which a simulator's deserve. :class:`AgreedState`
believes a sample only when another one agrees with it: a single glitch never becomes a command.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from embodied_rl.core.embodiment import (
    JOINT_STATE,
    NANOSECONDS,
    ODOMETRY,
    TWIST_DIMENSIONS,
    Embodiment,
    Stream,
)
from embodied_rl.core.errors import UserError
from embodied_rl.core.window import Arrival, RowBuilder, Sample

# Two samples agree when what lies between them is at most this many times what the limits allow in
# the time between them (and one more sampling period, for clocks that are read unevenly) ...
SLACK = 2.0
# ... and this share of the range of the dimension, for the noise of the sensor: velocities are
# noisier than positions, and a blow may change them faster than any command.
POSITION_NOISE, VELOCITY_NOISE = 1e-3, 5e-2
READ_NS = 5_000_000  # two arrivals may be dated in the wrong order by so much


def measured_by(stream: Stream) -> dict[str, int]:
    """Commanded dimension -> place in the stream that measures it."""
    if stream.type == JOINT_STATE and stream.field == "position":
        return {joint: i for i, joint in enumerate(stream.joints)}
    if stream.type == ODOMETRY:
        return {
            dimension: stream.components.index(component)
            for dimension, (field, component) in TWIST_DIMENSIONS.items()
            if field == stream.field
        }
    return {}


class StateWatch:
    """Measured state of every commanded dimension, which is where the limiter starts from:
    positions of joints, velocities of a base.

    Raises:
        UserError: no stream of the embodiment measures a commanded dimension.
    """

    KEEP_NS = 2 * NANOSECONDS  # a command is never older than this when it starts

    def __init__(self, embodiment: Embodiment):
        self._names = embodiment.action_names
        self._source: dict[str, tuple[str, int]] = {}
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
        picked = [self._source[name] for name in self._names]
        return np.array([row.values[key][i] for key, i in picked])


class AgreedState(StateWatch):
    """Measured state that two samples in a row agree on.

    A sample is believed when it agrees with the last one that was believed, or with the one right
    before it, and only then shown to the rest of :class:`StateWatch`. So the state starts with the
    second sample, a glitch is passed over, and a robot that really is elsewhere is found with its
    second sample there.
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
        self._last: dict[str, Sample] = {}
        self._believed: dict[str, deque[Sample]] = {key: deque(maxlen=2) for key in self.keys}
        self.doubted = 0

    def reset(self, start_ns: int) -> None:
        super().reset(start_ns)
        self._last.clear()
        for samples in self._believed.values():
            samples.clear()

    def add(self, key: str, sample: Sample) -> Arrival | None:
        """As :meth:`StateWatch.add`; None for a sample that no other one agrees with so far."""
        before, self._last[key] = self._last.get(key), sample
        believed = self._believed[key]
        if not any(
            other is not None and self._agree(key, other, sample)
            for other in (believed[-1] if believed else None, before)
        ):
            self.doubted += before is not None
            return None
        believed.append(sample)
        return super().add(key, sample)

    def _agree(self, key: str, one: Sample, other: Sample) -> bool:
        stream = self._streams[key]
        apart_ns = other.stamp_ns - one.stamp_ns
        if not -READ_NS < apart_ns <= stream.max_age_ns + stream.period_ns:
            return False
        places, rate, noise = self._places[key]
        reach_ns = max(apart_ns, 0) + stream.period_ns
        reach = SLACK * rate * (reach_ns / NANOSECONDS) + noise
        return bool(np.all(np.abs(other.value[places] - one.value[places]) <= reach))

    def newest(self) -> np.ndarray | None:
        """Newest believed value of every dimension ``(A,)``; None where one was never believed."""
        if not all(self._believed.values()):
            return None
        picked = [self._source[name] for name in self._names]
        return np.array([self._believed[key][-1].value[i] for key, i in picked])

    def stamp_ns(self, key: str) -> int:
        """Stamp of the newest believed sample of a stream; 0 when there is none."""
        samples = self._believed[key]
        return samples[-1].stamp_ns if samples else 0
