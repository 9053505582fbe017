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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from embodied_rl.core.command_groups import (
    TWIST_DIMENSIONS,
    Command,
    StopService,
    check_groups,
    command_meaning,
    parse_command,
    parse_stop_services,
    with_measured_tools,
)
from embodied_rl.core.errors import UserError
from embodied_rl.core.frames import Frames, parse_frames
from embodied_rl.core.kinematics import Chain, parse_chain
from embodied_rl.core.message_types import (
    COMMAND_TYPES,
    COMPONENTS,
    ENCODINGS,
    FLOAT_ARRAY,
    IMAGE,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    LASER_SCAN,
    ODOMETRY,
    POSE,
    STREAM_FIELDS,
    TWIST,
    TWIST_STAMPED,
    VELOCITY_TYPES,
    XYZ,
)
from embodied_rl.core.schema import Section, parse_yaml, read_text
from embodied_rl.core.streams import (
    BASE_LINK,
    NANOSECONDS,
    Stream,
    meaning,
    parse_stream,
)

__all__ = [
    "BASE_LINK",
    "COMMAND_TYPES",
    "COMPONENTS",
    "ENCODINGS",
    "FLOAT_ARRAY",
    "IMAGE",
    "JOINT_STATE",
    "JOINT_TRAJECTORY",
    "LASER_SCAN",
    "NANOSECONDS",
    "ODOMETRY",
    "POSE",
    "STREAM_FIELDS",
    "TWIST",
    "TWIST_DIMENSIONS",
    "TWIST_STAMPED",
    "VELOCITY_TYPES",
    "XYZ",
    "Command",
    "Embodiment",
    "Stream",
    "Workspace",
    "common_period_ns",
]


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
    stop_services: tuple[StopService, ...] = ()
    frames: Frames = Frames({})
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
        prefix = root.text("prefix", default="")
        base_frame = root.text("base_frame", default=BASE_LINK)
        frames = parse_frames(root)
        commands = {
            key: parse_command(part, prefix, base_frame) for key, part in root.children("commands")
        }
        limits = {
            name: (float(command.lower[i]), float(command.upper[i]))
            for command in commands.values()
            for i, name in enumerate(command.joints)
            if command.unit in ("", "rad")
        }
        streams = {
            key: _limited(parse_stream(part, prefix, base_frame, frames), limits)
            for key, part in root.children("streams")
        }
        commands = with_measured_tools(root, streams, commands)
        check_groups(root, streams, commands)
        chain_part = root.optional_child("kinematics")
        workspace_part = root.optional_child("workspace")
        embodiment = cls(
            name=root.text("name"),
            control_rate_hz=root.rate("control_rate_hz"),
            base_frame=base_frame,
            streams=streams,
            commands=commands,
            chain=parse_chain(chain_part) if chain_part else None,
            workspace=_workspace(workspace_part) if workspace_part else None,
            stop_services=parse_stop_services(root),
            frames=frames,
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

    def following_bounds(self) -> np.ndarray:
        """How far each dimension ``(A,)`` may be from its target; inf where nobody looks."""
        return np.concatenate([group.max_following_error for group in self.commands.values()])

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

    def static_topics(self) -> dict[str, str]:
        """Topic -> message type of the transforms that stay, which streams of tf need."""
        return {s.static_topic: s.type for s in self.streams.values() if s.static_topic}

    def command_topics(self) -> dict[str, str]:
        """Topic -> message type of the commands; an action has no topic that can be listened to."""
        return {c.topic: c.type for c in self.commands.values() if c.goals is None}

    def contract_hash(self, stream_keys: Iterable[str]) -> str:
        """Hash of what a trained policy depends on, 16 hex digits.

        Topics, rates of unrelated streams and limits are left out on purpose: moving a policy from
        a simulator to a robot may rename topics or tighten limits, but may not change the meaning,
        order or unit of a number that the network sees or emits.
        """
        streams = self.require(sorted(stream_keys))
        # Streams are sorted by name; the command groups stand in the order of the action vector.
        content = {
            "commands": {k: command_meaning(c, self.base_frame) for k, c in self.commands.items()},
            "control_rate_hz": self.control_rate_hz,
            "streams": {key: meaning(stream) for key, stream in streams.items()},
        }
        canonical = json.dumps(content).encode()
        return hashlib.sha256(canonical).hexdigest()[:16]


def _limited(stream: Stream, limits: Mapping[str, tuple[float, float]]) -> Stream:
    """The stream with the limits of the joints whose angles it measures; not of endless ones."""
    if stream.type != JOINT_STATE or stream.field != "position" or stream.unit not in ("", "rad"):
        return stream
    endless = stream.continuous or (None,) * len(stream.joints)
    found = [
        limits.get(joint) if centre is None else None
        for joint, centre in zip(stream.joints, endless, strict=True)
    ]
    return replace(stream, limits=tuple(found))


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
