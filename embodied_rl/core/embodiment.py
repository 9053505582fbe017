"""The embodiment file: which topics are the observations and the commands of one robot.

The simulator, the live nodes, the recorder and the bag reader all read the same YAML file, and
nothing else in the project names a topic of a robot. A file looks like this::

    name: ur5e_2f85
    control_rate_hz: 10
    base_frame: base_link
    streams:
      arm_position:
        topic: joint_states
        type: sensor_msgs/msg/JointState
        field: position
        joints: [shoulder_pan_joint, shoulder_lift_joint]
        unit: rad
        rate_hz: 50
        max_age_s: 0.1
      camera_fixed:
        topic: camera/fixed/image_raw
        type: sensor_msgs/msg/Image
        encoding: rgb8
        shape: [128, 128, 3]
        rate_hz: 10
        max_age_s: 0.3
    commands:
      arm:
        topic: joint_trajectory_controller/joint_trajectory
        type: trajectory_msgs/msg/JointTrajectory
        joints: [shoulder_pan_joint, shoulder_lift_joint]
        unit: rad
        lower: [-3.1, -3.1]
        upper: [3.1, 3.1]
        max_velocity: [2.0, 2.0]

Several streams may share one topic (position and velocity of ``joint_states``). A mobile base is
observed by its odometry and commanded by velocities, in m/s and rad/s::

    streams:
      base_yaw: {topic: odom, type: nav_msgs/msg/Odometry, field: yaw, unit: rad, ...}
    commands:
      base:
        topic: cmd_vel
        type: geometry_msgs/msg/TwistStamped
        dimensions: [linear_x, angular_z]
        lower: [-0.5, -1.0]
        upper: [2.0, 1.0]
        max_acceleration: [1.0, 10.0]

A planar lidar is a stream of as many ranges in metres as it has beams, counter-clockwise; what
stands in place of a missing return is in :mod:`embodied_rl.core.scan`. The keys are the fields of
its message, 0 rad is straight ahead, and beams around a full circle need no second last one::

    streams:
      scan:
        topic: scan
        type: sensor_msgs/msg/LaserScan
        beams: 360
        angle_min_rad: -3.141592653589793
        angle_increment_rad: 0.017453292519943295
        range_min_m: 0.05
        range_max_m: 8.0
        rate_hz: 10
        max_age_s: 0.2
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from embodied_rl.core.errors import UserError
from embodied_rl.core.kinematics import Chain, parse_chain
from embodied_rl.core.scan import ScanGeometry, parse_scan
from embodied_rl.core.schema import Section, parse_yaml, read_text

NANOSECONDS = 1_000_000_000

JOINT_STATE = "sensor_msgs/msg/JointState"
IMAGE = "sensor_msgs/msg/Image"
POSE = "geometry_msgs/msg/PoseStamped"
ODOMETRY = "nav_msgs/msg/Odometry"
LASER_SCAN = "sensor_msgs/msg/LaserScan"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
FLOAT_ARRAY = "std_msgs/msg/Float64MultiArray"
TWIST_STAMPED = "geometry_msgs/msg/TwistStamped"
TWIST = "geometry_msgs/msg/Twist"

# type -> the fields a stream may take from it; an empty tuple means the message is one value
STREAM_FIELDS: dict[str, tuple[str, ...]] = {
    JOINT_STATE: ("position", "velocity", "effort"),
    POSE: ("position", "orientation"),
    ODOMETRY: ("position", "orientation", "yaw", "linear_velocity", "angular_velocity"),
    IMAGE: (),
    LASER_SCAN: (),
}
COMMAND_TYPES = (JOINT_TRAJECTORY, FLOAT_ARRAY, TWIST_STAMPED, TWIST)
VELOCITY_TYPES = (TWIST_STAMPED, TWIST)

# What a part of a pose or of an odometry is made of; orientation is a quaternion. Positions are in
# the frame of the header, the velocities of an odometry in that of the robot (REP 105).
XYZ = ("x", "y", "z")
COMPONENTS: dict[str, tuple[str, ...]] = {
    "position": XYZ,
    "orientation": ("x", "y", "z", "w"),
    "yaw": ("yaw",),
    "linear_velocity": XYZ,
    "angular_velocity": XYZ,
}

# Dimension of a velocity command -> (field of the odometry that measures it, component)
TWIST_DIMENSIONS: dict[str, tuple[str, str]] = {
    "linear_x": ("linear_velocity", "x"),
    "linear_y": ("linear_velocity", "y"),
    "angular_z": ("angular_velocity", "z"),
}

# encoding -> (dtype, channels)
ENCODINGS: dict[str, tuple[str, int]] = {
    "rgb8": ("uint8", 3),
    "mono8": ("uint8", 1),
    "mono16": ("uint16", 1),
    "16UC1": ("uint16", 1),
    "32FC1": ("float32", 1),
}


@dataclass(frozen=True)
class Stream:
    """One observation: a part of one topic, with its shape, unit, rate and maximum age."""

    key: str
    topic: str
    type: str
    shape: tuple[int, ...]
    dtype: str
    rate_hz: float
    max_age_s: float
    field: str = ""
    joints: tuple[str, ...] = ()
    encoding: str = ""
    unit: str = ""
    scan: ScanGeometry | None = None  # of a lidar's stream
    latency_s: float = 0.0  # a sample stamped s counts as available at s + latency_s
    stamps: str = "header"  # or "receive": when the message came, for a driver without stamps
    stuck_after_s: float | None = None  # the same value for so long in motion is a fault

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the values: joints, or x, y, z and the like; none of an image or a scan."""
        return self.joints or COMPONENTS.get(self.field, ())

    @property
    def period_ns(self) -> int:
        return round(NANOSECONDS / self.rate_hz)

    @property
    def max_age_ns(self) -> int:
        return round(self.max_age_s * NANOSECONDS)

    @property
    def latency_ns(self) -> int:
        return round(self.latency_s * NANOSECONDS)


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

    @property
    def velocity(self) -> bool:
        return self.type in VELOCITY_TYPES


