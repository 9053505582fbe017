"""What a world hands to a simulator, and where its files lie.

A world names every MuJoCo element that stands behind a stream or a command of the embodiment file,
so the backend itself knows no robot.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from embodied_rl.core.errors import UserError

PACKAGE = "embodied_rl"


@dataclass(frozen=True)
class JointBinding:
    """One command joint: its MuJoCo joint and actuator, and control units per radian."""

    joint: str
    actuator: str
    control_per_unit: float = 1.0


@dataclass(frozen=True)
class JointSource:
    """Stream of joint positions or velocities; ``sigma`` in rad or rad/s."""

    quantity: str  # position | velocity
    sigma: float


@dataclass(frozen=True)
class PointSource:
    """Stream of the position of a site or body in the world frame; ``sigma`` in metres.

    ``object`` is the body that the task declares as its object, whatever its name.
    """

    element: str  # site | body | object
    name: str
    sigma: float


@dataclass(frozen=True)
class CameraSource:
    """Stream of one camera; ``kind`` is rgb, depth (metres) or segmentation (instance ids)."""

    camera: str
    kind: str


Source = JointSource | PointSource | CameraSource


@dataclass(frozen=True)
class World:
    """A world: how to build it and what its elements mean.

    ``build(visuals)`` returns a fresh ``MjSpec``; tasks add their objects to it before compiling.
    The world frame is the ``base_frame`` of the embodiment.
    """

    name: str
    embodiment_file: str  # below sim_worlds/
    visuals: tuple[str, ...]
    build: Callable[[str], mujoco.MjSpec]
    joints: dict[str, JointBinding]
    sources: dict[str, Source]
    instances: dict[str, str]  # name in segmentation -> body whose subtree has that instance id
    home: np.ndarray  # (n,) arm joints from which inverse kinematics starts, rad
    tool_down: np.ndarray  # (3, 3) rotation of the tool pointing straight down
    finger_geoms: tuple[str, ...]  # what holds an object when it touches it
    tool_site: str  # tool centre point

    @property
    def cameras(self) -> tuple[str, ...]:
        found = [s.camera for s in self.sources.values() if isinstance(s, CameraSource)]
        return tuple(dict.fromkeys(found))


def sim_worlds_file(relative: str) -> Path:
    """A file of ``sim_worlds/``: next to the package first, else in the installed ``share/``.

    Raises:
        UserError: in neither place; names both.
    """
    tried = [Path(__file__).resolve().parents[3] / "sim_worlds" / relative]
    # `colcon build` installs to <prefix>/share; AMENT_PREFIX_PATH is set by its setup script
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            tried.append(Path(prefix) / "share" / PACKAGE / "sim_worlds" / relative)
    tried.append(Path(sys.prefix) / "share" / PACKAGE / "sim_worlds" / relative)
    for path in tried:
        if path.is_file():
            return path
    raise UserError(
        f"sim_worlds/{relative}: not found; looked at {', '.join(map(str, tried))}; "
        "install with 'pip install -e .' or source the colcon workspace"
    )


def package_folder(package: str, hint: str) -> Path:
    """Folder of an installed package, without importing it (its import may need far more).

    Raises:
        UserError: not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"package '{package}' is not installed: {hint}")
    return Path(list(found.submodule_search_locations)[0])
