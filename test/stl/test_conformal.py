"""The bound of a prediction: quantile, coverage, file, and that it narrows no interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_monitor import CART, run, spec

from embodied_rl.core.errors import UserError
from embodied_rl.stl import conformal
from embodied_rl.stl.monitor import SpecificationMonitor
from embodied_rl.stl.spec import parse_specification

HOLD = "predictor: hold"


def calibration(specification, q: float = 0.25) -> conformal.Calibration:
    return conformal.calibrate(specification, {"both": [q] * 100}, 0.1)


@pytest.mark.parametrize(("count", "delta"), [(99, 0.1), (100, 0.1), (137, 0.05), (250, 0.3)])
def test_the_quantile_is_the_smallest_score_that_enough_do_not_exceed(count, delta):
    scores = np.random.default_rng(count).exponential(size=count).tolist()
    enough = (1 - delta) * (count + 1) - 1e-9
    by_hand = min(q for q in scores if sum(s <= q for s in scores) >= enough)
    assert conformal.quantile(scores, delta) == by_hand


@pytest.mark.parametrize(("count", "delta"), [(99, 0.1), (100, 0.1), (120, 0.17)])
def test_coverage_over_every_choice_of_the_new_episode_is_what_was_promised(count, delta):
    """Of n + 1 exchangeable scores each is the new one equally often."""
    scores = np.random.default_rng(0).normal(size=count + 1).tolist()
    covered = sum(
        new <= conformal.quantile(scores[:i] + scores[i + 1 :], delta)
        for i, new in enumerate(scores)
    )
    assert covered == conformal.rank_of(count, delta)
    assert 1 - delta <= covered / (count + 1) < 1 - delta + 1 / (count + 1)


def test_too_few_scores_have_no_quantile():
    assert conformal.quantile([1.0] * 8, 0.1) == math.inf
    assert conformal.quantile([1.0] * 9, 0.1) == 1.0


def test_the_score_is_the_most_that_predictions_were_too_high():
    assert conformal.score([0.5, None, 2.0, -1.0], 0.75) == 1.25
    assert conformal.score([-3.0, 0.5], 0.75) == 0.0
    assert conformal.score([None], -1.0) == 0.0
    assert conformal.score([1.0], -math.inf) == math.inf


def test_the_bound_stands_beside_the_interval_and_does_not_narrow_it():
    specification = spec("G[0,1] x < 2", more=HOLD)
    plain, _ = run(specification, 0.0, 1.5)
    bounded = SpecificationMonitor(specification, calibration=calibration(specification))
    bounded.update(plain.slot.__class__(0, 10**9, {"x": 0.0}))
    bounded.update(plain.slot.__class__(1, 10**9 + 10**8, {"x": 1.5}))
    without, found = plain.readings()["both"], bounded.readings()["both"]
    assert (without.low, without.high) == (found.low, found.high) == (-3.0, 0.5)
    assert without.estimate == found.estimate == 0.5
    assert without.bound is None and found.bound == 0.25


def test_a_file_is_for_one_specification(tmp_path):
    specification, path = spec("G[0,1] x < 2", more=HOLD), tmp_path / "calibration.yaml"
    made = calibration(specification)
    conformal.save(made, path)
    assert conformal.load(path, specification) == made
    with pytest.raises(UserError, match="hash: expected .* of specification 'test' as it is now"):
        conformal.load(path, spec("G[0,1] x < 3", more=HOLD))
    with pytest.raises(UserError, match="hash: expected"):
        conformal.load(path, spec("G[0,1] x < 2", more="predictor: linear"))
    text = path.read_text()
    path.write_text(text.replace("both: 0.25", "both: -1"))
    with pytest.raises(UserError, match="quantiles.both: expected a number of 0 or more, saw -1"):
        conformal.load(path, specification)
    path.write_text(text.replace("both: 0.25", "another: 1.0"))
    with pytest.raises(UserError, match="quantiles.both: missing"):
        conformal.load(path, specification)


def test_topics_may_differ_and_meanings_may_not():
    here = spec("G[0,1] x < 2", more=HOLD)
    moved = CART.text.replace("topic: joint_states", "topic: robot/joints")
    text = (
        "name: other\ndt_s: 0.1\npredictor: hold\nformulas: {both: 'G[0,1] x < 2'}\nsignals:\n"
        "  x: {stream: cart, component: COMPONENT, unit: m, bounds: [-5, 5]}\n"
    )
    robot = CART.parse(moved, "moved.yaml")
    same = parse_specification(text.replace("COMPONENT", "x"), robot, "same.yaml")
    other = parse_specification(text.replace("COMPONENT", "y"), robot, "other.yaml")
    assert same.content_hash() == here.content_hash() != other.content_hash()


@pytest.mark.parametrize(
    ("more", "mode", "count", "delta", "complaint"),
    [
        (HOLD, "episode", 99, 0.1, "calibration: expected at least 100 episodes, saw 99"),
        (HOLD, "episode", 150, 0.005, "expected at least 199 episodes, saw 150"),
        (HOLD, "episode", 100, 1.0, "delta: expected a probability above 0 and below 1, saw 1"),
        (HOLD, "sliding", 100, 0.1, "expected mode 'episode'"),
        ("", "episode", 100, 0.1, "expected a predictor to calibrate"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(more, mode, count, delta, complaint):
    with pytest.raises(UserError, match=complaint):
        conformal.calibrate(spec("G[0,1] x < 2", mode, more), {"both": [0.0] * count}, delta)


def test_recordings_that_end_too_early_are_named():
    scores = {"both": [0.0] * 85 + [math.inf] * 15}
    with pytest.raises(UserError, match="formula 'both': .* saw 15 of 100 that end"):
        conformal.calibrate(spec("G[0,1] x < 2", more=HOLD), scores, 0.1)
