"""From recordings to a checkpoint folder and back, and the checkpoints that are refused."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from ptp_cases import TEXT, episode, rows_of

from embodied_rl.core.checkpoint import load_checkpoint
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.policies.ptp.config import PtpRun
from embodied_rl.policies.ptp.runtime import load_ptp
from embodied_rl.policies.ptp.train import train_ptp
from embodied_rl.training.supervised import TrainSettings

SETTINGS = TrainSettings(steps=6, batch=8, warmup=2, validate_every=3, save_every=3)


def train(folder, config, recordings, embodiment, **kwargs):
    run = PtpRun("slide_ptp", "slide", config, kwargs.pop("settings", SETTINGS))
    return train_ptp(
        run,
        recordings,
        embodiment,
        out=folder / "slide_ptp",
        work=folder / "work",
        source="3 bags",
        quiet=True,
        **kwargs,
    )


def test_checkpoint_round_trip(tmp_path, config, recordings, embodiment):
    result = train(tmp_path, config, recordings, embodiment)
    assert result.finished and np.isfinite(result.validation_loss)
    data = yaml.safe_load((tmp_path / "slide_ptp" / "config.yaml").read_text())
    assert data["streams"] == {"place": [2], "thing": [3]} and data["seed"] == 0
    assert data["embodiment_hash"] == embodiment.contract_hash(config.streams)
    card = (tmp_path / "slide_ptp" / "CARD.md").read_text()
    assert "3 episodes, 61 control ticks from 3 bags" in card
    policy = load_ptp(tmp_path / "slide_ptp", embodiment)
    assert policy.spec.name == "slide_ptp" and policy.model.config == config
    policy.reset(episode())
    policy.observe(next(rows_of(recordings[0])))
    assert policy.act().values.shape == (config.chunk, 2)


def test_stopped_and_resumed_gives_the_same_weights(
    tmp_path, config, recordings, embodiment, monkeypatch
):
    train(tmp_path / "a", config, recordings, embodiment)
    from embodied_rl.training import supervised

    saved = []

    def save_then_stop(*args):
        save_state(*args)
        saved.append(args)
        raise KeyboardInterrupt

    save_state = supervised.save_state
    monkeypatch.setattr(supervised, "save_state", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", config, recordings, embodiment)
    monkeypatch.setattr(supervised, "save_state", save_state)
    assert not (tmp_path / "b" / "slide_ptp").exists()
    train(tmp_path / "b", config, recordings, embodiment, resume=True)
    first = load_checkpoint(tmp_path / "a" / "slide_ptp")[1]
    second = load_checkpoint(tmp_path / "b" / "slide_ptp")[1]
    assert all(np.array_equal(first[k], second[k]) for k in first)
    with pytest.raises(UserError, match="without --resume"):
        train(
            tmp_path / "b",
            replace(config, stride=2),
            recordings,
            embodiment,
            resume=True,
        )


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("control_rate_hz: 10", "control_rate_hz: 20", "embodiment_hash"),
        ("joints: [a, b],\n     rate_hz", "joints: [b, a],\n     rate_hz", "embodiment_hash"),
        ("joints: [a, b],\n     rate_hz", "joints: [a],\n     rate_hz", "streams.place: expected"),
        ("  thing:", "  other:", "no stream 'thing'"),
    ],
)
def test_checkpoint_of_another_embodiment(
    tmp_path, config, recordings, embodiment, old, new, words
):
    train(tmp_path, config, recordings, embodiment)
    other = Embodiment.parse(TEXT.replace(old, new), "other.yaml")
    assert other.text != embodiment.text
    with pytest.raises(UserError, match=words) as caught:
        load_ptp(tmp_path / "slide_ptp", other)
    if words == "embodiment_hash":
        for name in (embodiment, other):
            assert name.contract_hash(config.streams) in str(caught.value)
    if words.startswith("streams"):
        assert "[1]" in str(caught.value) and "[2]" in str(caught.value)


def test_weights_of_another_shape(tmp_path, config, recordings, embodiment):
    train(tmp_path, config, recordings, embodiment)
    path = tmp_path / "slide_ptp" / "config.yaml"
    path.write_text(path.read_text().replace("width: 32", "width: 64"))
    with pytest.raises(UserError, match="weights.safetensors.*32.*64|64.*32"):
        load_ptp(tmp_path / "slide_ptp", embodiment)


def test_fine_tuning_begins_with_the_weights_and_normalisers_of_a_model(
    tmp_path, config, recordings, embodiment
):
    train(tmp_path / "first", config, recordings, embodiment)
    base = tmp_path / "first" / "slide_ptp"
    still = replace(SETTINGS, learning_rate=1e-30, weight_decay=0.0)  # nothing is learned
    few = recordings[:2]  # of other limits
    train(tmp_path / "on", config, few, embodiment, init=base, settings=still)
    before, after = (load_checkpoint(folder)[1] for folder in (base, tmp_path / "on" / "slide_ptp"))
    assert all(np.allclose(before[k], after[k], atol=1e-6) for k in before)
    train(tmp_path / "more", config, few, embodiment, init=base)
    trained = load_checkpoint(tmp_path / "more" / "slide_ptp")[1]
    assert any(not np.allclose(before[k], trained[k], atol=1e-6) for k in before)
    with pytest.raises(UserError, match="--init .*: model.width: expected"):
        train(tmp_path / "x", replace(config, width=config.width * 2), few, embodiment, init=base)
    with pytest.raises(UserError, match="without --resume"):  # other weights, another training
        train(tmp_path / "more", config, few, embodiment, resume=True)
