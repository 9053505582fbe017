"""A short run of the long one: its figures are what they say."""

from __future__ import annotations

import pytest
import relic_long_run
import torch
from relic_long_run import EPISODE, long_run, made_up

from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.memory import TrialMemory

CONFIG = RelicConfig(
    action_count=4, horizon=EPISODE, feature_count=3, cell_count=5, code_count=4, width=32, mlp=64
)
STEPS = 600


def test_no_drift_and_the_bytes_of_the_shapes() -> None:
    figures, series = long_run(CONFIG, STEPS, 60)
    assert max(figures["drift_scores"], figures["drift_value"]) <= 1e-4
    assert figures["value_rms"] > 0.1
    cache = 2 * 2 * 32 * (STEPS + 1) * 4 + STEPS * 4  # the limit is room for all steps and no more
    steps = STEPS * (5 * 2 + 3 * 4 + 8 + 4 + 8 + 8)
    assert figures["computed_mb"] * 2**20 == pytest.approx(cache + steps)
    assert series["context"] == [256, 512]


def test_a_memory_that_drifts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Drifting(TrialMemory):
        def step(self, tokens):
            found = super().step(tokens)
            self.cache.seen(0).values[:, :, -1] *= 1.1
            return found

    monkeypatch.setattr(relic_long_run, "TrialMemory", Drifting)
    assert long_run(CONFIG, STEPS, 60)[0]["drift_value"] > 1e-4


def test_episodes_follow_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    steps = [made_up(CONFIG, step, generator) for step in range(2 * EPISODE)]
    assert [int(step.time) for step in steps] == 2 * list(range(EPISODE))
    assert [int(step.episode) for step in steps] == [0] * EPISODE + [1] * EPISODE
    assert [int(step.action) == 0 for step in steps] == [int(step.time) == 0 for step in steps]
