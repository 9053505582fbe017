"""The benchmark of ReLIC's steps: its programs, what it asks for, and what it aims at."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib")

import relic_latency as bench

from embodied_rl.cli import UsageError


def test_a_small_run_without_the_published_module(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(bench.CHECKOUT, raising=False)
    path = tmp_path / "r.json"
    argv = ["--steps", "5", "--contexts", "64", "--compared", "20", "--json", str(path)]
    assert bench.main(argv) == 0
    assert "the published module is left out" in capsys.readouterr().out
    result = json.loads(path.read_text())
    figures = result["figures"]
    keys, values = 4 * 8 * (1 + 64 + 1) * 32, 2  # layers, heads, slots, Dh; keys and values
    assert figures["ours_64_computed_mb"] == (keys * values * 4 + 65 * 4) / 2**20
    assert figures["ours_bf16_64_computed_mb"] == (keys * values * 2 + 65 * 4) / 2**20
    assert 0 < figures["ours_64_p50_ms"] <= figures["ours_64_p95_ms"]
    assert not any("official" in key or "speedup" in key for key in figures)
    assert set(result["targets"]) == {f"steps_from_full_pass_{mode}" for mode in bench.MODES}
    assert path.with_suffix(".png").stat().st_size > 1000


def test_targets_are_those_of_measured_figures():
    measured = ("speedup_1024_p50", "speedup_64_p50", "ours_16384_p95_ms")
    figures = dict.fromkeys((*measured, "ours_4096_memory_off_computed"), 1.0)
    assert bench.targets(figures) == {
        "speedup_1024_p50": (">=", 3.0),
        "ours_16384_p95_ms": ("<=", 100.0),
        "ours_4096_memory_off_computed": ("<=", 0.05),
    }


@pytest.mark.parametrize("argv", [["--steps", "4"], ["--contexts", "0"], ["--compared", "1"]])
def test_numbers_that_cannot_be_are_named(argv):
    with pytest.raises(UsageError, match=f"^{argv[0]}: expected"):
        bench.main(argv)
