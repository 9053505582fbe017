"""What a world hands to a simulator, and where its files lie.

A world names every MuJoCo element that stands behind a stream or a command of the embodiment file,
so the backend itself knows no robot. Kinds of robots differ in three things, which a world of that
kind makes for a compiled scene: how commands drive the actuators (:class:`Actuation`), where robot
and objects begin and what the task judges by (:class:`Stage`), and how the sensors read
(:meth:`World.reader`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import mujoco
import numpy as np

from embodied_rl.core.embodiment import Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.sim.noise import SensorNoise
from embodied_rl.sim.tasks.base import SampledTask, Task

PACKAGE = "embodied_rl"


@dataclass(frozen=True)
class CameraSource:
    """Stream of one camera; ``kind`` is rgb, depth (metres) or segmentation (instance ids)."""

    camera: str
    kind: str


class NumberSource(Protocol):
    """Stream of numbers with Gaussian noise; ``sigma`` in the stream's unit."""

    @property
    def sigma(self) -> float: ...


@dataclass(frozen=True)
class Scene:
    """A world with the objects of a task, compiled: what the parts of a world work with."""

    model: mujoco.MjModel
    data: mujoco.MjData
    embodiment: Embodiment
    task: Task
    step_ns: int  # of the simulator, a whole number of physics steps


class Actuation(Protocol):
    """The controllers of the robot's motors. Commands are ``(A,)``, in action order."""

    def reset(self, command: np.ndarray) -> None:
        """Have the command in force, as if it had always been."""

    def begin(self, command: np.ndarray) -> None:
        """Set the controls for a step of the simulator that begins now."""

    def end(self) -> None:
        """The physics of that step is over."""


class Stage(Protocol):
    """The robot and the task's objects on their places."""

    def start(self, rng: np.random.Generator, trial: int) -> np.ndarray:
        """Place them as an episode of a trial begins; the command ``(A,)`` that keeps the robot
        there. Most worlds are the same in every trial."""

    def begin(self) -> None:
        """All have come to rest: the episode begins."""

    def judge(self, elapsed_ns: int) -> Outcome:
        """What the task says of the state now, so long after the start."""


@dataclass(frozen=True)
class World(ABC):
    """A world: how to build it and what its elements mean.

    ``build(visuals)`` returns a fresh ``MjSpec``; tasks add their objects to it before compiling.
    The world frame is the ``base_frame`` of the embodiment.
    """

    name: str
    embodiment_file: str  # below sim_worlds/
    visuals: tuple[str, ...]
    build: Callable[[str], mujoco.MjSpec]
    sources: dict[str, CameraSource | NumberSource]  # by key of the stream
    instances: dict[str, str]  # name in segmentation -> body whose subtree has that instance id
    judge_period_ns: int  # how often the task looks at the state, in whole steps of the simulator
    base_body: str = field(default="base_link", kw_only=True)  # root of the robot's tree of bodies

    @property
    def joint_names(self) -> dict[str, str]:
        """MuJoCo's name of a joint -> its name in the embodiment, where the two differ."""
        return {}

    @property
    def mimics(self) -> dict[str, tuple[str, float]]:
        """Passive joint -> the joint that it follows and how many times as far, both by MuJoCo's
        names: for a description of the robot, which knows no closed linkage."""
        return {}

    @property
    def frame_sites(self) -> dict[str, str]:
        """Frame that is not a body -> the site that stands for it."""
        return {}

    @property
    def cameras(self) -> tuple[str, ...]:
        found = [s.camera for s in self.sources.values() if isinstance(s, CameraSource)]
        return tuple(dict.fromkeys(found))

    @abstractmethod
    def actuation(self, scene: Scene) -> Actuation:
        """Raises UserError when the commands of the embodiment do not fit the actuators."""

    @abstractmethod
    def stage(self, scene: Scene) -> Stage: ...

    @abstractmethod
    def reader(
        self, scene: Scene, stream: Stream, source: NumberSource, noise: SensorNoise
    ) -> Callable[[], np.ndarray]:
        """A function that reads a stream of numbers from the scene's state now."""


class SampledStage(ABC):
    """A :class:`Stage` whose task judges by where the robot is at regular times.

    Raises:
        UserError: the task looks at times that are no steps of the simulator.
    """

    def __init__(self, scene: Scene):
        self._task = cast(SampledTask, scene.task)
        if self._task.sample_period_ns % scene.step_ns:
            raise UserError(
                f"task {scene.task.name}: expected samples every whole number of simulator steps "
                f"of {scene.step_ns / 1e6:g} ms, saw {self._task.sample_period_ns / 1e6:g} ms"
            )
        self._outcome: Outcome | None = None

    @abstractmethod
    def start(self, rng: np.random.Generator, trial: int) -> np.ndarray: ...

    @abstractmethod
    def position(self) -> np.ndarray:
        """Where the robot truly is ``(3,)``, in m."""

    def begin(self) -> None:
        self._outcome = self._task.update(0, self.position())

    def judge(self, elapsed_ns: int) -> Outcome:
        if elapsed_ns % self._task.sample_period_ns == 0:
            self._outcome = self._task.update(elapsed_ns, self.position())
        assert self._outcome is not None
        return self._outcome


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
