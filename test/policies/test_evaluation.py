"""Figures do not depend on how many processes made them."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from embodied_rl.cli import UsageError
from embodied_rl.cli import eval as verb
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome, episode_seed
from embodied_rl.policies import episodes
from embodied_rl.policies.evaluation import Evaluation, _Bench, evaluate_in_process, summary
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.training.statistics import wilson_interval


def test_one_process_equals_two():
    evaluation = Evaluation("expert", "replace_object", 3, seed=5)
    seen = []
    one = evaluate_in_process(evaluation, workers=1, on_episode=seen.append)
    two = evaluate_in_process(evaluation, workers=2)
    assert [r.info.episode for r in two] == [0, 1, 2] and seen == one
    for a, b in zip(one, two, strict=True):
        assert a.info.seed == b.info.seed == episode_seed(5, a.info.episode)
        assert a.outcome == b.outcome and np.array_equal(a.commands, b.commands)
    figures = summary(evaluation, one)
    assert figures["successes"] == sum(r.outcome.success for r in one)
    assert (figures["low"], figures["high"]) == wilson_interval(figures["successes"], 3)
    assert sum(figures["failures"].values()) == 3 - figures["successes"]
    assert len(figures["outcomes"]) == 3


def test_failures_are_told_by_the_verdict_whatever_its_words():
    info = EpisodeInfo(0, 0, "find_object", "find the ball", 0)
    outcomes = [
        Outcome(True, True, "found the ball", 1.0), Outcome(True, False, "time_limit", 0.0),
        Outcome(True, True, "success", 1.0),
    ]  # fmt: skip
    results = [EpisodeResult(info, outcome, 1, 0, np.zeros((1, 2))) for outcome in outcomes]
    figures = summary(Evaluation("expert", "find_object", 3, 0), results) | {"over": "in-process"}
    assert figures["failures"] == {"time_limit": 1}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(episodes._table(figures))
    assert console.export_text().count("failed: ") == 1
    assert "failures: time_limit 1;" in episodes._card_text(figures)


def test_a_trial_is_run_as_one_and_depends_on_no_other():
    evaluation = Evaluation("expert", "find_object", 10, seed=2, keep=("base_position",))
    bench, other = _Bench.make(evaluation), _Bench.make(evaluation)
    assert bench.trials(evaluation) == [range(8), range(8, 10)]
    first, second = (next(bench.run(evaluation, trial)) for trial in bench.trials(evaluation))
    alone = next(other.run(evaluation, range(8, 10)))
    assert (first.info.trial, second.info.trial) == (0, 1) and second.outcome.success
    assert replace(second.info, start_ns=0) == replace(alone.info, start_ns=0)
    assert np.array_equal(second.commands, alone.commands)
    assert len(second.observations) == second.ticks and not second.observations[0].missing
    assert set(second.observations[0].values) == {"base_position"}
    bench.simulator.close()
    other.simulator.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_unknown_names_are_said_before_any_worker_starts(workers):
    with pytest.raises(UserError, match="valid: count_pushes, find_object, pick_place"):
        evaluate_in_process(Evaluation("expert", "juggle", 2, 0), workers=workers)


def test_verb_writes_its_figures(tmp_path, capsys):
    path = tmp_path / "eval.json"
    words = ["expert", "--episodes", "1", "--workers", "1", "--json", str(path)]
    assert verb.main(words) == 0
    figures = json.loads(path.read_text())
    for key in ("model", "task", "episodes", "seed", "success", "low", "high"):
        assert key in figures
    assert "success, Wilson 95 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["no_such_model"], "unknown model 'no_such_model'.*expert"),
        (["expert", "--task", "juggle"], "valid: count_pushes, find_object, pick_place"),
        (["expert", "--episodes", "0"], "at least 1"),
        (["expert", "--card"], "no card"),
        (["expert", "--seed", "-1"], "--seed: expected at least 0, saw -1"),
        (["--episodes", "3", "expert"], "expected the model before its options, saw --episodes"),
    ],
)
def test_verb_refuses(words, message):
    with pytest.raises(UsageError, match=message):
        verb.main(words)


@pytest.mark.parametrize(
    "words",
    [
        ["expert", "--samples", "4"],
        ["relic_darkroom", "--ros"],
        ["relic_darkroom", "--episodes", "3"],
        ["tgpo_linear", "--trials", "3"],
        ["ptp_replace_object", "--picture", "x.png"],
        ["ptp_replace_object", "--bags", "x", "--episodes", "3"],
    ],
)
def test_an_option_of_another_method_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        verb.main(words)
    assert stopped.value.code == 2 and "Unrecognized options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "own", "foreign"),
    [
        ("ptp_replace_object", ["--samples", "--ros", "--task"], ["--trials", "--context-steps"]),
        ("relic_apartment", ["--trials", "--context-steps", "--ros"], ["--samples", "--task"]),
        ("relic_darkroom", ["--trials", "--picture"], ["--ros", "--device", "--workers"]),
        ("tgpo_arm", ["--episodes", "--samples"], ["--trials", "--picture"]),
    ],
)
def test_help_shows_the_options_of_a_model_only(model, own, foreign, capsys):
    with pytest.raises(SystemExit):
        verb.main([model, "--help"])
    text = capsys.readouterr().out
    assert all(f" {name}" in text for name in own)
    assert not any(f" {name} " in text or f" {name}," in text for name in foreign)
