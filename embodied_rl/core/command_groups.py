"""One command group of the embodiment file: its actuators, their limits, how they are told.

docs/embodiment.md lists every key with an example.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from embodied_rl.core.message_types import (
    COMMAND_TYPES,
    JOINT_TRAJECTORY,
    RESERVED_TOPICS,
    SINGLE_TYPES,
    VELOCITY_TYPES,
    XYZ,
)
from embodied_rl.core.schema import Section
from embodied_rl.core.streams import BASE_LINK, Stream, foreign_unit

FOLLOWING_S = 0.25  # of its fastest motion a joint may lag behind its target, unless declared
DEFAULT_AHEAD_S = 0.1  # and two control periods at least

# Dimension of a velocity command -> (field of the odometry or twist that measures it, component)
TWIST_DIMENSIONS: dict[str, tuple[str, str]] = {
    f"{kind}_{axis}": (f"{kind}_velocity", axis) for kind in ("linear", "angular") for axis in XYZ
}
ALIKE = 0.88  # share of two names from which on one is taken for a misspelling of the other


@dataclass(frozen=True)
class Command:
    """One group of actuators with its topic and its limits, all arrays ``(n,)`` in ``unit``.

    Targets are positions of joints, or velocities of a mobile base (:attr:`velocity`), which comes
    to rest where a joint would keep its last target.
    """

    key: str
    topic: str
    type: str
    names: tuple[str, ...]  # joints, or dimensions of the velocity
    unit: str
    lower: np.ndarray
    upper: np.ndarray
    max_rate: np.ndarray  # unit per second: max_velocity or max_acceleration of the file
    # how far a joint may be from its target before the robot counts as not following; inf: any
    max_following_error: np.ndarray
    send_ahead_s: float  # a trajectory is sent this far ahead: what outlives a gate that died
    prefix: str = ""  # of the joints' names in messages
    frame: str = ""  # of a velocity: the frame_id that its messages carry

    @property
    def wire_names(self) -> tuple[str, ...]:
        """The joints' names as messages have them."""
        return tuple(self.prefix + name for name in self.names)

    @property
    def velocity(self) -> bool:
        return self.type in VELOCITY_TYPES


@dataclass(frozen=True)
class StopService:
    """A service of the robot's own that is called with an emergency stop, such as one that
    deactivates its controller; ``request`` are the fields of the request."""

    service: str
    type: str
    request: dict[str, object]


def parse_command(part: Section, prefix: str) -> Command:
    kind = part.choice("type", COMMAND_TYPES)
    moving = kind in VELOCITY_TYPES
    names = _dimensions(part) if moving else part.names("joints")
    if kind in SINGLE_TYPES and len(names) > 1:
        part.fail("joints", f"one, for {kind} holds one target", list(names))
    rate = "max_acceleration" if moving else "max_velocity"
    command = Command(
        key=part.key,
        topic=part.relative_name("topic"),
        type=kind,
        names=names,
        unit="m/s, rad/s" if moving else _command_unit(part),
        lower=part.vector("lower", len(names)),
        upper=part.vector("upper", len(names)),
        max_rate=part.vector(rate, len(names)),
        max_following_error=np.full(len(names), np.inf),
        send_ahead_s=DEFAULT_AHEAD_S,
        prefix="" if moving else part.text("prefix", default=prefix),
        frame=part.text("frame", default=BASE_LINK) if moving else "",
    )
    command = _with_following(part, command)
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


def _command_unit(part: Section) -> str:
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
        for name in () if command.velocity else command.names:
            near = [] if name in measured else difflib.get_close_matches(name, idle, 1, ALIKE)
            if near:
                expected = f"a joint that a stream measures, such as '{near[0]}'"
                root.fail(f"commands.{key}.joints", expected, f"'{name}'")


def _check_reserved(root: Section, key: str, topic: str) -> None:
    if topic in RESERVED_TOPICS:
        root.fail(key, "a topic of the robot; the stack itself speaks on that one", f"'{topic}'")
