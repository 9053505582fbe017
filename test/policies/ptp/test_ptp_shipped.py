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
    ("ptp_count_pushes", 0): [
        -0.2410213, -1.4856561, 2.0622404, -2.1494536, -1.5707965, -0.2411782, 0.5214127,
    ],
    ("ptp_count_pushes", 15): [
        -0.3288343, -1.5711039, 2.2011561, -2.2016926, -1.5707964, -0.3288395, 0.5979959,
    ],
    ("ptp_replace_object", 0): [
        -0.0801159, -1.4816341, 2.0404356, -2.1261103, -1.5707964, -0.0805719, 0.4293478,
    ],
    ("ptp_replace_object", 15): [
        0.0742977, -1.3744137, 2.2373359, -2.4300227, -1.5707959, 0.0740672, 0.1749376,
    ],
    ("ptp_replace_object_short", 0): [
        -0.1420712, -1.3539927, 2.0400808, -2.2518883, -1.5707966, -0.1406723, 0.5791035,
    ],
    ("ptp_replace_object_short", 15): [
        -0.2331918, -1.2814050, 1.7996378, -2.0883546, -1.5707964, -0.2324570, 0.6000000,
    ],
    ("ptp_return_home", 0): [
        -0.0520850, -1.5147914, 1.9444118, -2.0003700, -1.5707964, -0.0514835, -0.0000002,
    ],
    ("ptp_return_home", 15): [
        -0.2115822, -1.2902215, 1.7688638, -2.0483181, -1.5707967, -0.2117953, 0.0000000,
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
