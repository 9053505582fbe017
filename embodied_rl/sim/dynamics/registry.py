"""Dynamics by name."""

from __future__ import annotations

from collections.abc import Callable

from embodied_rl.sim.base import choose
from embodied_rl.sim.dynamics.base import Dynamics
from embodied_rl.sim.dynamics.linear import Linear
from embodied_rl.sim.dynamics.quadrotor import Quadrotor
from embodied_rl.sim.dynamics.unicycle import Unicycle

DYNAMICS: dict[str, Callable[[], Dynamics]] = {
    Linear.name: Linear,
    Unicycle.name: Unicycle,
    Quadrotor.name: Quadrotor,
}


def make_dynamics(name: str) -> Dynamics:
    """Raises UserError for an unknown name; lists the valid ones."""
    return DYNAMICS[choose("dynamics", name, DYNAMICS)]()
