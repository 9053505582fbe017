"""Worlds of trials by name."""

from __future__ import annotations

from collections.abc import Callable

from embodied_rl.sim.base import choose
from embodied_rl.sim.navigation.base import TrialWorld
from embodied_rl.sim.navigation.darkroom import Darkroom
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation

TRIAL_WORLDS: dict[str, Callable[[], TrialWorld]] = {
    Darkroom.name: Darkroom,
    EgocentricNavigation.name: EgocentricNavigation,
}


def make_trial_world(name: str) -> TrialWorld:
    """Raises UserError for an unknown name; lists the valid ones."""
    return TRIAL_WORLDS[choose("world", name, TRIAL_WORLDS)]()
