"""One command group of the embodiment file: its actuators, their limits, how they are told.

docs/embodiment.md lists every key with an example.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from embodied_rl.core.cartesian import Tool, parse_tool, with_streams
from embodied_rl.core.message_types import (
    COMMAND_TYPES,
    GRIPPER_ACTION,
    GRIPPER_COMMAND,
    JOINT_TRAJECTORY,
    POSE,
    RESERVED_TOPICS,
    SINGLE_TYPES,
    VELOCITY_TYPES,
    XYZ,
)
from embodied_rl.core.schema import Section
from embodied_rl.core.streams import BASE_LINK, Stream, foreign_unit

FOLLOWING_S = 0.25  # of its fastest motion a joint may lag behind its target, unless declared
DEFAULT_AHEAD_S = 0.1  # and two control periods at least
DEAD_BAND_SHARE = 0.01  # of a gripper's range, and
GOAL_RATE_HZ = 5.0  # how often it gets a goal at most, unless declared

# Dimension of a velocity command -> (field of the odometry or twist that measures it, component)
TWIST_DIMENSIONS: dict[str, tuple[str, str]] = {
    f"{kind}_{axis}": (f"{kind}_velocity", axis) for kind in ("linear", "angular") for axis in XYZ
}
ALIKE = 0.88  # share of two names from which on one is taken for a misspelling of the other


@dataclass(frozen=True)
class Goals:
    """When the target of an action's command becomes a goal."""

    dead_band: float  # by more than this it must have moved since the last goal
    rate_hz: float  # and no more goals a second


@dataclass(frozen=True)
class Command:
    """One group of actuators with its topic and its limits, all arrays ``(n,)`` in ``unit``.

    Targets are positions of joints, poses of a :attr:`tool`, or velocities of a mobile base
    (:attr:`velocity`), which comes to rest where a joint would keep its last target.
    """

    key: str
    topic: str
    type: str
    names: tuple[str, ...]  # joints, dimensions of the velocity, or those of the tool's pose
    unit: str
    lower: np.ndarray
    upper: np.ndarray
    max_rate: np.ndarray  # unit per second: max_velocity or max_acceleration of the file
    # how far a joint may be from its target before the robot counts as not following; inf: any
    max_following_error: np.ndarray
    send_ahead_s: float  # a trajectory is sent this far ahead: what outlives a gate that died
    prefix: str = ""  # of the joints' names in messages
    frame: str = ""  # of a velocity or a pose: the frame_id that its messages carry
    tool: Tool | None = None  # of a pose
    max_effort: float = 0.0  # of a gripper; 0: as much as it has
    goals: Goals | None = None  # of an action

    @property
    def wire_names(self) -> tuple[str, ...]:
        """The joints' names as messages have them."""
        return tuple(self.prefix + name for name in self.names)

    @property
    def velocity(self) -> bool:
        return self.type in VELOCITY_TYPES

    @property
    def joints(self) -> tuple[str, ...]:
        """The names, where they are joints."""
        return () if self.velocity or self.tool else self.names


def command_meaning(command: Command, base_frame: str) -> list[object]:
    """What a network takes the numbers of a command for; a tool's pose is one in a frame, turned
    against an orientation."""
    found: list[object] = [list(command.names), command.unit]
    if command.tool:
        found += [np.round(command.tool.orientation, 6).tolist()]
        found += [command.frame] if command.frame != base_frame else []
    return found


@dataclass(frozen=True)
class StopService:
    """A service of the robot's own that is called with an emergency stop, such as one that
    deactivates its controller; ``request`` are the fields of the request."""

    service: str
    type: str
    request: dict[str, object]


def parse_command(part: Section, prefix: str, base_frame: str = BASE_LINK) -> Command:
    """One entry of ``commands``.

    Args:
        prefix: of joint names, where the command has none of its own.
        base_frame: that poses are in where nothing else is declared.

    Raises:
        UserError: a key is missing, unknown or unsound.
    """
    kind = part.choice("type", COMMAND_TYPES)
    moving = kind in VELOCITY_TYPES
    tool = parse_tool(part, base_frame) if kind == POSE else None
    if tool:  # a robot may have two
        names = tuple(f"{part.key}_{dimension}" for dimension in tool.dimensions)
    else:
        names = _dimensions(part) if moving else part.names("joints")
    if kind in SINGLE_TYPES and len(names) > 1:
        part.fail("joints", f"one, for {kind} holds one target", list(names))
    rate = "max_acceleration" if moving else "max_velocity"
    command = Command(
        key=part.key,
        topic=part.relative_name("topic"),
        type=kind,
        names=names,
        unit=_command_unit(part, kind, len(names)),
        lower=part.vector("lower", len(names)),
        upper=part.vector("upper", len(names)),
        max_rate=part.vector(rate, len(names)),
        max_following_error=np.full(len(names), np.inf),
        send_ahead_s=DEFAULT_AHEAD_S,
        prefix="" if moving or tool else part.text("prefix", default=prefix),
        frame=tool.frame if tool else part.text("frame", default=BASE_LINK) if moving else "",
        tool=tool,
    )
    command = _with_following(part, command)
    command = _with_grip(part, command)
    if not np.all(command.lower < command.upper):
        part.fail("lower", "every value below 'upper'", command.lower.tolist())
    if moving and not np.all((command.lower <= 0) & (command.upper >= 0)):
        ends = list(zip(command.lower.tolist(), command.upper.tolist()))
        part.fail("lower", "0 within the limits, so that the base can stand still", ends)
    if not np.all(command.max_rate > 0):
        part.fail(rate, "values above 0", command.max_rate.tolist())
    part.done()
    return command


