"""What it costs to turn an image bag into training data, against reading it with ``rosbags`` alone.

The bag holds what a robot with two cameras records: 640x480 and 128x128 rgb8 at the control rate,
joint states at 50 Hz, and chunks of commands. One arm is ``rosbags`` reading and decoding every
message of it and throwing the result away; the other is ``bags convert``, which reads the same
messages, aligns them and writes the cache. Both run in one process and take turns, and the fastest
round of each counts, so that load from outside disturbs the ratio little. Bag and cache lie in
memory (``--folder`` puts them elsewhere): a disk would be measured with them otherwise.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _report import report
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.bags.write import BagWriter
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import EpisodeInfo, Outcome

TARGETS = {"ratio_to_rosbags": (">=", 0.8)}
MS = 1_000_000
START_NS = 1_000 * MS
STORE = get_typestore(Stores.ROS2_JAZZY)
ROBOT = """
name: two_cameras
control_rate_hz: 10
streams:
  position:
    {topic: joint_states, type: sensor_msgs/msg/JointState, field: position,
     joints: [a, b, c, d, e, f], unit: rad, rate_hz: 50, max_age_s: 0.1}
  large:
    {topic: camera/large/image_raw, type: sensor_msgs/msg/Image, encoding: rgb8,
     shape: [480, 640, 3], rate_hz: 10, max_age_s: 0.2}
  small:
    {topic: camera/small/image_raw, type: sensor_msgs/msg/Image, encoding: rgb8,
     shape: [128, 128, 3], rate_hz: 10, max_age_s: 0.2}
commands:
  arm:
    {topic: joint_trajectory_controller/joint_trajectory,
     type: trajectory_msgs/msg/JointTrajectory, joints: [a, b, c, d, e, f], unit: rad,
     lower: [-3, -3, -3, -3, -3, -3], upper: [3, 3, 3, 3, 3, 3],
     max_velocity: [2, 2, 2, 2, 2, 2]}
"""


@dataclass(frozen=True)
class Arguments:
    """Conversion of an image bag in MB/s and frames/s, against rosbags alone."""

    seconds: float = 30.0
    """Length of the bag; a second is 9.8 MB."""
    rounds: int = 20
    """Times that both arms run."""
    folder: Path | None = None
    """Where bag and cache lie; default: in memory (/dev/shm), else the temporary folder."""
    json: Path | None = None
    """Write the figures to this file."""


def main(argv: list[str]) -> int:
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl bench bags", description=Arguments.__doc__
    )
    memory = Path("/dev/shm")
    place = arguments.folder or (memory if memory.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="bench_bags_", dir=place) as name:
        bag = write_bag(Path(name) / "bag", arguments.seconds)
        figures = measure(bag, Path(name) / "cache", arguments.rounds)
    return report("bags", figures, TARGETS, arguments.json)


def measure(bag: Path, cache: Path, rounds: int) -> dict[str, float]:
    """Both arms in turn; the figures of the fastest round of each, and the spread."""
    size = sum(file.stat().st_size for file in bag.iterdir())
    robot = Embodiment.parse(ROBOT, "two_cameras.yaml")
    alone, ours, frames = [], [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        frames = read_with_rosbags(bag)
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        summary = convert(bag, cache, embodiment=robot, workers=1)
        ours.append(time.perf_counter() - began)
        check(cache, summary.results[0].lines, frames)
        shutil.rmtree(cache)
    return {
        "bag_MB": size / 1e6,
        "rosbags_MB_per_s": size / min(alone) / 1e6,
        "convert_MB_per_s": size / min(ours) / 1e6,
        "rosbags_frames_per_s": frames / min(alone),
        "convert_frames_per_s": frames / min(ours),
        "ratio_to_rosbags": min(alone) / min(ours),
        "ratio_of_medians": statistics.median(alone) / statistics.median(ours),
    }


def read_with_rosbags(bag: Path) -> int:
    """Read and decode every message; returns the number of images."""
    frames = 0
    with Reader(bag) as reader:
        for connection, _, data in reader.messages():
            message = STORE.deserialize_cdr(data, connection.msgtype)
            frames += hasattr(message, "encoding")
    return frames


def check(cache: Path, lines: list[str], frames: int) -> None:
    """A fast conversion that loses frames would be no result."""
    (episode,) = EpisodeCache(cache)
    rows = len(episode)
    if lines or 2 * rows != frames or not episode.valid("large").all():
        raise RuntimeError(f"conversion is wrong: {rows} rows of {frames} images; {lines}")


def write_bag(folder: Path, seconds: float) -> Path:
    """An episode of two cameras, with pictures that do not compress."""
    writer, types = BagWriter(folder), STORE.types
    kinds = {
        "/embodiment": "std_msgs/msg/String",
        "/episode/start": "std_msgs/msg/String",
        "/episode/outcome": "std_msgs/msg/String",
        "/joint_states": "sensor_msgs/msg/JointState",
        "/camera/large/image_raw": "sensor_msgs/msg/Image",
        "/camera/small/image_raw": "sensor_msgs/msg/Image",
        "/joint_trajectory_controller/joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    }
    for topic, kind in kinds.items():
        writer.add_topic(topic, kind)

    def put(topic: str, now_ns: int, **fields) -> None:
        kind = kinds[topic]
        writer.write(topic, now_ns, bytes(STORE.serialize_cdr(types[kind](**fields), kind)))

    put("/embodiment", START_NS, data=ROBOT)
    info = EpisodeInfo(0, 0, "bench", "look", START_NS)
    put("/episode/start", START_NS, data=info.to_yaml())
    noise = np.random.default_rng(0)
    for now in range(START_NS, START_NS + round(seconds * 1000) * MS, 20 * MS):
        stamp = types["builtin_interfaces/msg/Time"](sec=now // 10**9, nanosec=now % 10**9)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="base_link")
        six = np.full(6, np.sin(now / 1e9))
        put("/joint_states", now, header=header, name=list("abcdef"),
            position=six, velocity=six, effort=six)  # fmt: skip
        if now % (100 * MS):
            continue
        for name, (height, width) in {"large": (480, 640), "small": (128, 128)}.items():
            pixels = noise.integers(0, 256, height * width * 3, dtype=np.uint8)
            put(f"/camera/{name}/image_raw", now, header=header, height=height, width=width,
                encoding="rgb8", is_bigendian=0, step=width * 3, data=pixels)  # fmt: skip
        points = [_point(types, six, i) for i in range(1, 9)]
        put("/joint_trajectory_controller/joint_trajectory", now, header=header,
            joint_names=list("abcdef"), points=points)  # fmt: skip
    over = Outcome(True, True, "looked", 1.0)
    put("/episode/outcome", START_NS + round(seconds * 1000) * MS, data=over.to_yaml())
    return writer.close()


def _point(types, positions: np.ndarray, number: int):
    """Target ``number`` of a chunk, 0.1 s apart."""
    none = np.zeros(0)
    offset = types["builtin_interfaces/msg/Duration"](sec=0, nanosec=number * 100 * MS)
    return types["trajectory_msgs/msg/JointTrajectoryPoint"](
        positions=positions, velocities=none, accelerations=none, effort=none,
        time_from_start=offset,
    )  # fmt: skip
