"""The shipped model keeps giving the commands it gave when it was measured."""

from pathlib import Path

import numpy as np
import pytest

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.core.window import Observation
from embodied_rl.policies.ptp.runtime import load_ptp

ROOT = Path(__file__).resolve().parents[3]
# (model, step of the chunk) -> target of all joints (rad), after 12 made-up rows, seed 3
REFERENCE = {
    ("ptp_replace_object", 0): [
        -0.0831998, -1.5007914, 2.1557217, -2.2387972, -1.5707965, -0.0797400, 0.1204893,
    ],
    ("ptp_replace_object", 15): [
        0.0787434, -1.4387991, 2.2467935, -2.3743608, -1.5707964, 0.0757604, 0.5956562,
    ],
    ("ptp_replace_object_short", 0): [
        -0.1361117, -1.4216120, 2.0791740, -2.2297549, -1.5707961, -0.1392810, 0.5716749,
    ],
    ("ptp_replace_object_short", 15): [
        -0.2213428, -1.2893090, 1.8047546, -2.0844612, -1.5707964, -0.2227223, 0.6,
    ],
}  # fmt: skip


def made_up_rows(policy, embodiment, count=12):
    """Smooth curves in the middle of the data's limits: plain arithmetic, the same everywhere."""
    for tick in range(count):
        values = {}
        for key in policy.spec.streams:
            limits = policy.model.encoder.streams[key].limits
            low, high = limits.low.numpy(), limits.high.numpy()
            phase = 0.05 * tick + 0.1 * np.arange(len(low))
            values[key] = low + (high - low) * (0.5 + 0.3 * np.sin(phase))
        yield Observation(tick * embodiment.period_ns, values, dict.fromkeys(values, True))


def commands(name):
    embodiment = Embodiment.load(ROOT / "sim_worlds" / "tabletop" / "ur5e_2f85.yaml")
    policy = load_ptp(ROOT / "models" / name, embodiment)
    policy.reset(EpisodeInfo(0, 3, "replace_object", "", 0))
    for row in made_up_rows(policy, embodiment):
        policy.observe(row)
    return policy.act().values


@pytest.mark.parametrize("name", sorted({name for name, _ in REFERENCE}))
def test_commands_are_the_stored_ones(name):
    values = commands(name)
    for (model, step), expected in REFERENCE.items():
        if model == name:
            # another processor sums in another order; a changed model is off by far more
            np.testing.assert_allclose(values[step], expected, atol=2e-5)
