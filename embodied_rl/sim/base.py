"""The simulator interface, the same for every backend, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from embodied_rl.core.embodiment import Embodiment, common_period_ns
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.core.window import Sample


class Simulator(Protocol):
    """A robot with its task in a simulated world.

    Time is counted in whole nanoseconds and never goes back, not even on :meth:`reset`. One step
    lasts ``step_ns``, the greatest common divisor of all stream periods and the control period, so
    every stream and every control tick falls on a step. Commands are ``(A,)`` targets, positions of
    joints and velocities of a base, in the order of ``embodiment.action_names``.
    """

    embodiment: Embodiment
    streams: tuple[str, ...]  # keys that read() gives: all but those of cameras left out
    task_name: str
    episodes_per_trial: int  # episodes in a row that share one world

    @property
    def instruction(self) -> str:
        """What the present episode asks for."""

    @property
    def time_ns(self) -> int:
        """Simulated time now."""

    @property
    def step_ns(self) -> int:
        """Duration of one step."""

    @property
    def command(self) -> np.ndarray:
        """Target ``(A,)`` that the actuators have now."""

    def reset(self, seed: int, trial: int = 0) -> None:
        """Begin the episode of a seed, on the next instant at which every stream is due.

        Episodes of the same ``trial`` take place in the same world, whatever their seeds.
        """

    def read(self, render: bool = True) -> dict[str, Sample]:
        """The streams due now, with sensor noise; the same samples however often it is called.

        With ``render=False`` the cameras are left out, for a caller that is late already; what
        the first call of an instant left out is not made up for by a second one.
        """

    def step(self, command: np.ndarray) -> None:
        """Advance ``step_ns``; ``command`` is the target at the END of the step, of a dimension
        that does not glide the target throughout it."""

    def outcome(self) -> Outcome:
        """How the episode stands. Once done it stays as it is until the next reset."""

    def close(self) -> None:
        """Free what the process does not free by itself."""


def choose(kind: str, name: str, valid: Iterable[str]) -> str:
    """``name`` if it is one of ``valid``.

    Raises:
        UserError: it is not; lists the valid names.
    """
    names = sorted(valid)
    if name not in names:
        raise UserError(f"unknown {kind} '{name}'; valid: {', '.join(names)}")
    return name


def timing(embodiment: Embodiment, physics_step_ns: int) -> tuple[int, int]:
    """``(step_ns, reset_ns)``: step of the simulator and grid on which episodes begin.

    Raises:
        UserError: a stream's period is not a whole number of physics steps.
    """
    for stream in embodiment.streams.values():
        _check_period(
            f"streams.{stream.key}.rate_hz", stream.period_ns, physics_step_ns, embodiment
        )
    _check_period("control_rate_hz", embodiment.period_ns, physics_step_ns, embodiment)
    periods = [stream.period_ns for stream in embodiment.streams.values()]
    return common_period_ns([*periods, embodiment.period_ns])


def _check_period(key: str, period_ns: int, physics_step_ns: int, embodiment: Embodiment) -> None:
    if period_ns % physics_step_ns:
        raise UserError(
            f"{embodiment.origin}: {key}: a period of {period_ns / 1e6:g} ms is not a whole "
            f"number of physics steps of {physics_step_ns / 1e6:g} ms"
        )


def check_command(embodiment: Embodiment, command: np.ndarray) -> np.ndarray:
    """The command as a float64 array ``(A,)``.

    Raises:
        UserError: another shape, or a value that is not finite (named by dimension).
    """
    values = np.asarray(command, dtype=np.float64)
    if values.shape != (embodiment.action_dim,):
        raise UserError(f"command: expected shape ({embodiment.action_dim},), saw {values.shape}")
    if not np.isfinite(values).all():
        name = embodiment.action_names[int(np.argmin(np.isfinite(values)))]
        raise UserError(f"command: {name}: target is not finite")
    return values
