"""The last look at a command: what the command gate node decides, without ROS.

The gate is the only writer of actuator topics. It lets limited chunks through, and holds the robot
still when the policy falls silent, when a chunk runs out, or when somebody stops it.

To hold still means for a joint to keep its last target, for a base to come to rest: its velocity
goes to zero within its ``max_acceleration``, a step a control period, so that a load stays on and a
tall robot upright. An emergency stop asks for zero at once; what the base can do of that is up to
its own controller.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

import numpy as np

from embodied_rl.core.commands import CommandLimiter
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk


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
        self.counts: Counter[str] = Counter()
        self.state = GateState.WAITING
        self.reason = ""
        self.reset()

    def reset(self) -> None:
        """Begin an episode: forget the chunk; an emergency stop stays."""
        self._limiter = CommandLimiter(self._embodiment)
        self._chunk: ActionChunk | None = None
        self._given_ns = 0  # up to here it has been said where the robot goes
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

    def start(self, time_ns: int, state: np.ndarray) -> None:
        """Measured positions and velocities ``(A,)``, from which the first command is limited."""
        self._limiter.reset(time_ns, state)

    def accept(self, chunk: ActionChunk, now_ns: int) -> ActionChunk | None:
        """The limited chunk that is now in force, or None while stopped.

        Up to ``now_ns`` the robot has followed what it was told before, so that is where the first
        step begins, and targets from before then are left out.

        Raises:
            UserError: a value is not finite, the stamp is no control tick, or the chunk is older
                than the one in force or than what the robot was last told.
        """
        if self.state is GateState.STOPPED:
            self.counts["refused while stopped"] += 1
            return None
        try:
            self._check_stamp(chunk)
            chunk = self._still_open(chunk, now_ns)
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

    def next_target(self, tick_ns: int) -> ActionChunk:
        """The one target of the control period that begins at ``tick_ns``; a hold if there is none.

        Needs :meth:`start`.
        """
        if self.state is GateState.FOLLOWING and self.ends_before(tick_ns):
            self.hold(tick_ns, "the chunk has run out")
        elif self.state is not GateState.FOLLOWING:
            self._limiter.rest(tick_ns, self._given_ns)
        self._given_ns = max(self._given_ns, tick_ns + self._period_ns)
        target = self._limiter.target(tick_ns + self._period_ns)
        return ActionChunk(tick_ns, self._period_ns, target[None])

    def hold(self, time_ns: int, reason: str) -> ActionChunk:
        """Stay where the robot was last sent; a base that moves is led to rest by the calls of
        :meth:`next_target` that follow. Needs :meth:`start`."""
        if self.state is GateState.FOLLOWING:
            self.counts["holds"] += 1
        if self.state is not GateState.STOPPED:
            self.state, self.reason = GateState.HOLDING, reason
        return self._told(time_ns, self._limiter.rest(time_ns, self._given_ns))

    def stop(self, time_ns: int) -> ActionChunk | None:
        """Emergency stop, until :meth:`release`. None when it has never known the robot."""
        if self.state is not GateState.STOPPED:
            self.counts["emergency stops"] += 1
        self.state, self.reason = GateState.STOPPED, "emergency stop"
        return self.halt(time_ns) if self.started else None

    def halt(self, time_ns: int) -> ActionChunk:
        """Joints stay, velocities become zero at once. Needs :meth:`start`."""
        return self._told(time_ns, self._limiter.halt(time_ns, self._given_ns))

    def release(self) -> None:
        """End an emergency stop; nothing moves before the next chunk."""
        if self.state is GateState.STOPPED:
            self.state, self.reason = GateState.HOLDING, "released, no command yet"

    def _check_stamp(self, chunk: ActionChunk) -> None:
        if chunk.stamp_ns % self._period_ns:
            raise UserError(
                f"command: expected a stamp that is a control tick, a multiple of "
                f"{self._period_ns} ns, saw {chunk.stamp_ns} ns"
            )
        if chunk.stamp_ns < self.chunk_stamp_ns:
            raise UserError(
                f"command: expected a chunk not older than {self.chunk_stamp_ns} ns, "
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
