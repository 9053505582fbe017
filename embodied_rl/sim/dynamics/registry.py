"""Dynamics by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from embodied_rl.sim.base import choose
from embodied_rl.sim.dynamics.arm import Arm
from embodied_rl.sim.dynamics.base import Dynamics
from embodied_rl.sim.dynamics.linear import Linear
from embodied_rl.sim.dynamics.quadrotor import Quadrotor
from embodied_rl.sim.dynamics.unicycle import Unicycle

DYNAMICS: dict[str, Callable[[], Dynamics]] = {
    Linear.name: Linear,
    Unicycle.name: Unicycle,
    Quadrotor.name: Quadrotor,
    Arm.name: Arm,
}


@lru_cache
def make_dynamics(name: str) -> Dynamics:
    """The one instance of a robot; it keeps no state. Raises UserError for an unknown name."""
    return DYNAMICS[choose("dynamics", name, DYNAMICS)]()
