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

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk


class Adapter(Protocol):
    """One robot as the twin of its name; made for an embodiment and the twin's step."""

    streams: tuple[str, ...]  # keys of the embodiment that say the state

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
    """A differential-drive base with velocity commands as the twin ``unicycle``."""

    streams = ("base_position", "base_yaw", "base_linear_velocity")
    actions = ("linear_x", "angular_z")

    def __init__(self, embodiment: Embodiment, dt_s: float):
        embodiment.require(self.streams)
        check_actions(embodiment, "unicycle", self.actions)
        self._ticks = whole_ticks(embodiment, dt_s)
        self._period_s = embodiment.period_ns / 1e9

    def state(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(x, y, heading, forward speed)."""
        x, y = values["base_position"][:2]
        return np.array([x, y, values["base_yaw"][0], values["base_linear_velocity"][0]])

    def targets(self, now: np.ndarray, after: np.ndarray) -> np.ndarray:
        turn = np.remainder(after[2] - now[2] + np.pi, 2 * np.pi) - np.pi
        rate = turn / (self._ticks * self._period_s)
        shares = np.arange(1, self._ticks + 1)[:, None] / self._ticks
        speeds = now[3] + (after[3] - now[3]) * shares
        return np.hstack([speeds, np.full_like(speeds, rate)])

    def rest(self, now: np.ndarray) -> np.ndarray:
        return np.zeros((self._ticks, len(self.actions)))

    def executed(self, chunk: ActionChunk) -> None:
        pass


# name of the dynamics -> how a robot of that kind is driven
ADAPTERS: dict[str, Callable[[Embodiment, float], Adapter]] = {"unicycle": UnicycleBase}


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
