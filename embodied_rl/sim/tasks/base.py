"""What a task is: objects in a world, a random start, and a verdict that is latched.

Success is an event, not a state at the end: the episode ends at the instant it happens. Otherwise
a policy that has finished, and sees the same as at the beginning, could set off again and undo it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np

from embodied_rl.core.policy import Outcome
from embodied_rl.sim.navigation.layout import Layout

CUBE_HALF_M = 0.02
CUBE_MASS_KG = 0.06
CUBE_RGBA = (0.90, 0.33, 0.16, 1.0)
DISC_HALF_THICKNESS_M = 0.0006

RUNNING = Outcome(done=False, success=False, reason="running", score=0.0)


@dataclass(frozen=True)
class Start:
    """Where an episode begins: the tool points straight down, the gripper is open."""

    tool_position: np.ndarray  # (3,) metres
    object_position: np.ndarray  # (3,) metres
    object_yaw: float  # rad


@dataclass(slots=True)
class ObjectState:
    """What a task judges by; ``held`` is a function because it is rarely asked and not free."""

    time_s: float  # since the start of the episode
    position: Sequence[float]  # (3,) metres; plain floats, for this is looked at 50 times a second
    speed: float  # m/s
    held: Callable[[], bool]  # whether a finger touches the object
    tool: Sequence[float] = (0.0, 0.0, 0.0)  # (3,) metres, tool centre point

    def rests(self) -> bool:
        """Lies on the table, let go and still."""
        low = abs(self.position[2] - CUBE_HALF_M) < 0.006
        return low and self.speed < 0.03 and not self.held()

    def distance(self, point: Sequence[float]) -> float:
        """Horizontal distance to ``point``, metres."""
        return math.hypot(self.position[0] - point[0], self.position[1] - point[1])


class Task(Protocol):
    """One task of a world. Each kind of world asks more of its tasks: see its ``Stage``."""

    name: str
    world: str
    instruction: str
    time_limit_s: float
    episodes_per_trial: int  # 1 for a task whose world is always the same
    instances: dict[str, str]  # name in segmentation -> body

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the task's objects to the world."""


class ObjectTask(Task, Protocol):
    """A task of an arm about one object. ``update`` is called after every simulator step."""

    object_body: str  # what the stream of the tracked object follows: loose, on a joint, or fixed

    def start(self, rng: np.random.Generator) -> Start:
        """Draw the start of an episode and forget the last one."""

    def update(self, state: ObjectState) -> Outcome:
        """Judge the new state; once the outcome is done, later states do not change it."""


class SampledTask(Task, Protocol):
    """A task about where a robot is at the multiples of ``sample_period_ns``."""

    sample_period_ns: int

    def update(self, elapsed_ns: int, position: np.ndarray) -> Outcome:
        """Judge the next sample, the robot's true ``position (3,)`` in m, from 0 ns on; once the
        outcome is done, later samples do not change it."""


class PlaceTask(SampledTask, Protocol):
    """Of a base."""

    def start(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Draw x, y (m) and yaw (rad) of an episode's start and forget the last one."""


class HomeTask(Task, Protocol):
    """Of a base in a home that stays the same over a trial. ``update`` is called every
    ``judge_period_ns`` of the world."""

    layout: Layout
    start_pose: tuple[float, float, float]  # x, y (m) and yaw (rad)

    def begin(self, rng: np.random.Generator, trial: int) -> None:
        """Choose the home of the trial and the start of an episode; forget the last one."""

    def update(self, elapsed_ns: int, pose: np.ndarray) -> Outcome:
        """Judge the base's true pose ``(3,)``, x, y (m) and yaw (rad); once the outcome is done,
        later poses do not change it."""


class JointTask(SampledTask, Protocol):
    """Of an arm, about its tool."""

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the joints ``(n,)`` (rad) of an episode's start and forget the last one."""


class Stillness:
    """For how long a point has stayed in one place; sensor-free, for judging whether a tool rests.

    Args:
        radius_m: moving less than this from where it came to rest is still resting.
    """

    def __init__(self, radius_m: float = 0.008):
        self._radius_m = radius_m
        self._anchor: tuple[float, ...] | None = None
        self._since_s = 0.0

    def update(self, time_s: float, position: Sequence[float]) -> float:
        """Seconds of rest up to ``time_s``; ``position (3,)`` in metres."""
        if self._anchor is None or math.dist(position, self._anchor) > self._radius_m:
            self._anchor, self._since_s = tuple(position), time_s
        return time_s - self._since_s


def add_cube(spec: mujoco.MjSpec, name: str = "cube") -> None:
    """A 4 cm cube that a parallel gripper can hold."""
    body = spec.worldbody.add_body(name=name, pos=[0.45, 0, CUBE_HALF_M])
    body.add_freejoint(name=f"{name}_free")
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[CUBE_HALF_M] * 3,
        mass=CUBE_MASS_KG,
        rgba=CUBE_RGBA,
        contype=1,
        conaffinity=3,
        condim=4,
        friction=[0.9, 0.01, 0.0001],
        solref=[0.005, 1],
        group=1,
    )


def add_disc(spec: mujoco.MjSpec, name: str, centre: Sequence[float], radius: float, rgba) -> None:
    """A coloured disc on the table, drawn only: a lighter rim and a filled middle."""
    body = spec.worldbody.add_body(name=name, pos=[centre[0], centre[1], 0])
    rim = [0.5 + 0.5 * value for value in rgba[:3]]
    for radius_m, height, colour in (
        (radius, DISC_HALF_THICKNESS_M, [*rim, 1.0]),
        (0.82 * radius, 1.7 * DISC_HALF_THICKNESS_M, rgba),
    ):
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[radius_m, height, 0],
            pos=[0, 0, height],
            rgba=colour,
            contype=0,
            conaffinity=0,
            group=1,
        )


def add_ball(spec: mujoco.MjSpec, name: str, centre: Sequence[float], radius: float, rgba) -> None:
    """A coloured ball in the air, drawn only."""
    spec.worldbody.add_body(name=name, pos=centre).add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[radius, 0, 0],
        rgba=rgba,
        contype=0,
        conaffinity=0,
        group=1,
    )


def uniform_in_disc(rng: np.random.Generator, radius: float) -> np.ndarray:
    """``(2,)`` point, uniform in a disc around 0."""
    angle, r = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform())
    return np.array([r * np.cos(angle), r * np.sin(angle)])


def upright_quaternion(yaw: float) -> np.ndarray:
    """``(4,)`` w, x, y, z."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def fell(state: ObjectState) -> bool:
    """Whether the object has left the table."""
    return state.position[2] < -0.05
