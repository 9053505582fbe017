"""A one-joint robot and recordings of it: small enough to check windows and gradients by hand."""

import numpy as np

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.core.window import Observation
from embodied_rl.policies.ptp.config import PtpConfig
from embodied_rl.policies.ptp.data import Recording

TEXT = """
name: slider
control_rate_hz: 10
streams:
  place:
    {topic: joint_states, type: sensor_msgs/msg/JointState, field: position, joints: [a, b],
     rate_hz: 10, max_age_s: 0.2}
  thing: {topic: thing, type: geometry_msgs/msg/PoseStamped, field: position, rate_hz: 10,
          max_age_s: 0.2}
commands:
  arm:
    {topic: arm, type: std_msgs/msg/Float64MultiArray, joints: [a, b], unit: rad, lower: [-9, -9],
     upper: [9, 9], max_velocity: [9, 9]}
"""


def make_embodiment():
    return Embodiment.parse(TEXT, "slider.yaml")


def make_config():
    return PtpConfig(
        ("place", "thing"), history=4, stride=3, chunk=5, execute=2, width=32, layers=2, heads=4
    )


def make_recording(rows, seed=0):
    rng = np.random.default_rng(seed)
    values = {"place": rng.normal(size=(rows, 2)), "thing": rng.normal(size=(rows, 3))}
    valid = {k: np.ones(rows, bool) for k in values}
    return Recording(values, valid, rng.normal(size=(rows, 2)), np.ones(rows, bool))


def make_recordings():
    return [make_recording(rows, seed) for seed, rows in enumerate((30, 9, 22))]


PERIOD_NS = 100_000_000


def episode(seed=7, start_ns=0):
    return EpisodeInfo(0, seed, "slide", "", start_ns)


def rows_of(recording, start_ns=0):
    """The recording as the observations of successive ticks."""
    for i in range(len(recording.actions)):
        yield Observation(
            start_ns + i * PERIOD_NS,
            {k: v[i] for k, v in recording.values.items()},
            {k: bool(v[i]) for k, v in recording.valid.items()},
        )
