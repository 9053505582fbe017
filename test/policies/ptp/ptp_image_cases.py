"""A robot with two cameras that see where a bright square is; small enough to train in seconds."""

from dataclasses import replace

import numpy as np

from embodied_rl.bags import cache as layout
from embodied_rl.bags.cache import Contract, EpisodeRecord, Index
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.nn.vision import ImageSettings
from embodied_rl.policies.ptp.config import EncoderStage, PtpConfig, PtpRun
from embodied_rl.policies.ptp.data import Recording
from embodied_rl.training.supervised import TrainSettings

SIDE = 24
TEXT = """
name: watcher
control_rate_hz: 10
streams:
  place:
    {topic: joint_states, type: sensor_msgs/msg/JointState, field: position, joints: [a, b],
     rate_hz: 10, max_age_s: 0.2}
  left: {topic: left, type: sensor_msgs/msg/Image, encoding: rgb8, shape: [24, 24, 3],
         rate_hz: 10, max_age_s: 0.2}
  right: {topic: right, type: sensor_msgs/msg/Image, encoding: rgb8, shape: [24, 24, 3],
          rate_hz: 10, max_age_s: 0.2}
commands:
  arm:
    {topic: arm, type: std_msgs/msg/Float64MultiArray, joints: [a, b], unit: rad, lower: [-9, -9],
     upper: [9, 9], max_velocity: [9, 9]}
"""
KEYS = ("left", "right", "place")
CONFIG = PtpConfig(
    KEYS, history=4, stride=2, chunk=3, execute=2, width=32, layers=1, heads=4, dropout=0.0,
    encoders={k: ImageSettings(crop=20, keypoints=8, features=6) for k in ("left", "right")},
)  # fmt: skip
SETTINGS = TrainSettings(steps=5, batch=4, warmup=2, validate_every=2, save_every=2)
RUN = PtpRun("watch_ptp", "watch", CONFIG, SETTINGS, EncoderStage(2, replace(SETTINGS, steps=4)))


def make_robot():
    return Embodiment.parse(TEXT, "watcher.yaml")


def make_image_recording(rows, seed=0, name=""):
    """The commanded place is that of the square: one camera shows one axis, the other the other."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.integers(-2, 3, (rows, 2)), axis=0) + SIDE // 2
    path = np.clip(path, 6, SIDE - 6)
    cameras = np.full((2, rows, SIDE, SIDE, 3), 20, np.uint8)
    for camera in range(2):
        for row, at in enumerate(path[:, camera]):
            cameras[camera, row, 9:14, at - 2 : at + 3] = (250, 120, 60)
    values = {"left": cameras[0], "right": cameras[1], "place": rng.normal(size=(rows, 2))}
    valid = {k: np.ones(rows, bool) for k in values}
    return Recording(values, valid, path / SIDE, np.ones(rows, bool), name=name)


def make_image_recordings():
    lengths = (20, 9, 14)
    return [make_image_recording(n, i, f"bag_{i}") for i, n in enumerate(lengths)]


def write_cache(root, recordings):
    """The recordings as 'bags convert' lays them out."""
    contract, names = Contract.of(make_robot(), KEYS), []
    for i, recording in enumerate(recordings):
        folder, rows = root / f"episode_{i:06d}", len(recording.actions)
        folder.mkdir(parents=True)
        np.save(folder / layout.STAMPS, 100_000_000 * np.arange(rows))
        np.save(folder / layout.ACTIONS, recording.actions)
        np.save(folder / layout.ACTION_VALID, recording.known)
        for key in KEYS:
            np.save(folder / layout.values_file(key), recording.values[key])
            np.save(folder / layout.valid_file(key), recording.valid[key])
        EpisodeRecord(
            recording.name, f"source{i}", rows, contract.embodiment_hash, contract.streams, "",
            None, None, False, [],
        ).write(folder)  # fmt: skip
        names.append(folder.name)
    (root / layout.ROBOT).write_text(TEXT)
    Index(contract, True, names).write(root)
