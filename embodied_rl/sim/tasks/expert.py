"""Scripted demonstrators: one waypoint machine, one short plan a task.

They are policies like any other: they see observation rows and the episode's seed, never the
simulator, so the same object works in-process and behind ROS topics. What they do is meant to be
easy to clone: a position target every 100 ms, taken from where the tool is measured to be (not
from a clock), on one branch of the inverse kinematics, at smooth speeds. Speed, heights, detours,
grasp and waiting times are drawn anew in every episode and independently of the task's hidden
choice, so that neither the clock nor the pose tells it.
"""

from __future__ import annotations

import copy
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, Policy, PolicySpec
from embodied_rl.core.window import Observation
from embodied_rl.sim.tasks.base import CUBE_HALF_M, uniform_in_disc
from embodied_rl.sim.tasks.count_pushes import (
    BUTTON_TOP_M,
    FINGERTIP_M,
    PUSHES,
    STROKE_M,
    CountPushes,
)
from embodied_rl.sim.tasks.pick_place import PickPlace
from embodied_rl.sim.tasks.replace_object import HUB, PADS, ReplaceObject
from embodied_rl.sim.tasks.return_home import ReturnHome
from embodied_rl.sim.worlds.tabletop import TOOL_DOWN

STREAMS = ("arm_position", "gripper_position", "tool_position", "object_position")
OPEN_RAD, CLOSED_RAD = 0.0, 0.6
GRIPPER_STEP_RAD = 0.2  # a control tick, below the embodiment's limit
EMPTY_GRIP_RAD = 0.52  # fingers closed further than this hold nothing
LOST_M = 0.05  # an object further from the tool than this is not held
ACCELERATION = 1.6  # m/s^2
DECELERATION = 1.0
START_SPEED = 0.08  # m/s that a resting tool begins with
VIA_TOLERANCE_M = 0.03  # a via point is passed, not stopped at
STOP_TOLERANCE_M = 0.005


@dataclass(frozen=True)
class Waypoint:
    """One leg of a plan: go to ``position`` with the gripper at ``grip``, stay ``ticks`` ticks.

    With ``on_object`` the position is an offset from where the object is measured to be.
    """

    position: tuple[float, float, float]  # metres
    grip: float  # rad
    tolerance: float = STOP_TOLERANCE_M
    ticks: int = 0
    on_object: bool = False
    carrying: bool = False  # the object must be in the gripper, or the plan starts again
    label: str = ""


@dataclass(frozen=True)
class Style:
    """What differs between episodes; drawn from the seed alone."""

    speed: float  # m/s
    approach_height: float  # metres above the object
    carry_height: float  # of the tool above the table
    hold_height: float
    grasp_offset: tuple[float, float, float]
    grip_ticks: int
    dwell_ticks: int
    detour: tuple[float, float]  # sideways shift of the via points out and back, metres
    hold_offset: tuple[float, float]
    place_offset: tuple[float, float]
    seed: int  # of the episode, for what only some tasks draw

    @classmethod
    def draw(cls, seed: int) -> Style:
        rng = np.random.default_rng([seed, zlib.crc32(b"expert")])

        def pair(radius: float) -> tuple[float, float]:
            x, y = uniform_in_disc(rng, radius)
            return float(x), float(y)

        return cls(
            speed=float(rng.uniform(0.26, 0.34)),
            approach_height=float(rng.uniform(0.07, 0.10)),
            carry_height=float(rng.uniform(0.10, 0.13)),
            hold_height=float(rng.uniform(0.11, 0.14)),
            grasp_offset=(*pair(0.004), float(rng.uniform(-0.003, 0.003))),
            grip_ticks=int(rng.integers(4, 7)),
            # Longer than a chunk of 8 targets and the 3 ticks between two frames together: a plan
            # made while the way in is still in sight must have run out before the way back.
            dwell_ticks=int(rng.integers(11, 18)),
            detour=(float(rng.uniform(-0.025, 0.025)), float(rng.uniform(-0.025, 0.025))),
            hold_offset=pair(0.015),
            place_offset=pair(0.008),
            seed=seed,
        )

    def more(self, task: str) -> np.random.Generator:
        """Further draws for one task, which change none of the common ones."""
        return np.random.default_rng([self.seed, zlib.crc32(task.encode())])


@dataclass
class Memory:
    """Everything the machine carries from tick to tick; JSON-able."""

    seed: int = 0
    plan: list[Waypoint] = field(default_factory=list)
    leg: int = 0
    stayed: int = 0
    grip: float = 0.0  # last commanded, rad
    tool: list[float] | None = None  # last measured, metres
    object: list[float] | None = None  # filtered, metres
    hold: list[float] | None = None  # where a resting leg keeps the tool


