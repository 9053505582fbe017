"""What the benchmark of the apartment reports is what was compared."""

from __future__ import annotations

import numpy as np
import pytest
import relic_apartment
import torch

from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.policies.relic.apartment import compared
from embodied_rl.policies.relic.episodes import Episodes
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.training.statistics import mean_interval


def episodes(random: np.random.Generator, rate: np.ndarray) -> Episodes:
    shape = (6, 8)
    success = torch.from_numpy(random.random(shape) < rate)
    return Episodes(
        finished=torch.ones(shape, dtype=torch.bool),
        returned=torch.full(shape, torch.nan),
        steps=torch.from_numpy(random.integers(1, 26, shape)),
        success=success,
        efficiency=success * torch.from_numpy(random.random(shape)),
        familiar=torch.from_numpy(random.random(shape) < 0.5),
    )


def test_figures_are_those_of_the_comparison() -> None:
    random = np.random.default_rng(0)
    robot, twin = (episodes(random, np.linspace(0.3, high, 8)) for high in (0.7, 0.9))
    info, commands = EpisodeInfo(0, 0, "", "", 0), np.zeros((1, 2))
    results = [
        EpisodeResult(info, Outcome(True, bool(one), "", 0.0), 30, 0, commands)
        for one in robot.success.flatten()
    ]
    figures = relic_apartment.flat(compared(robot, twin, results, 25))
    success, other = (one.success.double().numpy() for one in (robot, twin))
    assert figures["success_3"] == pytest.approx(success[:, 2].mean())
    assert figures["twin.spl_8"] == pytest.approx(float(twin.efficiency[:, 7].mean()))
    late = success[:, 5:].mean(axis=1) - success[:, 0]
    found = [figures[f"gain.success.late{end}"] for end in ("", ".low", ".high")]
    assert found == pytest.approx(mean_interval(late))
    gap = mean_interval((success - other).mean(axis=1))
    assert [figures[f"gap.success{end}"] for end in ("", ".low", ".high")] == pytest.approx(gap)
    assert figures["success"] == pytest.approx(success.mean())
    assert relic_apartment.simulated_s(results) == pytest.approx(48 * 3.0)
