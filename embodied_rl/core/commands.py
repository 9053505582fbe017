"""What happens to an action chunk between the policy and the motors: limits, then following."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied_rl.core.embodiment import (
    JOINT_STATE,
    JOINT_TRAJECTORY,
    NANOSECONDS,
    ODOMETRY,
    TWIST_DIMENSIONS,
    TWIST_STAMPED,
    Embodiment,
    Stream,
    Workspace,
)
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk
from embodied_rl.core.window import Arrival, RowBuilder, Sample


class TrajectoryTrack:
    """A target over time: straight lines between knots, then the last one is held.

    This is what ``joint_trajectory_controller`` does with a trajectory of positions. A new
    trajectory starts at the target that the old one has at its stamp, so there is no jump.
    """

    def __init__(self, start_ns: int, value: np.ndarray):
        self._times = np.array([start_ns], dtype=np.int64)
        self._values = np.array([value], dtype=np.float64)  # (T, n)

    @property
    def end_ns(self) -> int:
        return int(self._times[-1])

    def follow(self, stamp_ns: int, times_ns: np.ndarray, values: np.ndarray) -> None:
        """Replace what lies after ``stamp_ns`` by knots ``values (T, n)`` at ``times_ns (T,)``.

        Knots whose time has passed by then are left out; if all have, the last one holds at once.
        """
        passed = int(np.count_nonzero(times_ns <= stamp_ns))
        begin = values[-1] if passed and passed == len(values) else self.target(stamp_ns)
        self._times = np.concatenate([[stamp_ns], times_ns[passed:]]).astype(np.int64)
        self._values = np.concatenate([begin[None], values[passed:]])

    def target(self, time_ns: int) -> np.ndarray:
        """Target ``(n,)``; exact at the knots, so that cutting a trajectory changes nothing."""
        left = int(np.searchsorted(self._times, time_ns, side="right")) - 1
        if left < 0:
            return self._values[0]
        if left == len(self._times) - 1 or self._times[left] == time_ns:
            return self._values[left]
        span = self._times[left + 1] - self._times[left]
        share = (time_ns - self._times[left]) / span
        return self._values[left] + (self._values[left + 1] - self._values[left]) * share

    def upcoming(self, time_ns: int) -> np.ndarray:
        """Value ``(n,)`` of the first knot at or after a time: for targets applied at once."""
        right = int(np.searchsorted(self._times, time_ns, side="left"))
        return self._values[min(right, len(self._values) - 1)]


def stepped(embodiment: Embodiment) -> np.ndarray:
    """Which dimensions ``(A,)`` are told one target a period instead of following a trajectory."""
    steps = np.zeros(embodiment.action_dim, dtype=bool)
    for key, part in embodiment.slices().items():
        steps[part] = embodiment.commands[key].type != JOINT_TRAJECTORY
    return steps


class ChunkFollower:
    """All actuators of a robot following action chunks: trajectories glide, all others step."""

    def __init__(self, embodiment: Embodiment, start_ns: int, targets: np.ndarray):
        self._track = TrajectoryTrack(start_ns, targets)
        self._steps = stepped(embodiment)

    @property
    def end_ns(self) -> int:
        return self._track.end_ns

    def follow(self, chunk: ActionChunk) -> None:
        self._track.follow(chunk.stamp_ns, chunk.times_ns, chunk.values)

    def target(self, time_ns: int) -> np.ndarray:
        """Targets ``(A,)`` that the actuators have at a time."""
        return np.where(self._steps, self._track.upcoming(time_ns), self._track.target(time_ns))


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

    def add(self, key: str, sample: Sample) -> Arrival:
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


@dataclass(frozen=True)
class LimitReport:
    """How many of a chunk's targets the limiter had to change, by the limit that was hit."""

    range: int = 0
    rate: int = 0
    workspace: int = 0

    @property
    def touched(self) -> bool:
        return bool(self.range or self.rate or self.workspace)


