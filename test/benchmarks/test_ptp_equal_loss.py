"""Time to equal loss: what is compared is the same on both sides, and what is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

import ptp_equal_loss as bench
from _steps import Cost, Training, embedding_loss, image_config, image_loss, new_model
from _steps import noise_recordings as noise
from matplotlib.figure import Figure
from ptp_equal_loss import HEAD_STEPS, PARTS, Point, compare, figures_of, reduced, series_of

import embodied_rl.cli.main as cli
from embodied_rl.policies.ptp.data import PtpWindows
from embodied_rl.policies.ptp.embedding_cache import EmbeddingCache, Stamp, build_embeddings
from embodied_rl.training.supervised import TrainSettings, validation_loss

SETTINGS = TrainSettings(steps=PARTS, batch=2, warmup=1, validation_fraction=0.25)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def config():
    return image_config("small_cnn", 14, history=3, chunk=2, width=16, layers=1)


@pytest.fixture
def recordings(tmp_path):
    return noise(tmp_path, 16)


def test_the_same_weights_have_the_same_validation_loss_from_images_and_embeddings(
    config, recordings, tmp_path
):
    windows = PtpWindows(recordings, replace(config, dropout=0.0))
    model = new_model(windows)
    _, held_out = windows.split(0.25, 0)
    build_embeddings(tmp_path / "embeddings", model.encoder, windows, quiet=True)
    read = EmbeddingCache(tmp_path / "embeddings", Stamp.of(model.encoder, windows)).read
    images = Training(model, image_loss(model, windows), SETTINGS, windows.rows)
    head = Training(model.head(), embedding_loss(model, windows, read), SETTINGS, windows.rows)
    losses = [validation_loss(t.state, t.loss, SETTINGS, held_out) for t in (images, head)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_both_ways_take_their_steps_and_costs_add_up(config, recordings, tmp_path, monkeypatch):
    taken: list[int] = []
    step = Training.step

    def counted(self: Training) -> Cost:
        taken.append(self.settings.steps)
        step(self)
        return Cost(1.0, 2.0)

    monkeypatch.setattr(Training, "step", counted)
    slow, staged = compare(recordings, config, SETTINGS, tmp_path / "embeddings")
    # End to end and the encoder's stage have as many steps, the head has HEAD_STEPS times as many.
    assert taken.count(PARTS) == 2 * PARTS and taken.count(HEAD_STEPS * PARTS) == HEAD_STEPS * PARTS
    assert [p.stage for p in slow] == ["end to end"] * PARTS
    assert [p.stage for p in staged] == ["encoder"] * PARTS + ["embeddings"] + ["head"] * PARTS
    assert [p.cost.wall_s for p in slow] == [2.0 * (k + 1) for k in range(PARTS)]
    assert all(p.loss is not None for p in slow)
    assert [p.loss is None for p in staged] == [p.stage != "head" for p in staged]
    embeddings = staged[PARTS].cost.cpu_s
    assert embeddings > staged[PARTS - 1].cost.cpu_s == PARTS
    assert staged[-1].cost.cpu_s == pytest.approx(embeddings + HEAD_STEPS * PARTS)


def curves(last: float) -> tuple[list[Point], list[Point]]:
    slow = [Point("end to end", Cost(10.0, 20.0), 0.5), Point("end to end", Cost(20.0, 60.0), 0.3)]
    staged = [
        Point("encoder", Cost(2.0, 4.0)),
        Point("embeddings", Cost(3.0, 6.0)),
        Point("head", Cost(4.0, 8.0), 0.4),
        Point("head", Cost(5.0, 10.0), last),
        Point("head", Cost(6.0, 12.0), last),
    ]
    return slow, staged


def test_time_to_equal_loss_is_that_of_the_first_point_below_it():
    figures = figures_of(*curves(0.29))
    assert figures["equal_loss_cached_cpu_s"] == 5.0
    assert figures["equal_loss_ratio"] == 4.0
    assert figures["equal_loss_wall_ratio"] == 6.0
    assert figures["cached_encoder_stage_cpu_s"] == 2.0
    assert figures["cached_embeddings_cpu_s"] == 1.0
    assert figures["cached_head_cpu_s"] == 3.0


def test_a_way_that_never_gets_there_is_not_given_a_time():
    figures = figures_of(*curves(0.31))
    assert figures["equal_loss_ratio"] == figures["equal_loss_wall_ratio"] == 0.0
    assert "equal_loss_cached_cpu_s" not in figures


def test_images_shrink_to_means_of_blocks_and_the_rest_stays(recordings, tmp_path):
    folder = tmp_path / "reduced"
    folder.mkdir()
    smaller = reduced(recordings[:1], ["camera_wrist"], folder, by=2)[0]
    before = recordings[0].values["camera_wrist"]
    assert smaller.values["camera_wrist"].shape == (len(before), 8, 8, 3)
    for frame, row, column, channel in ((0, 0, 0, 0), (5, 7, 3, 2), (79, 2, 6, 1)):
        pixels = [
            int(before[frame, 2 * row + i, 2 * column + j, channel])
            for i in range(2)
            for j in range(2)
        ]
        assert smaller.values["camera_wrist"][frame, row, column, channel] == round(np.mean(pixels))
    assert smaller.values["camera_fixed"] is recordings[0].values["camera_fixed"]
    assert (smaller.actions == recordings[0].actions).all()


def test_options_that_cannot_be_are_refused_before_anything_is_recorded(capsys):
    assert cli.main(["bench", "ptp_equal_loss", "--encoder", "vit"]) == 1
    assert "--encoder: expected one of ['resnet18', 'small_cnn'], saw 'vit'" in (
        capsys.readouterr().err
    )
    assert cli.main(["bench", "ptp_equal_loss", "--steps", "3"]) == 1
    assert f"--steps: expected at least {PARTS}, saw 3" in capsys.readouterr().err


def test_the_picture_shows_both_curves_over_their_cost(tmp_path, monkeypatch):
    slow, staged = curves(0.29)
    series = {"end_to_end": series_of(slow), "cached": series_of(staged)}
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (drawn.append(self), save(self, *args, **kw))
    )
    bench.draw(figures_of(slow, staged), series, "small_cnn", tmp_path / "loss.png")
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    assert lines["end to end"].get_xydata().tolist() == [[10.0, 0.5], [20.0, 0.3]]
    assert lines["cached"].get_xydata().tolist() == [[4.0, 0.4], [5.0, 0.29], [6.0, 0.29]]
    assert "4.0 times" in drawn[0].axes[0].get_title()
