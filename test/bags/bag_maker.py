"""Writes test bags with ``rosbags``, a library that knows nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from embodied_rl.bags.messages import standard_types
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import EpisodeInfo, Outcome

STORE = standard_types()
TYPES = STORE.types
MS = 1_000_000
START_NS = 5_000 * MS

ROBOT = """
name: testbot
control_rate_hz: 10
streams:
  position:
    topic: joint_states
    type: sensor_msgs/msg/JointState
    field: position
    joints: [a, b]
    unit: rad
    rate_hz: 50
    max_age_s: 0.1
  velocity:
    topic: joint_states
    type: sensor_msgs/msg/JointState
    field: velocity
    joints: [a, b]
    unit: rad/s
    rate_hz: 50
    max_age_s: 0.1
  tool:
    topic: tool/pose
    type: geometry_msgs/msg/PoseStamped
    field: position
    unit: m
    rate_hz: 20
    max_age_s: 0.2
  camera:
    topic: camera/image_raw
    type: sensor_msgs/msg/Image
    encoding: rgb8
    shape: [6, 8, 3]
    rate_hz: 10
    max_age_s: 0.25
commands:
  arm:
    topic: arm/joint_trajectory
    type: trajectory_msgs/msg/JointTrajectory
    joints: [a, b]
    unit: rad
    lower: [-3, -3]
    upper: [3, 3]
    max_velocity: [2, 2]
  grip:
    topic: grip/commands
    type: std_msgs/msg/Float64MultiArray
    joints: [g]
    unit: rad
    lower: [0]
    upper: [1]
    max_velocity: [5]
"""


def robot(text: str = ROBOT) -> Embodiment:
    return Embodiment.parse(text, "testbot.yaml")


def make(kind: str, **fields):
    return TYPES[kind](**fields)


def header(stamp_ns: int, frame: str = "base_link"):
    stamp = make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def joint_state(stamp_ns: int, value: float, names=("b", "extra", "a")):
    """Joints in another order than the embodiment's, and one that it does not know."""
    position = {"a": value, "b": -value, "extra": 99.0}
    return make(
        "sensor_msgs/msg/JointState",
        header=header(stamp_ns),
        name=list(names),
        position=np.array([position[name] for name in names]),
        velocity=np.array([10 * position[name] for name in names]),
        effort=np.zeros(0),
    )


def pose(stamp_ns: int, value: float):
    return make(
        "geometry_msgs/msg/PoseStamped",
        header=header(stamp_ns),
        pose=make(
            "geometry_msgs/msg/Pose",
            position=make("geometry_msgs/msg/Point", x=value, y=2 * value, z=3 * value),
            orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        ),
    )


def image(stamp_ns: int, pixels: np.ndarray, encoding: str = "rgb8", frame: str = "camera"):
    return make(
        "sensor_msgs/msg/Image",
        header=header(stamp_ns, frame),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=np.frombuffer(pixels.tobytes(), np.uint8),
    )


def trajectory(stamp_ns: int, names, values: np.ndarray, period_ns: int = 100 * MS):
    points = []
    for i, row in enumerate(np.asarray(values, dtype=np.float64)):
        offset = (i + 1) * period_ns
        points.append(
            make(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=row,
                velocities=np.zeros(0),
                accelerations=np.zeros(0),
                effort=np.zeros(0),
                time_from_start=make(
                    "builtin_interfaces/msg/Duration",
                    sec=offset // 10**9,
                    nanosec=offset % 10**9,
                ),
            )
        )
    return make(
        "trajectory_msgs/msg/JointTrajectory",
        header=header(stamp_ns),
        joint_names=list(names),
        points=points,
    )


def array(values):
    layout = make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return make(
        "std_msgs/msg/Float64MultiArray", layout=layout, data=np.asarray(values, dtype=np.float64)
    )


def string(text: str):
    return make("std_msgs/msg/String", data=text)


@dataclass(frozen=True)
class Entry:
    """One message to be written."""

    log_ns: int
    topic: str
    message: object

    @property
    def kind(self) -> str:
        return str(self.message.__msgtype__)  # type: ignore[attr-defined]

    def raw(self) -> bytes:
        return bytes(STORE.serialize_cdr(self.message, self.kind))


@dataclass
class Script:
    """The messages of one episode, for tests to spoil."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, log_ns: int, topic: str, message) -> None:
        self.entries.append(Entry(log_ns, topic, message))

    def without(self, topic: str) -> Script:
        return Script([entry for entry in self.entries if entry.topic != topic])

    def change(self, topic: str, edit: Callable[[int, Entry], Entry | None]) -> Script:
        """Edit the messages of a topic by their number; None removes one."""
        changed, number = [], 0
        for entry in self.entries:
            if entry.topic != topic:
                changed.append(entry)
                continue
            edited = edit(number, entry)
            number += 1
            if edited is not None:
                changed.append(edited)
        return Script(changed)


def pixels(tick: int) -> np.ndarray:
    return np.random.default_rng(tick).integers(0, 255, (6, 8, 3), dtype=np.uint8)


def wave(stamp_ns: int) -> float:
    return float(np.sin(stamp_ns / 1e9))


def episode(
    seconds: float = 2.0, start_ns: int = START_NS, *, executed: bool = True, own: bool = True
) -> Script:
    """A sound episode. Chunks of three targets every second tick; ``own``: with our topics."""
    script = Script()
    end_ns = start_ns + round(seconds * 1e9)
    if own:
        info = EpisodeInfo(3, 42, "test", "lift the cube", start_ns)
        script.add(start_ns, "/embodiment", string(ROBOT))
        script.add(start_ns, "/instruction", string("lift the cube"))
        script.add(start_ns, "/episode/start", string(info.to_yaml()))
    for now in range(start_ns, end_ns + 1, 10 * MS):
        log = now + 3 * MS
        if now % (20 * MS) == 0:
            script.add(log, "/joint_states", joint_state(now, wave(now)))
        if now % (50 * MS) == 0:
            script.add(log, "/tool/pose", pose(now, wave(now)))
        if now % (100 * MS) == 0:
            script.add(log, "/camera/image_raw", image(now, pixels(now // (100 * MS))))
        if (now - start_ns) % (200 * MS) == 0:
            values = targets(now)
            if executed:
                chunk = trajectory(now, "abg", values)
                script.add(now + 5 * MS, "/command/executed", chunk)
            script.add(now + 5 * MS, "/arm/joint_trajectory", trajectory(now, "ab", values[:, :2]))
        if (now - start_ns) % (100 * MS) == 0:
            script.add(now + 6 * MS, "/grip/commands", array([wave(now + 100 * MS)]))
    if own:
        outcome = Outcome(True, True, "placed", 1.0)
        script.add(end_ns + 4 * MS, "/episode/outcome", string(outcome.to_yaml()))
    return script


def targets(tick_ns: int) -> np.ndarray:
    """The three targets ``(3, 3)`` of the chunk given at a tick."""
    times = tick_ns + 100 * MS * np.arange(1, 4)
    return np.stack([np.sin(times / 1e9), np.cos(times / 1e9), np.sin(times / 1e9)], axis=1)


def write(
    folder: Path,
    script: Script,
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode | None = None,
) -> Path:
    """Record the script as a bag."""
    writer = Writer(folder, version=9, storage_plugin=storage)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for entry in script.entries:
            if entry.topic not in connections:
                connections[entry.topic] = writer.add_connection(
                    entry.topic, entry.kind, typestore=STORE
                )
            writer.write(connections[entry.topic], entry.log_ns, entry.raw())
    return folder