@dataclass(frozen=True)
class Scene:
    """What the machine sees of one row."""

    stamp_ns: int
    arm: np.ndarray  # (6,) rad
    gripper: float  # rad
    tool: np.ndarray  # (3,) metres
    object: np.ndarray  # (3,) metres


class WaypointExpert:
    """Runs a plan of waypoints. A task gives :meth:`waypoints`."""

    task = ""

    def __init__(self, embodiment: Embodiment, chunk: int = 1):
        if embodiment.chain is None:
            raise UserError(f"{embodiment.origin}: kinematics: missing, the expert needs it")
        if chunk < 1:
            raise UserError(f"expert: chunk: expected at least 1, saw {chunk}")
        self.embodiment, self.chain = embodiment, embodiment.chain
        name = f"expert_{self.task}"
        self.spec = PolicySpec.on(embodiment, name, STREAMS, chunk=chunk, execute=1)
        self._slices = embodiment.slices()
        self._memory, self._scene = Memory(), None

    def waypoints(self, style: Style, scene: Scene) -> list[Waypoint]:
        """The legs of an episode that begins with ``scene``."""
        raise NotImplementedError

    @property
    def leg(self) -> str:
        """Label of the leg that the last target belongs to; empty before the first one."""
        memory = self._memory
        return memory.plan[memory.leg].label if memory.plan else ""

    # ---------------------------------------------------------------------- policy interface
    def reset(self, episode: EpisodeInfo) -> None:
        self._memory, self._scene = Memory(seed=episode.seed), None

    def observe(self, observation: Observation) -> None:
        self._scene = None
        if observation.missing:
            return
        values = observation.values
        self._scene = Scene(
            observation.stamp_ns,
            values["arm_position"],
            float(values["gripper_position"][0]),
            values["tool_position"],
            values["object_position"],
        )

    def act(self) -> ActionChunk:
        """One target a tick ahead, and ``chunk - 1`` more, as if the robot followed perfectly."""
        if self._scene is None:
            raise RuntimeError("act() needs a complete row first")
        scene, targets = self._scene, []
        targets.append(self._advance(self._memory, scene))
        ahead = copy.deepcopy(self._memory) if self.spec.chunk > 1 else self._memory
        period_ns = self.embodiment.period_ns
        while len(targets) < self.spec.chunk:
            scene = self._imagined(scene, targets[-1], ahead, period_ns)
            targets.append(self._advance(ahead, scene))
        return ActionChunk(self._scene.stamp_ns, period_ns, np.array(targets))

    def executed(self, chunk: ActionChunk) -> None:
        """Nothing to do: the plan looks at where the robot is, not at where it was sent."""
        del chunk

    def save_memory(self) -> bytes:
        content = {"policy": self.spec.name, "memory": asdict(self._memory)}
        return json.dumps(content).encode()

    def load_memory(self, blob: bytes) -> None:
        try:
            content = json.loads(blob)
            same = content["policy"] == self.spec.name
            values: dict[str, Any] = content["memory"] if same else {}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"memory: expected that of {self.spec.name}, saw no memory") from error
        if not same:
            raise UserError(f"memory: expected that of {self.spec.name}, saw {content['policy']}")
        plan = [Waypoint(**{**leg, "position": tuple(leg["position"])}) for leg in values["plan"]]
        self._memory = replace(Memory(**{**values, "plan": plan}))

    # ------------------------------------------------------------------------------ machine
    def _advance(self, memory: Memory, scene: Scene) -> np.ndarray:
        """Target ``(A,)`` for the next tick; moves ``memory`` on by one tick."""
        if not memory.plan:
            memory.plan = self.waypoints(Style.draw(memory.seed), scene)
        self._filter_object(memory, scene)
        self._check_grasp(memory, scene)
        leg = memory.plan[memory.leg]
        goal = self._goal(memory, leg)
        if self._arrived(memory, leg, goal, scene) and memory.leg + 1 < len(memory.plan):
            memory.leg, memory.stayed, memory.hold = memory.leg + 1, 0, None
            leg = memory.plan[memory.leg]
            goal = self._goal(memory, leg)
        position = self._next_position(memory, goal, scene)
        memory.tool = scene.tool.tolist()
        memory.grip += float(np.clip(leg.grip - memory.grip, -GRIPPER_STEP_RAD, GRIPPER_STEP_RAD))
        command = np.empty(self.spec.action_dim)
        command[self._slices["arm"]] = self.chain.inverse(position, TOOL_DOWN, scene.arm)
        command[self._slices["gripper"]] = memory.grip
        return command

    def _filter_object(self, memory: Memory, scene: Scene) -> None:
        """Smooth the tracker's noise; follow at once what is more than noise."""
        seen = scene.object
        if memory.object is None or np.linalg.norm(seen - memory.object) > 0.01:
            memory.object = seen.tolist()
        else:
            memory.object = (0.7 * np.array(memory.object) + 0.3 * seen).tolist()

    def _check_grasp(self, memory: Memory, scene: Scene) -> None:
        """Nothing between the fingers although there should be: begin again."""
        if not memory.plan[memory.leg].carrying:
            return
        lost = np.linalg.norm(scene.object - scene.tool) > LOST_M
        if lost or scene.gripper > EMPTY_GRIP_RAD:
            memory.leg, memory.stayed, memory.hold = 0, 0, None

    def _goal(self, memory: Memory, leg: Waypoint) -> np.ndarray:
        if memory.hold is not None:
            return np.array(memory.hold)
        position = np.array(leg.position)
        if leg.on_object:
            # the object rests on the table: its height is known better than measured
            position[:2] += memory.object[:2]
        return position

    def _arrived(self, memory: Memory, leg: Waypoint, goal: np.ndarray, scene: Scene) -> bool:
        """Whether the leg is done: near enough, then stayed as long as it says."""
        if memory.stayed == 0 and np.linalg.norm(goal - scene.tool) > leg.tolerance:
            return False
        if leg.ticks:
            memory.hold = goal.tolist()
        memory.stayed += 1
        return memory.stayed > leg.ticks

    def _next_position(self, memory: Memory, goal: np.ndarray, scene: Scene) -> np.ndarray:
        """The tool's place one tick on: towards the goal, at a speed that rises and falls."""
        period_s = self.embodiment.period_ns / NANOSECONDS
        way = goal - scene.tool
        distance = float(np.linalg.norm(way))
        last = scene.tool if memory.tool is None else np.array(memory.tool)
        speed = float(np.linalg.norm(scene.tool - last)) / period_s
        style = Style.draw(memory.seed)
        limit = min(
            style.speed,
            max(speed, START_SPEED) + ACCELERATION * period_s,
            float(np.sqrt(2 * DECELERATION * distance)) + 0.02,
        )
        if distance <= limit * period_s:
            return goal
        return scene.tool + way * (limit * period_s / distance)

    def _imagined(self, scene: Scene, target: np.ndarray, memory: Memory, period_ns: int) -> Scene:
        """The row one tick on if the robot reaches the target and the object rides along."""
        arm = target[self._slices["arm"]]
        tool = self.chain.forward(arm)[0]
        held = memory.plan[memory.leg].carrying
        moved = scene.object + (tool - scene.tool) if held else scene.object
        return Scene(scene.stamp_ns + period_ns, arm, scene.gripper, tool, moved)


