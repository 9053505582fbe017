"""The shipped models of small worlds learn in their context, where they never trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from embodied_rl.policies.relic.evaluation import evaluate, load_relic_model, summary

MODELS = Path(__file__).resolve().parents[3] / "models"


@pytest.mark.parametrize(
    ("name", "measure", "episodes", "least"),
    [
        ("relic_darkroom", "return", "last", 6.0),  # of 400 trials: 13.5 [12.7, 14.4]
        ("relic_egocentric", "success", "late", 0.1),  # of 256 trials: 0.33 [0.26, 0.39]
    ],
)
def test_the_late_episodes_of_a_trial_are_better_than_the_first(
    name: str, measure: str, episodes: str, least: float
) -> None:
    """Measured on many trials; here on 40, with a wide margin."""
    loaded = load_relic_model(MODELS / name)
    low = summary(evaluate(loaded.model, loaded.world, 40, 0))["gain"][measure][episodes][1]
    assert low > least
