"""A head finds one informative token among noise; with a sink it is silent where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _relic_needle import (
    JUDGED,
    LABELS,
    MARK,
    NOTHING,
    Learned,
    Reader,
    fit,
    grown,
    judged,
    sequences,
)
from relic_needle import figures_of, targets

from embodied_rl.nn.episodes import turns


@pytest.mark.parametrize("mode", ["none", "k0v0", "kv0"])
def test_the_needle_is_found_among_64_tokens(mode: str) -> None:
    found = fit(mode, 64, 250)
    assert found.accuracy.mean() > 0.97
    assert found.needle_norm.mean() == pytest.approx(1.0, abs=0.1)
    if mode != "none":
        assert found.noise_norm.mean() < 0.1


def test_nothing_is_found_without_learning() -> None:
    torch.manual_seed(0)
    found = judged(Reader("kv0"), 64)
    assert found.accuracy.mean() < 0.5
    assert found.needle_norm.mean() < NOTHING
    assert len(found.noise_norm) == JUDGED and len(found.needle_norm) == LABELS * JUDGED


@torch.no_grad()
def test_the_answer_is_that_of_the_layer_of_the_network() -> None:
    torch.manual_seed(1)
    reader, x = Reader("kv"), torch.randn(3, 20, 32)
    block, sinks = reader.net.blocks[0], reader.net.sinks()
    assert sinks is not None
    for part in sinks[0]:
        part.normal_()
    by = turns(torch.zeros(3, 20), 2, 16)
    whole = block.attention(block.norm_attention(x), by, sinks[0], None)
    torch.testing.assert_close(reader(x), reader.answer(whole[:, -1]))


def test_one_needle_in_each_sequence_that_has_a_label() -> None:
    label = torch.arange(LABELS + 1).repeat(5)
    x = sequences(label, 20, torch.Generator().manual_seed(1))
    needles = x[..., MARK] > 0
    assert torch.equal(needles.sum(dim=1) == 1, label < LABELS)
    shown = (x[..., :LABELS] * needles[..., None]).sum(dim=1)
    assert torch.equal(shown.argmax(dim=1)[label < LABELS], label[label < LABELS])
    assert not needles[:, -1].any()


def test_contexts_grow_to_their_length() -> None:
    lengths = [grown(4096, step, 600) for step in range(600)]
    assert lengths[0] == 64 and lengths[200] == 512
    assert lengths == sorted(lengths) and lengths[400:] == [4096] * 200
    assert {grown(20, step, 9) for step in range(9)} == {20}


def test_figures_are_means_over_seeds_and_a_lost_answer_misses_its_target() -> None:
    whole = np.ones((2, 4))
    worse = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    found = {"none": Learned(whole, whole, whole), "kv0": Learned(worse, 0.2 * whole, whole)}
    figures = figures_of(64, found)
    assert figures["kv0_64_accuracy"] == 0.625 and figures["kv0_64_accuracy_gain"] == -0.375
    assert figures["kv0_64_accuracy_gain_low"] < -0.375 < figures["kv0_64_accuracy_gain_high"]
    assert figures["kv0_64_noise_norm"] == pytest.approx(0.2)
    assert targets(figures) == {
        "kv0_64_accuracy_gain": (">=", 0.0), "kv0_64_noise_norm": ("<=", 0.1),
    }  # fmt: skip
