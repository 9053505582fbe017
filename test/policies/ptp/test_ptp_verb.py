"""The train verb on a small dataset cache, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from ptp_cases import TEXT, make_embodiment

from embodied_rl.bags import cache as layout
from embodied_rl.bags.cache import Contract, EpisodeCache, EpisodeRecord, Index
from embodied_rl.cli import UsageError, train
from embodied_rl.core.errors import UserError
from embodied_rl.policies.ptp.method import PtpTraining
from embodied_rl.policies.ptp.runtime import load_ptp
from embodied_rl.policies.ptp.train import recordings_of

KEYS = ["place", "thing"]
CONFIG = """
policy: ptp
name: slide_ptp
task: slide
model: {streams: [place, thing], history: 4, chunk: 5, execute: 2, width: 32, layers: 1}
training: {steps: 4, batch: 8, warmup: 2, validate_every: 2, save_every: 2}
"""
OUTCOME = {"done": True, "success": True, "reason": "success", "score": 1.0}


@pytest.fixture
def cache(tmp_path, recordings):
    """A cache as 'bags convert' lays it out: two episodes that succeeded and one that did not."""
    root = tmp_path / "cache"
    contract = Contract.of(make_embodiment(), KEYS)
    outcomes = [OUTCOME, {**OUTCOME, "success": False, "reason": "dropped"}, None]
    names = []
    for i, (recording, outcome) in enumerate(zip(recordings, outcomes, strict=True)):
        folder = root / f"episode_{i:06d}"
        folder.mkdir(parents=True)
        rows = len(recording.actions)
        np.save(folder / layout.STAMPS, 100_000_000 * np.arange(rows))
        np.save(folder / layout.ACTIONS, recording.actions)
        np.save(folder / layout.ACTION_VALID, recording.known)
        for key in KEYS:
            np.save(folder / layout.values_file(key), recording.values[key])
            np.save(folder / layout.valid_file(key), recording.valid[key])
        EpisodeRecord(
            folder.name, "x", rows, contract.embodiment_hash, contract.streams, "", None, outcome,
            False, [],
        ).write(folder)  # fmt: skip
        names.append(folder.name)
    (root / layout.ROBOT).write_text(TEXT)
    Index(contract, True, names).write(root)
    return root


@pytest.fixture
def words(tmp_path, cache):
    (tmp_path / "run.yaml").write_text(CONFIG)
    parts = {"config": "run.yaml", "bags": "cache", "out": "model", "work": "work"}
    return ["ptp", *(w for k, v in parts.items() for w in (f"--{k}", str(tmp_path / v)))]


def test_failed_episodes_are_left_out(cache, recordings):
    kept, failed, unfinished = recordings_of(EpisodeCache(cache, KEYS), KEYS)
    assert (failed, unfinished) == (1, 0) and [len(r.actions) for r in kept] == [30, 22]
    np.testing.assert_array_equal(kept[1].values["thing"], recordings[2].values["thing"])


def test_trains_to_a_checkpoint(words, tmp_path, embodiment, capsys):
    assert train.main([*words, "--steps", "5", "--seed", "3"]) == 0
    policy = load_ptp(tmp_path / "model", embodiment)
    assert policy.spec.history == 4
    data = yaml.safe_load((tmp_path / "model" / "config.yaml").read_text())
    assert data["seed"] == 3 and data["training"]["steps"] == 5
    card = (tmp_path / "model" / "CARD.md").read_text()
    assert "2 episodes of cache (1 more left out: no success)" in card
    assert "left out 1 episodes" in capsys.readouterr().out


def test_resuming_before_there_is_a_state_begins(words, tmp_path, capsys):
    """Ctrl-C may come while bags are converted; the same command with --resume must do."""
    assert train.main([*words, "--resume"]) == 0
    assert "beginning at step 0" in capsys.readouterr().out
    assert (tmp_path / "model" / "config.yaml").exists()


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({0: "pttp"}, UsageError, "valid: ptp"),
        ({2: "none.yaml"}, UserError, "none.yaml: cannot be read"),
        ({4: "nowhere"}, UserError, "nowhere"),
    ],
)
def test_refuses(words, change, error, message):
    words = [change.get(i, w) for i, w in enumerate(words)]
    with pytest.raises(error, match=message):
        train.main(words)


def test_a_stream_the_bags_do_not_have(words, tmp_path):
    text = CONFIG.replace("[place, thing]", "[place, force]")
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match="force"):
        train.main(words)


@pytest.mark.parametrize("task", ["replace_object", "count_pushes", "return_home"])
def test_rivals_of_the_repository_look_back_less_far_and_differ_in_nothing_else(task):
    long, short = (repository_config(f"ptp_{task}{arm}") for arm in ("", "_short"))
    assert long.task == short.task == task
    assert short.model == replace(long.model, history=2) and short.training == long.training


def test_image_config_of_the_repository_is_not_told_where_the_object_is():
    image = repository_config("ptp_replace_object_image")
    assert image.encoder is not None and "object_position" not in image.model.streams


def repository_config(name):
    from embodied_rl.policies.ptp.config import read_run

    return read_run(train.config_file(PtpTraining.config.with_stem(name)))


def test_bags_without_an_action_are_refused_in_one_line(words, cache):
    for folder in cache.glob("episode_*"):
        known = np.load(folder / layout.ACTION_VALID)
        np.save(folder / layout.ACTION_VALID, np.zeros_like(known))
    with pytest.raises(
        UserError, match="expected an action at some control tick, saw none; 'embod"
    ):
        train.main(words)