class CommandLimiter:
    """Brings a chunk within the embodiment's limits, target by target from where the robot is.

    Targets are clipped to ``[lower, upper]``, steps to ``max_rate`` times the time there is for
    them (a period, or what is left of it), and from the first target on that would leave the
    workspace (or go further out) the chunk holds still.
    """

    def __init__(self, embodiment: Embodiment):
        self._embodiment = embodiment
        self._lower, self._upper, self._max_rate = embodiment.limits()
        self._steps = stepped(embodiment)
        self._velocities = embodiment.velocities
        # how far each velocity changes in a control period on the way to rest; positions stay
        self._brake = np.where(self._velocities, self._max_rate, 0.0) * (
            embodiment.period_ns / NANOSECONDS
        )
        self._arm = [
            embodiment.action_names.index(joint)
            for joint in (embodiment.chain.joints if embodiment.chain else ())
        ]
        # A joint that is told one target a period is committed until the end of that period, the
        # others only until now: so each kind has a track of its own.
        self._glide: TrajectoryTrack | None = None
        self._step: TrajectoryTrack | None = None

    def reset(self, time_ns: int, state: np.ndarray) -> None:
        """Start from a measured state ``(A,)``: positions, and velocities of a base.

        Raises:
            UserError: another count, or a value that is not finite: no limit could hold then.
        """
        names = self._embodiment.action_names
        start = np.asarray(state, dtype=np.float64)
        if start.shape != (len(names),):
            raise UserError(
                f"measured state: expected {len(names)} values, saw shape {start.shape}"
            )
        if not np.all(np.isfinite(start)):
            where = int(np.argmin(np.isfinite(start)))
            raise UserError(f"measured state: {names[where]} is not finite")
        self._glide = self._step = TrajectoryTrack(time_ns, start)

    @property
    def started(self) -> bool:
        return self._glide is not None

    def target(self, time_ns: int) -> np.ndarray:
        """The limited target ``(A,)`` of a time. Needs :meth:`reset` first."""
        return self.still(time_ns, time_ns)

    def still(self, now_ns: int, told_ns: int) -> np.ndarray:
        """Where the robot was last sent ``(A,)``; arguments as for :meth:`limit`."""
        if self._glide is None or self._step is None:
            raise RuntimeError("CommandLimiter.reset() must come before the first command")
        return np.where(self._steps, self._step.target(told_ns), self._glide.target(now_ns))

    def rest(self, now_ns: int, told_ns: int) -> np.ndarray:
        """Stand still from now on: positions stay where the robot was last sent, and velocities
        go to zero within ``max_rate`` once the period is over that they have been told for.

        Returns:
            What is in force until then ``(A,)``; arguments as for :meth:`limit`.
        """
        begin = self.still(now_ns, told_ns)
        start_ns = max(now_ns, told_ns)
        self._glide = self._step = TrajectoryTrack(start_ns, begin)
        moving = np.abs(begin[self._velocities]) / self._brake[self._velocities]
        periods = np.arange(1, np.ceil(moving.max(initial=0.0)) + 1)
        if len(periods):
            reach = periods[:, None] * self._brake
            times_ns = start_ns + self._embodiment.period_ns * periods.astype(np.int64)
            self._step = TrajectoryTrack(start_ns, begin)
            self._step.follow(start_ns, times_ns, begin - np.clip(begin, -reach, reach))
        return begin

    def halt(self, now_ns: int, told_ns: int) -> np.ndarray:
        """As :meth:`rest`, but velocities are zero at once; the new targets ``(A,)``."""
        targets = self._embodiment.at_rest(self.still(now_ns, told_ns))
        self._glide = self._step = TrajectoryTrack(now_ns, targets)
        return targets

    def moving(self, told_ns: int) -> bool:
        """Whether a base has last been told a velocity that is not zero."""
        if self._step is None:
            return False
        return bool(np.any(self._step.target(told_ns)[self._velocities]))

    def limit(
        self, chunk: ActionChunk, now_ns: int | None = None, told_ns: int = 0
    ) -> tuple[ActionChunk, LimitReport]:
        """The chunk within limits, which then is the track that the next one starts from.

        Args:
            chunk: all its targets lie after ``now_ns``, one period apart.
            now_ns: until when the old track was followed; default: the stamp of the chunk.
            told_ns: until when joints that are told one target a period have theirs already.

        Raises:
            UserError: wrong width, or a value that is not finite; the old track stays in force.
        """
        names = self._embodiment.action_names
        if chunk.values.ndim != 2 or chunk.values.shape[1] != len(names):
            raise UserError(
                f"command: expected targets of shape (T, {len(names)}), saw {chunk.values.shape}"
            )
        bad = np.argwhere(~np.isfinite(chunk.values))
        if len(bad):
            raise UserError(f"command: {names[bad[0][1]]}: target {bad[0][0]} is not finite")
        start_ns = chunk.stamp_ns if now_ns is None else now_ns
        step_ns = max(told_ns, min(start_ns, chunk.stamp_ns))
        begin = self.still(start_ns, step_ns)
        starts_ns = np.where(self._steps, step_ns, start_ns)
        values, report = self._limited(begin, starts_ns, chunk)
        limited = ActionChunk(chunk.stamp_ns, chunk.period_ns, values)
        self._glide = TrajectoryTrack(start_ns, begin)
        self._step = TrajectoryTrack(step_ns, begin)
        for track, since_ns in ((self._glide, start_ns), (self._step, step_ns)):
            track.follow(since_ns, limited.times_ns, limited.values)
        return limited, report

    def _limited(
        self, begin: np.ndarray, starts_ns: np.ndarray, chunk: ActionChunk
    ) -> tuple[np.ndarray, LimitReport]:
        previous, values = begin, np.empty_like(chunk.values)
        clipped = slowed = workspace = 0
        for i, wanted in enumerate(chunk.values):
            since_ns = np.maximum(starts_ns, chunk.stamp_ns + i * chunk.period_ns)
            left_ns = np.maximum(chunk.times_ns[i] - since_ns, 0)
            reach = self._max_rate * (left_ns / NANOSECONDS)
            inside = np.clip(wanted, self._lower, self._upper)
            clipped += int(np.any(inside != wanted))
            # A start outside the limits is led back at the rate limit, never jumped.
            near = np.clip(inside, previous - reach, previous + reach)
            slowed += int(np.any(near != inside))
            if self._leaves_workspace(previous, near):
                workspace = len(values) - i
                values[i:] = previous
                break
            values[i] = previous = near
        return values, LimitReport(clipped, slowed, workspace)

    def _leaves_workspace(self, previous: np.ndarray, wanted: np.ndarray) -> bool:
        chain, box = self._embodiment.chain, self._embodiment.workspace
        if chain is None or box is None:
            return False
        point = chain.forward(wanted[self._arm])[0]
        if box.contains(point):
            return False
        # Already outside: moving back in must stay possible.
        return _outside(box, point) >= _outside(box, chain.forward(previous[self._arm])[0])


def _outside(box: Workspace, point: np.ndarray) -> float:
    """How far a point lies outside a box, in metres; 0 inside."""
    return float(np.linalg.norm(point - np.clip(point, box.lower, box.upper)))
