"""The map of times: its measure of agreement against all pairs, and the picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tgpo_values
import torch


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_the_share_of_pairs_in_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(6, (40,), generator=generator).float()
    met = torch.rand(40, generator=generator) < 0.3 + 0.1 * values
    pairs = [(g > b) + 0.5 * (g == b) for g in values[met] for b in values[~met]]
    assert tgpo_values.agreement(values, met) == pytest.approx(sum(map(float, pairs)) / len(pairs))
    assert math.isnan(tgpo_values.agreement(values, torch.ones(40, dtype=torch.bool)))


def test_the_shipped_model_draws_its_map(tmp_path: Path) -> None:
    out = tmp_path / "values.json"
    assert tgpo_values.main(["--json", str(out)]) == 0
    figures = json.loads(out.read_text())["figures"]
    assert figures["agreement"] > 0.9 and figures["pairs"] == 50 * 54
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
