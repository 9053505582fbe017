"""Cost of a training step: what is measured of a tiny model, and its picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

import ptp_training as bench
from _steps import Cost
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_figures_add_up_and_the_picture_shows_them(tmp_path, monkeypatch):
    arguments = bench.Arguments(
        encoder="small_cnn", side=16, crop=14, batch=2, width=16, layers=1, rounds=2
    )
    figures = bench._measure(arguments, tmp_path)
    full, head, short, frame = (
        figures[key]
        for key in (
            "step_end_to_end_ms",
            "step_cached_ms",
            "step_encoder_stage_ms",
            "encode_ms_a_frame",
        )  # fmt: skip
    )
    assert figures["step_ratio"] == pytest.approx(full / head)
    before = arguments.encoder_steps * short + arguments.frames * frame
    steps = arguments.head_steps
    assert figures["amortised_ratio"] == pytest.approx(steps * full / (before + steps * head))
    assert 0 < figures["peak_memory_cached_mb"] <= figures["peak_memory_end_to_end_mb"]
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (drawn.append(self), save(self, *args, **kw))
    )
    bench.draw(figures, Path(tmp_path / "steps.png"))
    heights = [bar.get_height() for bar in drawn[0].axes[0].patches]
    assert heights == pytest.approx([full / 1e3, head / 1e3])


def test_the_figure_of_several_steps_is_their_median():
    costs = [Cost(1.0, 10.0), Cost(100.0, 20.0), Cost(3.0, 900.0)]
    assert bench._medians(costs) == Cost(3.0, 20.0)