@dataclass(frozen=True)
class Workspace:
    """Axis-aligned box in ``base_frame`` that the tool centre point must not leave, metres."""

    lower: np.ndarray  # (3,)
    upper: np.ndarray  # (3,)

    def contains(self, point: np.ndarray) -> bool:
        return bool(np.all(point >= self.lower) and np.all(point <= self.upper))


@dataclass(frozen=True)
class Embodiment:
    """A validated embodiment file. Make one with :meth:`load` or :meth:`parse`."""

    name: str
    control_rate_hz: float
    base_frame: str
    streams: dict[str, Stream]
    commands: dict[str, Command]
    chain: Chain | None = None
    workspace: Workspace | None = None
    origin: str = "<memory>"
    text: str = field(default="", repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Embodiment:
        """Read and validate a file.

        Raises:
            UserError: the file is missing, is not YAML, or a key is unknown, missing or unsound.
        """
        path = Path(path)
        return cls.parse(read_text(path), str(path))

    @classmethod
    def parse(cls, text: str, origin: str = "<text>") -> Embodiment:
        """Validate the YAML ``text``; ``origin`` is the file name that errors carry."""
        root = Section(origin, "", parse_yaml(text, origin))
        streams = {key: _stream(part) for key, part in root.children("streams")}
        commands = {key: _command(part) for key, part in root.children("commands")}
        names = [name for command in commands.values() for name in command.names]
        for name in names:
            if names.count(name) > 1:
                root.fail("commands", "each joint in one command group", f"'{name}' twice")
        chain_part = root.optional_child("kinematics")
        workspace_part = root.optional_child("workspace")
        embodiment = cls(
            name=root.text("name"),
            control_rate_hz=root.rate("control_rate_hz"),
            base_frame=root.text("base_frame", default="base_link"),
            streams=streams,
            commands=commands,
            chain=parse_chain(chain_part) if chain_part else None,
            workspace=_workspace(workspace_part) if workspace_part else None,
            origin=origin,
            text=text,
        )
        root.text("description", default="")
        root.done()
        embodiment._check_chain(root)
        return embodiment

    def _check_chain(self, root: Section) -> None:
        if self.workspace is not None and self.chain is None:
            root.fail("workspace", "a 'kinematics' section to find the tool with", "none")
        if self.chain is not None:
            unknown = [joint for joint in self.chain.joints if joint not in self.action_names]
            if unknown:
                root.fail("kinematics.joints", f"names among {list(self.action_names)}", unknown)

    @property
    def period_ns(self) -> int:
        """Control period; control ticks are the multiples of it on the ROS clock."""
        return round(NANOSECONDS / self.control_rate_hz)

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(name for command in self.commands.values() for name in command.names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    def slices(self) -> dict[str, slice]:
        """Where each command group lies in an action vector ``(A,)``."""
        found, start = {}, 0
        for key, command in self.commands.items():
            found[key] = slice(start, start + len(command.names))
            start += len(command.names)
        return found

    @property
    def velocities(self) -> np.ndarray:
        """Which dimensions ``(A,)`` of an action are velocities, not positions."""
        return np.repeat(
            [group.velocity for group in self.commands.values()],
            [len(group.names) for group in self.commands.values()],
        )

    def at_rest(self, targets: np.ndarray) -> np.ndarray:
        """What keeps a robot with these targets ``(A,)`` where it is: velocities become zero."""
        return np.where(self.velocities, 0.0, targets)

    def limits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(lower, upper, max_rate)``, each ``(A,)``, of all groups in action order."""
        groups = list(self.commands.values())
        return (
            np.concatenate([group.lower for group in groups]),
            np.concatenate([group.upper for group in groups]),
            np.concatenate([group.max_rate for group in groups]),
        )

    def require(self, keys: Iterable[str]) -> dict[str, Stream]:
        """The named streams, in the order asked for.

        Raises:
            UserError: a name is not a stream of this embodiment.
        """
        keys = list(keys)
        for key in keys:
            if key not in self.streams:
                raise UserError(
                    f"{self.origin}: no stream '{key}'; this embodiment has {sorted(self.streams)}"
                )
        return {key: self.streams[key] for key in keys}

    def topics(self) -> dict[str, list[Stream]]:
        """Topic -> the streams taken from its messages."""
        found: dict[str, list[Stream]] = {}
        for stream in self.streams.values():
            found.setdefault(stream.topic, []).append(stream)
        return found

    def contract_hash(self, stream_keys: Iterable[str]) -> str:
        """Hash of what a trained policy depends on, 16 hex digits.

        Topics, rates of unrelated streams and limits are left out on purpose: moving a policy from
        a simulator to a robot may rename topics or tighten limits, but may not change the meaning,
        order or unit of a number that the network sees or emits.
        """
        streams = self.require(sorted(stream_keys))
        # Streams are sorted by name; the command groups stand in the order of the action vector.
        content = {
            "commands": {key: [list(c.names), c.unit] for key, c in self.commands.items()},
            "control_rate_hz": self.control_rate_hz,
            "streams": {key: _meaning(stream) for key, stream in streams.items()},
        }
        canonical = json.dumps(content).encode()
        return hashlib.sha256(canonical).hexdigest()[:16]


def _meaning(stream: Stream) -> list[object]:
    """What a network takes the numbers of a stream for; a scan adds where its beams point."""
    joints, shape = list(stream.joints), list(stream.shape)
    scan = [] if stream.scan is None else [asdict(stream.scan)]
    return [stream.type, stream.field, joints, stream.encoding, shape, stream.unit, *scan]


def _stream(part: Section) -> Stream:
    kind = part.choice("type", STREAM_FIELDS)
    topic = part.relative_name("topic")
    fields = STREAM_FIELDS[kind]
    chosen = part.choice("field", fields) if fields else ""
    joints: tuple[str, ...] = ()
    encoding, dtype, scan = "", "float64", None
    if kind == LASER_SCAN:
        scan, dtype = parse_scan(part), "float32"
        shape: tuple[int, ...] = (scan.beams,)
    elif kind == JOINT_STATE:
        joints = part.names("joints")
        shape = (len(joints),)
    elif fields:
        shape = (len(COMPONENTS[chosen]),)
    else:
        encoding = part.choice("encoding", ENCODINGS)
        dtype, channels = ENCODINGS[encoding]
        shape = part.shape("shape")
        expected_rank = 3 if channels > 1 else 2
        if len(shape) != expected_rank or (channels > 1 and shape[2] != channels):
            wanted = "[height, width, 3]" if channels > 1 else "[height, width]"
            part.fail("shape", f"{wanted} for {encoding}", list(shape))
    stream = Stream(
        key=part.key,
        topic=topic,
        type=kind,
        field=chosen,
        joints=joints,
        shape=shape,
        dtype=dtype,
        encoding=encoding,
        unit=part.text("unit", default="m" if scan else ""),
        scan=scan,
        rate_hz=part.rate("rate_hz"),
        max_age_s=part.positive("max_age_s"),
        latency_s=part.at_least_zero("latency_s", default=0.0),
        stamps=part.choice("stamps", ("header", "receive"), default="header"),
        stuck_after_s=part.positive("stuck_after_s") if part.has("stuck_after_s") else None,
    )
    if scan is not None and stream.unit != "m":
        part.fail("unit", "'m', the unit of every scan", f"'{stream.unit}'")
    if (stream.max_age_s - stream.latency_s) * stream.rate_hz < 1:
        wanted = "at least one period" + (" and latency_s" if stream.latency_s else "")
        least_s = stream.latency_s + 1 / stream.rate_hz
        part.fail("max_age_s", f"{wanted} ({least_s:g} s)", stream.max_age_s)
    part.done()
    return stream


def _command(part: Section) -> Command:
    kind = part.choice("type", COMMAND_TYPES)
    moving = kind in VELOCITY_TYPES
    names = _dimensions(part) if moving else part.names("joints")
    rate = "max_acceleration" if moving else "max_velocity"
    command = Command(
        key=part.key,
        topic=part.relative_name("topic"),
        type=kind,
        names=names,
        unit="m/s, rad/s" if moving else part.text("unit", default=""),
        lower=part.vector("lower", len(names)),
        upper=part.vector("upper", len(names)),
        max_rate=part.vector(rate, len(names)),
    )
    if not np.all(command.lower < command.upper):
        part.fail("lower", "every value below 'upper'", command.lower.tolist())
    if moving and not np.all((command.lower <= 0) & (command.upper >= 0)):
        ends = list(zip(command.lower.tolist(), command.upper.tolist()))
        part.fail("lower", "0 within the limits, so that the base can stand still", ends)
    if not np.all(command.max_rate > 0):
        part.fail(rate, "values above 0", command.max_rate.tolist())
    part.done()
    return command


def _dimensions(part: Section) -> tuple[str, ...]:
    names = part.names("dimensions")
    unknown = [name for name in names if name not in TWIST_DIMENSIONS]
    if unknown:
        part.fail("dimensions", f"names among {list(TWIST_DIMENSIONS)}", unknown)
    return names


def _workspace(part: Section) -> Workspace:
    workspace = Workspace(lower=part.vector("lower", 3), upper=part.vector("upper", 3))
    if not np.all(workspace.lower < workspace.upper):
        part.fail("lower", "every value below 'upper'", workspace.lower.tolist())
    part.done()
    return workspace


def common_period_ns(periods_ns: Iterable[int]) -> tuple[int, int]:
    """``(greatest common divisor, least common multiple)`` of periods in nanoseconds."""
    periods = list(periods_ns)
    return math.gcd(*periods), math.lcm(*periods)