def _with_following(part: Section, command: Command) -> Command:
    """The keys of commands that follow: of trajectories, and of other joints where declared."""
    bound, ahead_s = command.max_following_error, command.send_ahead_s
    # a single joint that is told a target at a time is a gripper, which may press
    if command.type == JOINT_TRAJECTORY or (not command.velocity and len(command.names) > 1):
        bound = FOLLOWING_S * command.max_rate
    if command.type == JOINT_TRAJECTORY and part.has("send_ahead_s"):
        ahead_s = part.positive("send_ahead_s")
    if not command.velocity and part.has("max_following_error"):
        bound = part.vector("max_following_error", len(command.names))
        if not np.all(bound > 0):
            part.fail("max_following_error", "values above 0", bound.tolist())
    return replace(command, max_following_error=bound, send_ahead_s=ahead_s)


def _with_grip(part: Section, command: Command) -> Command:
    """The keys of grippers."""
    effort, goals = command.max_effort, command.goals
    if command.type in (GRIPPER_COMMAND, GRIPPER_ACTION):
        effort = part.at_least_zero("max_effort", default=0.0)
    if command.type == GRIPPER_ACTION:
        band = DEAD_BAND_SHARE * float(command.upper[0] - command.lower[0])
        goals = Goals(
            dead_band=part.at_least_zero("dead_band", default=band),
            rate_hz=part.rate("goal_rate_hz") if part.has("goal_rate_hz") else GOAL_RATE_HZ,
        )
    return replace(command, max_effort=effort, goals=goals)


def _command_unit(part: Section, kind: str, width: int) -> str:
    if kind in VELOCITY_TYPES:
        return "m/s, rad/s"
    if kind == POSE:
        return "m, rad" if width > 3 else "m"
    unit = part.text("unit", default="")
    known = foreign_unit(unit)
    if known is not None:
        part.fail("unit", f"'{known}', which controllers of ROS 2 take (REP 103)", f"'{unit}'")
    return unit


def _dimensions(part: Section) -> tuple[str, ...]:
    names = part.names("dimensions")
    unknown = [name for name in names if name not in TWIST_DIMENSIONS]
    if unknown:
        part.fail("dimensions", f"names among {list(TWIST_DIMENSIONS)}", unknown)
    return names


def parse_stop_services(root: Section) -> tuple[StopService, ...]:
    found = []
    for part in root.entries("stop_services"):
        request = part.value("request", {})
        if not isinstance(request, dict):
            part.fail("request", "a mapping of the request's fields", request)
        found.append(StopService(part.service_name("service"), part.type_name("type"), request))
        part.done()
    return tuple(found)


def with_measured_tools(
    root: Section, streams: Mapping[str, Stream], commands: Mapping[str, Command]
) -> dict[str, Command]:
    """The commands, those of tools with the streams that measure them; raises what
    :func:`embodied_rl.core.cartesian.with_streams` does."""
    found: dict[str, Command] = {}
    for key, command in commands.items():
        if command.tool:
            others = [other.tool for other in found.values() if other.tool]
            tool = with_streams(root, f"commands.{key}", command.tool, streams, others)
            command = replace(command, tool=tool)
        found[key] = command
    return found


def check_groups(
    root: Section, streams: Mapping[str, Stream], commands: Mapping[str, Command]
) -> None:
    """What no stream or command shows by itself: who shares a topic, and who is measured.

    Raises:
        UserError: two commands or two types on one topic, a topic of the stack itself, a joint
            twice, or one that no stream measures.
    """
    types: dict[str, str] = {}
    for key, stream in streams.items():
        _check_reserved(root, f"streams.{key}.topic", stream.topic)
        if types.setdefault(stream.topic, stream.type) != stream.type:
            root.fail(f"streams.{key}.type", f"'{types[stream.topic]}', as of the other stream of "
                      f"topic '{stream.topic}'", f"'{stream.type}'")  # fmt: skip
    taken: dict[str, str] = {}
    for key, command in commands.items():
        _check_reserved(root, f"commands.{key}.topic", command.topic)
        other = taken.setdefault(command.topic, key)
        if other != key:
            root.fail(f"commands.{key}.topic", f"another than that of '{other}'", command.topic)
        if command.topic in types:
            root.fail(f"commands.{key}.topic", "a topic that is no stream's", command.topic)
    names = [name for command in commands.values() for name in command.names]
    measured = {joint for stream in streams.values() for joint in stream.joints}
    for name in names:
        if names.count(name) > 1:
            root.fail("commands", "each joint in one command group", f"'{name}' twice")
    # A gripper without feedback is nobody's fault, a name that is nearly that of a measured joint
    # which nobody commands is.
    idle = sorted(measured - set(names))
    for key, command in commands.items():
        for name in command.joints:
            near = [] if name in measured else difflib.get_close_matches(name, idle, 1, ALIKE)
            if near:
                expected = f"a joint that a stream measures, such as '{near[0]}'"
                root.fail(f"commands.{key}.joints", expected, f"'{name}'")


def _check_reserved(root: Section, key: str, topic: str) -> None:
    if topic in RESERVED_TOPICS:
        root.fail(key, "a topic of the robot; the stack itself speaks on that one", f"'{topic}'")
