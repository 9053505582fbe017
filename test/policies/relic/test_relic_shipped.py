"""The shipped model of the dark room learns in its context, with goals it never trained on."""

from __future__ import annotations

from pathlib import Path

from embodied_rl.policies.relic.evaluation import evaluate, load_relic_model, summary

MODEL = Path(__file__).resolve().parents[3] / "models" / "relic_darkroom"


def test_return_rises_over_the_episodes_of_a_trial():
    """Measured over 400 trials: 13.6 [12.7, 14.5]; here over 40, with a wide margin."""
    loaded = load_relic_model(MODEL)
    low = summary(evaluate(loaded.model, loaded.world, 40, 0))["gain"]["return"]["last"][1]
    assert low > 6.0
