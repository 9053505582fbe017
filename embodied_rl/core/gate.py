"""The last look at a command: what the command gate node decides, without ROS.

The gate is the only writer of actuator topics. It lets limited chunks through, and holds the robot
still when the policy falls silent, when a chunk runs out, when the robot does not follow, or when
somebody stops it.

To hold still means for a joint to keep its last target, for a base to come to rest: its velocity
goes to zero within its ``max_acceleration``, a step a control period, so that a load stays on and a
tall robot upright. An emergency stop does the same; what it adds is that nothing is accepted until
it is released.

On a robot the gate follows the measured joints, not its own memory. Whoever knows the measured
state hands it over: then a chunk that ends a hold begins where the joints are, and a hold is where
they are if they are not near what they were told.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

import numpy as np

from embodied_rl.core.commands import CommandLimiter
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk

LONGEST_CHUNK = 1024  # targets: a longer one is no plan, and would keep the gate from a stop
FUTURE_PERIODS = 2  # how many control periods a chunk may be stamped ahead of the clock
LONGEST_WAY_S = 60.0  # that a hold may take to where the joints are held
VELOCITY_LASTS_NS = 400_000_000  # a base's controller stops it in the silence after 0.5 s
# A held joint is held elsewhere when it is found this share of its following bound away, or half of
# what it may move in a control period. Smaller errors are the servo's own: to follow those would
# let an arm sink under its weight.
ELSEWHERE_SHARE = 0.2


class GateState(Enum):
    WAITING = "no command yet"
    FOLLOWING = "following a chunk"
    HOLDING = "holding still"
    STOPPED = "emergency stop"


class CommandGate:
    """State machine of the gate. All times are ROS times in nanoseconds."""

    def __init__(self, embodiment: Embodiment):
        self._embodiment = embodiment
        self._period_ns = embodiment.period_ns
        self._bounds = embodiment.following_bounds()
        self._rate = embodiment.limits()[2]
        reach = self._rate * (self._period_ns / NANOSECONDS)
        self._elsewhere = np.maximum(ELSEWHERE_SHARE * self._bounds, reach / 2)
        self.counts: Counter[str] = Counter()
        self.state = GateState.WAITING
        self.reason = ""
        self.reset()

    def reset(self) -> None:
        """Begin an episode: forget the chunk and where the robot is; an emergency stop stays."""
        self._limiter = CommandLimiter(self._embodiment)
        self._chunk: ActionChunk | None = None
        self._given_ns = 0  # up to here it has been said where the robot goes
        self._there_ns = 0  # when joints that are held elsewhere than they were sent may be there
        if self.state is not GateState.STOPPED:
            self.state, self.reason = GateState.WAITING, ""

    @property
    def started(self) -> bool:
        """Whether it knows where the robot is; :meth:`start` tells it."""
        return self._limiter.started

    @property
    def chunk_stamp_ns(self) -> int:
        """Stamp of the chunk in force, 0 when there is none."""
        return self._chunk.stamp_ns if self._chunk else 0

    @property
    def moving(self) -> bool:
        """Whether a base has last been told to move; never true of a robot of joints."""
        return self._limiter.moving(self._given_ns)

    @property
    def standing(self) -> bool:
        """Whether it keeps the robot where it is: a hold or a stop is in force."""
        return self.state in (GateState.HOLDING, GateState.STOPPED)

    def start(self, time_ns: int, state: np.ndarray) -> None:
        """Measured positions and velocities ``(A,)``, from which the first command is limited."""
        self._limiter.reset(time_ns, state)

    def start_from_rest(self, time_ns: int, measured: np.ndarray) -> None:
        """As :meth:`start` on a robot: joints where they are, a base from rest, for the first
        velocity must be within reach of zero whatever its odometry says."""
        self.start(time_ns, self._embodiment.at_rest(measured))

    def accept(
        self, chunk: ActionChunk, now_ns: int, measured: np.ndarray | None = None
    ) -> ActionChunk | None:
        """The limited chunk that is now in force, or None while stopped.

        Up to ``now_ns`` the robot has followed what it was told before, so that is where the first
        step begins, and targets from before then are left out. A chunk that ends a hold begins at
        the ``measured`` joints instead, where they are given ``(A,)``.

        Raises:
            UserError: a value is not finite, the stamp is no control tick, lies in the future, or
                the chunk is not newer than the one in force or than what the robot was last told.
        """
        if self.state is GateState.STOPPED:
            self.counts["refused while stopped"] += 1
            return None
        try:
            self._check(chunk, now_ns)
            chunk = self._still_open(chunk, now_ns)
            self._after_silence(now_ns)
            if measured is not None and self.state is not GateState.FOLLOWING:
                self._hold_where(now_ns, measured, self._bounds < np.inf)
            limited, report = self._limiter.limit(chunk, now_ns, self._given_ns)
        except UserError:
            self.counts["refused"] += 1
            raise
        self.counts["chunks"] += 1
        self.counts["limited chunks"] += report.touched
        for name in ("range", "rate", "workspace"):
            self.counts[f"{name} limit"] += getattr(report, name)
        self._chunk, self.state, self.reason = limited, GateState.FOLLOWING, ""
        return limited

    def ends_before(self, time_ns: int) -> bool:
        """Whether the chunk in force has run out by a time."""
        return self._chunk is None or self._chunk.end_ns <= time_ns

    def ahead(
        self,
        now_ns: int,
        ahead_ns: int,
        measured: np.ndarray | None = None,
        measured_ns: np.ndarray | int = 0,
    ) -> ActionChunk | None:
        """The targets of the chunk in force that are due after ``now_ns`` and within ``ahead_ns``,
        at least one; None when all have passed.

        One that is due in less than half a period is left out if others follow: a controller goes
        from where the joint is, a little behind, and would have to make up for that in no time.
        For the same reason no target is further from the joints ``measured (A,)`` at a time, one
        for all or ``(A,)``, than they may move until it is due.
        """
        if self._chunk is None:
            return None
        rest = self._chunk.after(now_ns + self._period_ns // 2)
        if not len(rest.values):
            rest = self._chunk.after(now_ns)
        if not len(rest.values):
            return None
        count = max(1, int(np.count_nonzero(rest.times_ns <= now_ns + ahead_ns)))
        values = rest.values[:count]
        if measured is not None:
            values = self._within_reach(values, rest.times_ns, measured, measured_ns)
        return ActionChunk(rest.stamp_ns, rest.period_ns, values)

    def _within_reach(
        self,
        values: np.ndarray,
        times_ns: np.ndarray,
        measured: np.ndarray,
        since_ns: np.ndarray | int,
    ) -> np.ndarray:
        """Targets ``(T, A)`` that the joints can reach at their times from where they are."""
        found, here = np.empty_like(values), measured
        for i, wanted in enumerate(values):
            reach = self._rate * np.maximum(int(times_ns[i]) - since_ns, 0) / NANOSECONDS
            near = np.clip(wanted, here - reach, here + reach)
            found[i] = here = np.where(self._bounds < np.inf, near, wanted)
            since_ns = int(times_ns[i])
        return found

    def next_target(self, tick_ns: int) -> ActionChunk:
        """The one target of the control period that begins at ``tick_ns``; a hold if there is none.

        Needs :meth:`start`.
        """
        if self.state is GateState.FOLLOWING and self.ends_before(tick_ns):
            self.hold(tick_ns, "the chunk has run out")
        elif self.state is GateState.FOLLOWING and self._silent(tick_ns):
            self.hold(tick_ns, "nothing was sent for too long")
        elif self.state is not GateState.FOLLOWING:
            self._after_silence(tick_ns)
            self._limiter.rest(tick_ns, self._given_ns)
        self._given_ns = max(self._given_ns, tick_ns + self._period_ns)
        target = self._limiter.target(tick_ns + self._period_ns)
        return ActionChunk(tick_ns, self._period_ns, target[None])

    def hold(self, time_ns: int, reason: str, measured: np.ndarray | None = None) -> ActionChunk:
        """Stay where the robot was last sent, or where its joints are if that is elsewhere; a base
        that moves is led to rest by the calls of :meth:`next_target` that follow. Needs
        :meth:`start`."""
        if self.state is GateState.FOLLOWING:
            self.counts["holds"] += 1
        if self.state is not GateState.STOPPED:
            self.state, self.reason = GateState.HOLDING, reason
        self._after_silence(time_ns)
        if measured is not None:
            self._follow_if_elsewhere(time_ns, measured)
        return self._told(time_ns, self._limiter.rest(time_ns, self._given_ns))

    def come_to(self, reason: str) -> None:
        """Hold, but no longer know where the robot is: until :meth:`start` nothing is said."""
        was = self.state
        self.reset()
        if was is not GateState.STOPPED:
            self.counts["holds"] += was is GateState.FOLLOWING
            self.state, self.reason = GateState.HOLDING, reason

    def stop(self, time_ns: int, measured: np.ndarray | None = None) -> ActionChunk | None:
        """Emergency stop, until :meth:`release`. None when it has never known the robot."""
        if self.state is not GateState.STOPPED:
            self.counts["emergency stops"] += 1
        self.state, self.reason = GateState.STOPPED, "emergency stop"
        if not self.started:
            return None
        return self.hold(time_ns, "", measured)

    def release(self) -> None:
        """End an emergency stop; nothing moves before the next chunk."""
        if self.state is GateState.STOPPED:
            self.state, self.reason = GateState.HOLDING, "released, no command yet"

    def set_clock(self, before_ns: int, now_ns: int) -> None:
        """The clock leapt from ``before_ns``: go on with what was in force then, without a chunk,
        since nothing that was said about times is true any more."""
        if self.started:
            still = self._limiter.still(before_ns, max(before_ns, self._given_ns))
            self._limiter.reset(now_ns, still)
        self._chunk, self._given_ns, self._there_ns = None, 0, 0

    def following_error(self, stamps_ns: np.ndarray | int, measured: np.ndarray) -> str:
        """Why the robot counts as not following, in one line, or nothing.

        Args:
            stamps_ns: when the joints were measured, one time for all or ``(A,)``.
            measured: positions and velocities ``(A,)``.
        """
        if self.state is not GateState.FOLLOWING:
            return ""
        stamps = np.broadcast_to(stamps_ns, measured.shape)
        target = np.empty_like(measured)
        for stamp_ns in np.unique(stamps):
            target = np.where(stamps == stamp_ns, self._limiter.target(int(stamp_ns)), target)
        error = np.abs(measured - target)
        where = int(np.argmax(error / self._bounds))
        if not error[where] > self._bounds[where]:
            return ""
        return (
            f"{self._embodiment.action_names[where]} does not follow: it is more than "
            f"{self._bounds[where]:g} from its target (stopped at the robot, blocked, led by hand, "
            "or its controller is not active)"
        )

    def elsewhere(self, time_ns: int, measured: np.ndarray) -> bool:
        """Whether the joints of a robot that is held are not where they were told to stay."""
        gap = np.abs(measured - self._limiter.still(time_ns, self._given_ns))
        return bool(np.any((gap > self._elsewhere) & (self._bounds < np.inf)))

    def held(self, time_ns: int) -> np.ndarray:
        """Where the robot was last sent ``(A,)``. Needs :meth:`start`."""
        return self._limiter.still(time_ns, self._given_ns)

    def way_ns(self, time_ns: int, measured: np.ndarray | None) -> int:
        """How long the joints need to where they are held, within limits: from where they are
        measured and, for sensors may lie, from where they were commanded before."""
        way_ns = max(self._there_ns - time_ns, 0)
        if measured is not None:
            way_ns = max(way_ns, self._between(measured, self.held(time_ns)))
        return way_ns

    def _between(self, one: np.ndarray, other: np.ndarray) -> int:
        """Time that the joints need from one place to another at their fastest, nanoseconds."""
        gap = np.where(self._embodiment.velocities, 0.0, np.abs(one - other))
        return int(min(np.max(gap / self._rate), LONGEST_WAY_S) * NANOSECONDS)

    def _silent(self, time_ns: int) -> bool:
        return self.moving and 0 < self._given_ns < time_ns - VELOCITY_LASTS_NS

    def _after_silence(self, time_ns: int) -> None:
        """A base that was told nothing for so long has stopped by itself: to go on from what it was
        told last would set it moving again."""
        if self._silent(time_ns):
            still = self._limiter.still(time_ns, self._given_ns)
            self._limiter.reset(time_ns, self._embodiment.at_rest(still))

    def _follow_if_elsewhere(self, time_ns: int, measured: np.ndarray) -> None:
        if self.elsewhere(time_ns, measured):
            self._hold_where(time_ns, measured, self._bounds < np.inf)

    def _hold_where(self, time_ns: int, measured: np.ndarray, which: np.ndarray) -> None:
        """Go on from the measured value of the dimensions ``which (A,)``; the others keep theirs,
        such as a gripper that presses on what it holds."""
        still = self._limiter.still(time_ns, self._given_ns)
        there = np.where(which, measured, still)
        self._there_ns = max(self._there_ns, time_ns + self._between(still, there))
        self._limiter.reset(time_ns, there)

    def _check(self, chunk: ActionChunk, now_ns: int) -> None:
        if len(chunk.values) > LONGEST_CHUNK:
            raise UserError(
                f"command: expected at most {LONGEST_CHUNK} targets, saw {len(chunk.values)}"
            )
        if chunk.stamp_ns % self._period_ns:
            raise UserError(
                f"command: expected a stamp that is a control tick, a multiple of "
                f"{self._period_ns} ns, saw {chunk.stamp_ns} ns"
            )
        if chunk.stamp_ns > now_ns + FUTURE_PERIODS * self._period_ns:
            raise UserError(
                f"command: expected a stamp at most {FUTURE_PERIODS} control periods ahead of the "
                f"clock ({now_ns} ns), saw {chunk.stamp_ns} ns"
            )
        if self._chunk is not None and chunk.stamp_ns <= self._chunk.stamp_ns:
            raise UserError(
                f"command: expected a chunk newer than {self.chunk_stamp_ns} ns, "
                f"saw {chunk.stamp_ns} ns"
            )

    def _still_open(self, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        """The part of a late chunk that begins where the robot was last sent. Its earlier targets
        were never carried out: to go on behind them would be a jump that no rate limit has seen."""
        # The targets of the period that was answered last may still be corrected until they are
        # due, for joints that follow a trajectory.
        closed_ns = max(now_ns, self._given_ns - self._period_ns)
        rest = chunk.after(closed_ns)
        if not len(rest.values):
            raise UserError(
                f"command: expected targets after {closed_ns} ns, until when the robot has "
                f"been sent already, saw the last one at {chunk.end_ns} ns"
            )
        return rest

    def _told(self, time_ns: int, target: np.ndarray) -> ActionChunk:
        """From here on the robot is where it was held, not where the old chunk would have led."""
        self._chunk, self._given_ns = None, max(self._given_ns, time_ns)
        tick_ns = time_ns // self._period_ns * self._period_ns
        return ActionChunk(tick_ns, self._period_ns, target[None])
