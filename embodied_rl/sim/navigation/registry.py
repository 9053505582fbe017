"""Worlds of trials by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from embodied_rl.sim.base import choose
from embodied_rl.sim.navigation.base import TrialWorld
from embodied_rl.sim.navigation.darkroom import Darkroom
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.sim.navigation.layout import LayoutSettings

FURNISHED = LayoutSettings(furniture=6)
CAMERA_RAD = math.radians(120)  # of the robot in the MuJoCo world `apartment`


def apartment() -> EgocentricNavigation:
    """The grid twin of the MuJoCo world of that name: furnished, and with a camera's view."""
    return EgocentricNavigation("apartment", layout=FURNISHED, camera_rad=CAMERA_RAD)


def egocentric_relative() -> EgocentricNavigation:
    """The homes of `egocentric`, told in the frame of each episode's start."""
    return EgocentricNavigation("egocentric_relative", relative_pose=True)


TRIAL_WORLDS: dict[str, Callable[[], TrialWorld]] = {
    Darkroom.name: Darkroom,
    "egocentric": EgocentricNavigation,
    "egocentric_relative": egocentric_relative,
    "apartment": apartment,
}


def make_trial_world(name: str) -> TrialWorld:
    """Raises UserError for an unknown name; lists the valid ones."""
    return TRIAL_WORLDS[choose("world", name, TRIAL_WORLDS)]()
