"""Training from images: in stages, interrupted anywhere, to a checkpoint that the runtime loads."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from ptp_cases import episode, rows_of
from ptp_image_cases import (
    CONFIG,
    KEYS,
    RUN,
    make_image_recording,
    make_image_recordings,
    make_robot,
    write_cache,
)

from embodied_rl.bags import cache as bags_cache
from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.core.checkpoint import load_checkpoint
from embodied_rl.core.errors import UserError
from embodied_rl.nn.encoders import encoder_hash
from embodied_rl.policies.ptp import embedding_cache
from embodied_rl.policies.ptp import train as train_module
from embodied_rl.policies.ptp.data import EMBEDDING, PtpWindows
from embodied_rl.policies.ptp.embedding_cache import EmbeddingCache, Stamp
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.runtime import load_ptp
from embodied_rl.policies.ptp.train import recordings_of, train_ptp
from embodied_rl.training import supervised
from embodied_rl.training.supervised import TrainSettings

SHAPES = {"left": (24, 24, 3), "right": (24, 24, 3), "place": (2,)}


def train(folder, run=RUN, recordings=None, **kwargs):
    return train_ptp(
        run,
        make_image_recordings() if recordings is None else recordings,
        make_robot(),
        out=folder / "model",
        work=folder / "work",
        source="3 bags",
        quiet=True,
        **kwargs,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = train(folder)
    assert result.finished and result.title == "head" and result.step == 5
    return folder


def weights(folder):
    return load_checkpoint(folder / "model")[1]


def test_checkpoint_holds_encoder_and_head(whole):
    policy = load_ptp(whole / "model", make_robot())
    data = yaml.safe_load((whole / "model" / "config.yaml").read_text())
    assert data["encoder"]["hash"] == encoder_hash(policy.model.encoder)
    assert data["model"]["encoders"]["left"]["crop"] == 20 and policy.model.config == CONFIG
    card = (whole / "model" / "CARD.md").read_text()
    assert "encoder 4 steps, end to end, in a policy with a history of 2" in card
    # the encoder is the averaged one of the first stage, as its state has it
    arrays = load_checkpoint(whole / "work" / "encoder" / "state")[1]
    for name, parameter in policy.model.encoder.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), arrays[f"ema/encoder.{name}"])


def test_embeddings_equal_the_image_path(whole):
    """The live policy, fed images tick by tick, sees what the head was trained on."""
    recording = make_image_recordings()[0]
    policy = load_ptp(whole / "model", make_robot())
    windows = PtpWindows(make_image_recordings(), CONFIG)
    cache = EmbeddingCache(whole / "work" / "embeddings", Stamp.of(policy.model.encoder, windows))
    policy.reset(episode())
    cached = cache.read(0)
    assert cached.shape == (20, 14) and isinstance(cached, np.memmap)
    for row, observation in enumerate(rows_of(recording)):
        policy.observe(observation)
        (embedding,) = policy._ring.rows[-1].values.values()
        np.testing.assert_allclose(embedding, cached[row], atol=1e-5)
    # and whole windows, through both ways of the training
    rows = windows.rows[::5]
    images, actions, known = windows.batch(rows)
    embedded = windows.embedded(cache.read).batch(rows)[0][EMBEDDING]
    assert images["left"].dtype == torch.uint8
    with torch.no_grad():
        torch.testing.assert_close(policy.model.encoder(images), embedded, atol=1e-5, rtol=0)
        slow, fast = (
            policy.model.head_loss(e, actions, known, torch.Generator().manual_seed(0))
            for e in (policy.model.encoder(images), embedded)
        )
    torch.testing.assert_close(slow, fast, atol=1e-5, rtol=0)
    assert policy.act().values.shape == (3, 2)


def interrupt_after(monkeypatch, module, name, calls):
    """Ctrl-C during the call of this number."""
    original, count = getattr(module, name), []

    def wrapped(*args, **kwargs):
        count.append(1)
        if len(count) == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, wrapped)


@pytest.mark.parametrize(
    "module, name, calls, stage, step",
    [
        (supervised, "train_step", 3, "encoder", 3),
        (embedding_cache, "encode_episode", 2, "embeddings", 2),
        (supervised, "train_step", 4 + 3, "head", 3),
    ],
)
def test_interrupted_in_any_stage_and_resumed(
    tmp_path, whole, monkeypatch, module, name, calls, stage, step
):
    with monkeypatch.context() as patch:
        interrupt_after(patch, module, name, calls)
        stopped = train(tmp_path)
    assert (stopped.finished, stopped.title, stopped.step) == (False, stage, step)
    assert not (tmp_path / "model").exists()
    count = []
    with monkeypatch.context() as patch:
        original = embedding_cache.encode_episode
        patch.setattr(embedding_cache, "encode_episode", lambda *a: count.append(1) or original(*a))
        assert train(tmp_path, resume=True).finished
    assert len(count) == {"encoder": 3, "embeddings": 1, "head": 0}[stage]  # nothing twice
    first, second = weights(whole), weights(tmp_path)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[k], second[k]) for k in first)


def test_an_old_head_is_not_resumed_with_a_new_encoder(tmp_path, monkeypatch):
    train(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_after(patch, supervised, "train_step", 2)
        stopped = train(tmp_path, replace(RUN, encoder=replace(RUN.encoder, history=3)))
    assert stopped.title == "encoder" and not (tmp_path / "work" / "state").exists()
    with pytest.raises(UserError, match="without --resume"):
        train(tmp_path, resume=True)  # the encoder's state is one of other settings


@pytest.mark.parametrize(
    "change", [lambda m: m.encoder.streams["left"].out.bias.add_(1e-6), None, lambda m: None]
)
def test_embeddings_of_another_encoder_are_refused(whole, change):
    policy = load_ptp(whole / "model", make_robot())
    model, root = policy.model, whole / "work" / "embeddings"
    recordings = make_image_recordings()
    windows = PtpWindows(recordings, CONFIG)
    before = encoder_hash(model.encoder)
    if change is None:  # other recordings
        windows = PtpWindows(recordings[:2], CONFIG)
        before = Stamp.of(model.encoder, PtpWindows(recordings, CONFIG)).data
    else:
        change(model)
        if encoder_hash(model.encoder) == before:  # another crop, same weights
            cameras = {k: replace(s, crop=18) for k, s in CONFIG.encoders.items()}
            other = PtpModel(replace(CONFIG, encoders=cameras), SHAPES, 2)
            other.load_state_dict(model.state_dict())
            model = other
    stamp = Stamp.of(model.encoder, windows)
    with pytest.raises(UserError) as caught:
        EmbeddingCache(root, stamp)
    after = stamp.data if change is None else stamp.encoder
    assert f"expected embeddings of {after}, saw those of {before}" in str(caught.value)
    # an interrupted run that finds them is refused too, and a fresh one makes its own elsewhere
    with pytest.raises(UserError, match=after):
        embedding_cache.build_embeddings(root, model.encoder, windows, resume=True, quiet=True)


def test_damaged_embeddings_are_named(whole):
    policy = load_ptp(whole / "model", make_robot())
    root = whole / "work" / "embeddings"
    windows = PtpWindows(make_image_recordings(), CONFIG)
    cache = EmbeddingCache(root, Stamp.of(policy.model.encoder, windows))
    path = embedding_cache.episode_file(root, 1)
    kept = path.read_bytes()
    try:
        np.save(path, np.zeros((9, 3), np.float32))
        with pytest.raises(UserError, match=r"episode_000001.npy: expected float32 \(9, 14\)"):
            cache.read(1)
        path.write_bytes(kept[:40])
        with pytest.raises(UserError, match="episode_000001.npy: not a readable array"):
            cache.read(1)
    finally:
        path.write_bytes(kept)


def test_images_are_gathered_from_maps_not_loaded(tmp_path, whole, monkeypatch):
    write_cache(tmp_path / "cache", make_image_recordings())
    monkeypatch.setattr(bags_cache, "_MAP_FROM_BYTES", 1000)
    recordings, *_ = recordings_of(EpisodeCache(tmp_path / "cache", KEYS), KEYS)
    assert isinstance(recordings[0].values["left"], np.memmap)
    assert recordings[0].values["left"] is recordings[0].values["left"]
    windows, plain = PtpWindows(recordings, CONFIG), PtpWindows(make_image_recordings(), CONFIG)
    for a, b in zip(windows.batch(windows.rows), plain.batch(plain.rows), strict=True):
        if isinstance(a, dict):
            assert all(torch.equal(a[k], b[k]) for k in b) and list(a) == list(b)
        else:
            assert torch.equal(a, b)
    train(tmp_path, recordings=recordings)
    first, second = weights(whole), weights(tmp_path)
    assert all(np.array_equal(first[k], second[k]) for k in first)


def test_a_bag_without_a_camera_is_named(tmp_path):
    recordings = make_image_recordings()
    recordings[1].valid["right"][:] = False
    with pytest.raises(UserError, match=r"bag_1: expected streams .*saw no value of \['right'\]"):
        train(tmp_path, recordings=recordings)


def test_a_history_longer_than_every_episode(tmp_path):
    run = replace(RUN, model=replace(CONFIG, history=12))
    with pytest.raises(UserError, match="history: 12 frames 2 ticks apart need 23.*has 20"):
        train(tmp_path, run)


def test_a_crop_that_does_not_fit(tmp_path):
    encoders = {**CONFIG.encoders, "left": replace(CONFIG.encoders["left"], crop=25)}
    with pytest.raises(UserError, match="model.encoders.left: crop: expected at most 24.*saw 25"):
        train(tmp_path, replace(RUN, model=replace(CONFIG, encoders=encoders)))


def test_learns_from_pixels(tmp_path):
    """The square's place is only in the images: with those of other rows the loss is far higher."""
    recordings = [make_image_recording(24, 1)]
    settings = TrainSettings(
        steps=100, batch=8, learning_rate=1e-2, warmup=5, validation_fraction=0.0, ema_decay=0.9
    )
    model = replace(
        CONFIG, streams=("left", "right"), history=1, chunk=1, execute=1, layers=2,
        diffusion_steps=20, sampling_steps=5,
    )  # fmt: skip
    model = replace(model, encoders={k: replace(s, crop=0) for k, s in model.encoders.items()})
    train(tmp_path, replace(RUN, model=model, training=settings, encoder=None), recordings)
    trained = load_ptp(tmp_path / "model", make_robot()).model
    windows = PtpWindows(recordings, model)
    rows = np.tile(windows.rows, 8)
    images, actions, known = windows.batch(rows)
    other = {k: v.roll(11, dims=0) for k, v in images.items()}
    with torch.no_grad():
        seen, mixed = (
            trained.loss(frames, actions, known, torch.Generator().manual_seed(0)).item()
            for frames in (images, other)
        )
    assert seen < 0.5 * mixed


def test_stage_names_are_folders(whole):
    assert {train_module.ENCODER, train_module.EMBEDDINGS} <= {
        p.name for p in (whole / "work").iterdir()
    }