def pick(style: Style) -> list[Waypoint]:
    """Approach from above, go down, close."""
    dx, dy, dz = style.grasp_offset
    grasp = (dx, dy, CUBE_HALF_M + dz)
    above = (dx, dy, CUBE_HALF_M + style.approach_height)
    return [
        Waypoint(above, OPEN_RAD, VIA_TOLERANCE_M, on_object=True, label="approach"),
        Waypoint(grasp, OPEN_RAD, on_object=True, label="descend"),
        Waypoint(grasp, CLOSED_RAD, 0.02, style.grip_ticks, on_object=True, label="grip"),
    ]


def place(style: Style, spot: Sequence[float]) -> list[Waypoint]:
    """Come down on ``spot (3,)``, open, rise."""
    x, y = spot[0] + style.place_offset[0], spot[1] + style.place_offset[1]
    down = (x, y, CUBE_HALF_M + style.grasp_offset[2] + 0.002)
    up = (x, y, style.carry_height)
    return [
        Waypoint(up, CLOSED_RAD, VIA_TOLERANCE_M, carrying=True, label="above"),
        Waypoint(down, CLOSED_RAD, carrying=True, label="lower"),
        Waypoint(down, OPEN_RAD, 0.02, style.grip_ticks, label="release"),
        Waypoint(up, OPEN_RAD, label="retreat"),
    ]


