"""One row at the decision tells nothing; the same classifiers do see the pad earlier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embodied_rl.sim.tasks.leak_audit import Dataset, audit, collect


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny matrices: threads only wait for each other
    yield
    torch.set_num_threads(before)


def test_state_at_the_decision_is_at_chance():
    verdicts = audit(collect(episodes=70, seed=3))
    assert len(verdicts) == 4
    for verdict in verdicts:
        assert verdict.total == 70
        if verdict.moment == "decision":
            assert verdict.at_chance, verdict
        else:
            assert verdict.low > 0.85, verdict


def test_classifiers_find_a_planted_leak_in_state_and_image():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=120)
    state = rng.standard_normal((120, 12))
    state[:, 5] += 1.6 * labels
    image = rng.random((120, 3000))
    image[:, 40:60] += 0.5 * labels[:, None]
    for verdict in audit(Dataset(labels, {"decision": {"state": state, "image": image}})):
        assert verdict.low > 0.55, verdict
