"""Between a robot and its batched dynamics: measured state in, command targets out.

The dynamics (:mod:`embodied_rl.sim.dynamics`) are the *twin* that a policy was trained on. At each
step of the twin an adapter is told the measured state ``now`` and the state ``after`` that the twin
would have one step later, and gives the targets of all control ticks in between. One small class a
robot; nothing here needs torch, so that the bring-up can ask which dynamics a robot has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk


class Adapter(Protocol):
    """One robot as the twin of its name; made for an embodiment and the twin's step."""

    streams: tuple[str, ...]  # keys of the embodiment that say the state

    def reset(self) -> None:
        """An episode begins, or goes on from a memory: what was sent before is not in force."""

    def state(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The twin's state ``(n,)`` from one row of the streams."""

    def targets(self, now: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Targets ``(ticks, A)`` that lead from state ``now`` to ``after`` in one step."""

    def rest(self, now: np.ndarray) -> np.ndarray:
        """Targets ``(ticks, A)`` at which the robot stands still."""

    def executed(self, chunk: ActionChunk) -> None:
        """Told what the limits made of the last targets."""


def whole_ticks(embodiment: Embodiment, dt_s: float) -> int:
    """Control ticks in a step of the twin.

    Raises:
        UserError: the step is no whole number of control periods.
    """
    ticks = dt_s * embodiment.control_rate_hz
    if round(ticks) < 1 or abs(ticks - round(ticks)) > 1e-6:
        raise UserError(
            f"{embodiment.origin}: control_rate_hz: expected a whole number of control ticks in "
            f"the policy's step of {dt_s:g} s, saw {embodiment.control_rate_hz:g} Hz"
        )
    return round(ticks)


def check_actions(embodiment: Embodiment, dynamics: str, names: tuple[str, ...]) -> None:
    """Refuses a robot whose action vector is another one.

    Raises:
        UserError: names file, expected and seen dimensions.
    """
    if embodiment.action_names != names:
        raise UserError(
            f"{embodiment.origin}: commands: a policy of '{dynamics}' expects {list(names)}, saw "
            f"{list(embodiment.action_names)}"
        )


class UnicycleBase:
    """A differential-drive base with velocity commands as the twin ``unicycle``.

    The twin moves a whole step along its old heading at its old speed, and has the new ones only
    then. So the base changes both as late in the step as its limits allow, and first turns a little
    the other way, which keeps it on the straight line. Against changing both evenly that brings the
    arena's slow base a fifth nearer to the twin, and one with four times its limits to a third of
    the distance.
    """

    streams = ("base_position", "base_yaw", "base_linear_velocity")
    actions = ("linear_x", "angular_z")
    _LATENESS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)  # of a turn that ends on the straight line

    def __init__(self, embodiment: Embodiment, dt_s: float):
        embodiment.require(self.streams)
        check_actions(embodiment, "unicycle", self.actions)
        self._ticks = whole_ticks(embodiment, dt_s)
        self._period_s = embodiment.period_ns / NANOSECONDS
        self._lower, self._upper, rate = embodiment.limits()
        self._step = rate * self._period_s  # most change from one tick to the next
        ramp = np.linspace(-1.0, 1.0, self._ticks) if self._ticks > 1 else np.zeros(1)
        # Rates 1 + k ramp, k times this number, lead sideways nowhere in sum (small turns).
        to_end = np.arange(self._ticks, 0, -1) - 0.5
        self._ramp = ramp * (to_end.sum() / max(-(ramp @ to_end), 1e-9))
        self.reset()

    def reset(self) -> None:
        self._sent: np.ndarray | None = None  # (2,) newest velocities in force

    def state(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(x, y, heading, forward speed)."""
        x, y = values["base_position"][:2]
        return np.array([x, y, values["base_yaw"][0], values["base_linear_velocity"][0]])

    def targets(self, now: np.ndarray, after: np.ndarray) -> np.ndarray:
        begin = np.array([now[3], 0.0]) if self._sent is None else self._sent
        left = np.arange(self._ticks - 1, -1, -1) * self._step[0]
        speeds = np.clip(now[3], after[3] - left, after[3] + left)
        turn = np.remainder(after[2] - now[2] + np.pi, 2 * np.pi) - np.pi
        mean = turn / (self._ticks * self._period_s)
        for lateness in self._LATENESS:
            rates = mean * (1.0 + lateness * self._ramp)
            found = self._limited(np.column_stack([speeds, rates]), begin)
            lost = mean - found[:, 1].mean()
            if abs(lost) < 1e-3:
                break
        for _ in range(self._ticks):  # what the limits cut off is turned in the other ticks
            found = self._limited(found + [0.0, lost], begin)
            lost = mean - found[:, 1].mean()
        self._sent = found[-1]  # until it is known what the limits let through
        return found

    def _limited(self, targets: np.ndarray, begin: np.ndarray) -> np.ndarray:
        """Targets ``(ticks, 2)`` within the limits, from the velocities ``begin (2,)`` on."""
        found, last = np.empty_like(targets), begin
        for i, wanted in enumerate(np.clip(targets, self._lower, self._upper)):
            found[i] = last = np.clip(wanted, last - self._step, last + self._step)
        return found

    def rest(self, now: np.ndarray) -> np.ndarray:
        return np.zeros((self._ticks, len(self.actions)))

    def executed(self, chunk: ActionChunk) -> None:
        self._sent = chunk.values[-1].astype(np.float64)


class JointTargets:
    """An arm with joint position targets and a gripper, as the twin ``arm``.

    Servos trail their targets. A step added to where the joints *are* would therefore be a short
    one; it is added to the target in force, as long as the joints follow that. The network sees the
    measured joints all the same. The gripper stays as it is found.
    """

    streams = ("arm_position", "gripper_position")
    most_lead_rad = 0.15  # between target and joint: three steps of the twin

    def __init__(self, embodiment: Embodiment, dt_s: float):
        arm, gripper = (embodiment.require(self.streams)[key].joints for key in self.streams)
        check_actions(embodiment, "arm", (*arm, *gripper))
        self._ticks = whole_ticks(embodiment, dt_s)
        self._arm = len(arm)
        self._lower, self._upper, _ = embodiment.limits()
        self.reset()

    def reset(self) -> None:
        self._gripper: np.ndarray | None = None
        self._sent: np.ndarray | None = None  # (n,) newest target in force

    def state(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Joint angles, in rad."""
        if self._gripper is None:
            self._gripper = np.array(values["gripper_position"], dtype=np.float64)
        return np.array(values["arm_position"], dtype=np.float64)

    def targets(self, now: np.ndarray, after: np.ndarray) -> np.ndarray:
        begin = self._begin(now)
        end = np.clip(begin + after - now, now - self.most_lead_rad, now + self.most_lead_rad)
        return self._rows(begin, end)

    def rest(self, now: np.ndarray) -> np.ndarray:
        begin = self._begin(now)
        return self._rows(begin, begin)

    def _begin(self, now: np.ndarray) -> np.ndarray:
        """Where a step begins: the target in force, kept near the joints."""
        sent = now if self._sent is None else self._sent
        return np.clip(sent, now - self.most_lead_rad, now + self.most_lead_rad)

    def _rows(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """``(ticks, A)``: the arm evenly from one place to the other, the gripper still."""
        if self._gripper is None:
            raise RuntimeError("JointTargets.state() must come before the first targets")
        shares = np.arange(1, self._ticks + 1)[:, None] / self._ticks
        arm = begin + (end - begin) * shares
        rows = np.hstack([arm, np.tile(self._gripper, (self._ticks, 1))])
        rows = np.clip(rows, self._lower, self._upper)
        self._sent = rows[-1, : self._arm]  # until it is known what the limits let through
        return rows

    def executed(self, chunk: ActionChunk) -> None:
        self._sent = chunk.values[-1, : self._arm].astype(np.float64)


# name of the dynamics -> how a robot of that kind is driven
ADAPTERS: dict[str, Callable[[Embodiment, float], Adapter]] = {
    "unicycle": UnicycleBase,
    "arm": JointTargets,
}


def make_adapter(dynamics: str, dt_s: float, embodiment: Embodiment) -> Adapter:
    """The adapter between a robot and the dynamics that a policy was trained on.

    Raises:
        UserError: no robot is driven as these dynamics, or this one is not; says which.
    """
    if dynamics not in ADAPTERS:
        raise UserError(
            f"{embodiment.origin}: '{embodiment.name}' is not driven as '{dynamics}'; policies of "
            f"{sorted(ADAPTERS)} run on robots, the others in their dynamics only"
        )
    return ADAPTERS[dynamics](embodiment, dt_s)


def twin_of(embodiment: Embodiment) -> str:
    """Name of the dynamics that a robot is driven as.

    Raises:
        UserError: of none that we know; names them.
    """
    for name, make in ADAPTERS.items():
        try:
            make(embodiment, embodiment.period_ns / NANOSECONDS)
        except UserError:
            continue
        return name
    raise UserError(
        f"{embodiment.origin}: '{embodiment.name}' is driven as none of {sorted(ADAPTERS)}: its "
        "streams or commands are other ones"
    )