def via(style: Style, start: Sequence[float], end: Sequence[float], shift: float) -> Waypoint:
    """A point half-way, shifted sideways by ``shift`` metres."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = shift / math.hypot(dx, dy)
    x, y = (start[0] + end[0]) / 2 - share * dy, (start[1] + end[1]) / 2 + share * dx
    where = (x, y, style.carry_height)
    return Waypoint(where, CLOSED_RAD, VIA_TOLERANCE_M, carrying=True, label="via")


class ReplaceObjectExpert(WaypointExpert):
    """Remembers the pad that the cube lay on when the episode began."""

    task = ReplaceObject.name

    def waypoints(self, style: Style, scene: Scene) -> list[Waypoint]:
        pad = min(PADS, key=lambda pad: math.dist(pad[:2], scene.object[:2]))
        x, y = HUB[0] + style.hold_offset[0], HUB[1] + style.hold_offset[1]
        hold = (x, y, style.hold_height)
        lift = Waypoint(
            (*scene.object[:2].tolist(), style.carry_height),
            CLOSED_RAD,
            VIA_TOLERANCE_M,
            carrying=True,
            label="lift",
        )
        wait = Waypoint(hold, CLOSED_RAD, ticks=style.dwell_ticks, carrying=True, label="hold")
        out, back = via(style, pad, HUB, style.detour[0]), via(style, HUB, pad, style.detour[1])
        return [*pick(style), lift, out, wait, back, *place(style, pad)]


class PickPlaceExpert(WaypointExpert):
    """Brings the cube straight to the hub; everything it needs is in the row."""

    task = PickPlace.name

    def waypoints(self, style: Style, scene: Scene) -> list[Waypoint]:
        lift = Waypoint(
            (0.0, 0.0, style.carry_height),
            CLOSED_RAD,
            VIA_TOLERANCE_M,
            on_object=True,
            carrying=True,
            label="lift",
        )
        return [*pick(style), lift, *place(style, HUB)]


class CountPushesExpert(WaypointExpert):
    """Remembers how often it has pushed: the leg of its plan it is on."""

    task = CountPushes.name

    def waypoints(self, style: Style, scene: Scene) -> list[Waypoint]:
        rng = style.more(self.task)
        rest, bottom = BUTTON_TOP_M + FINGERTIP_M, BUTTON_TOP_M + FINGERTIP_M - 0.8 * STROKE_M

        def hover() -> Waypoint:
            # every height, place and wait is drawn anew: none tells which push comes next
            x, y = uniform_in_disc(rng, 0.008)
            above = (float(x), float(y), rest + float(rng.uniform(0.035, 0.050)))
            ticks = int(rng.integers(3, 6))
            return Waypoint(above, CLOSED_RAD, ticks=ticks, on_object=True, label="hover")

        legs = [hover()]
        for _ in range(PUSHES):
            x, y = uniform_in_disc(rng, 0.008)
            down = (float(x), float(y), bottom + float(rng.uniform(-0.001, 0.001)))
            legs += [Waypoint(down, CLOSED_RAD, ticks=2, on_object=True, label="push"), hover()]
        x, y = HUB[0] + style.hold_offset[0], HUB[1] + style.hold_offset[1]
        return [*legs, Waypoint((x, y, style.hold_height), CLOSED_RAD, label="done")]


class ReturnHomeExpert(WaypointExpert):
    """Remembers where the tool was when the episode began."""

    task = ReturnHome.name

    def waypoints(self, style: Style, scene: Scene) -> list[Waypoint]:
        x, y, z = scene.tool.tolist()
        ticks = int(style.more(self.task).integers(1, 5))
        hold = (*style.hold_offset, style.hold_height)
        return [
            Waypoint((x, y, z), OPEN_RAD, ticks=ticks, label="start"),
            Waypoint(hold, OPEN_RAD, ticks=style.dwell_ticks, on_object=True, label="hold"),
            Waypoint((x, y, z), OPEN_RAD, label="home"),
        ]


def _find_object(embodiment: Embodiment, **options: int) -> Policy:
    # torch, which the search on the grid is made with, takes seconds to import
    from embodied_rl.sim.tasks.home_expert import FindObjectExpert

    return FindObjectExpert(embodiment, **options)


EXPERTS: dict[str, Callable[..., Policy]] = {
    expert.task: expert
    for expert in (ReplaceObjectExpert, PickPlaceExpert, CountPushesExpert, ReturnHomeExpert)
} | {"find_object": _find_object}


def make_expert(task: str, embodiment: Embodiment, chunk: int | None = None) -> Policy:
    """The demonstrator of a task, with plans of ``chunk`` targets; None for as many as it has by
    itself.

    Raises:
        UserError: unknown task (lists those with an expert), or an unfit embodiment.
    """
    if task not in EXPERTS:
        raise UserError(f"no expert for task '{task}'; valid: {', '.join(sorted(EXPERTS))}")
    return EXPERTS[task](embodiment) if chunk is None else EXPERTS[task](embodiment, chunk=chunk)
