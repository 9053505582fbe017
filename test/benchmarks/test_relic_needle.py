"""A head finds one informative token among noise; with a sink it is silent where there is none."""

from __future__ import annotations

import pytest
import torch
from _relic_needle import LABELS, MARK, NOTHING, Reader, fit, judged, sequences


@pytest.mark.parametrize("mode", ["none", "k0v0", "kv0"])
def test_the_needle_is_found_among_64_tokens(mode: str) -> None:
    found = fit(mode, 64, 150)
    assert found.accuracy > 0.97
    assert found.needle_norm == pytest.approx(1.0, abs=0.1)
    if mode != "none":
        assert found.noise_norm < 0.1


def test_nothing_is_found_without_learning() -> None:
    torch.manual_seed(0)
    found = judged(Reader("kv0"), 64, torch.Generator().manual_seed(0))
    assert found.accuracy < 0.5
    assert found.needle_norm < NOTHING


def test_one_needle_in_each_sequence_that_has_a_label() -> None:
    x, label = sequences(20, torch.Generator().manual_seed(1))
    needles = x[..., MARK] > 0
    assert torch.equal(needles.sum(dim=1) == 1, label < LABELS)
    shown = (x[..., :LABELS] * needles[..., None]).sum(dim=1)
    assert torch.equal(shown.argmax(dim=1)[label < LABELS], label[label < LABELS])
    assert not needles[:, -1].any()
