"""Bookkeeping of the comparison of twin and MuJoCo: paired, and counted by robustness."""

from __future__ import annotations

import json

import pytest
import tgpo_arm

from embodied_rl.sim.stl_tasks.task import load_task


def test_figures_of_pairs() -> None:
    """Six of eight in the twin, five in MuJoCo; a robustness of 0 is no success."""
    twin = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, -0.1, 0.0]
    mujoco = [0.1, 0.1, 0.1, 0.1, -0.1, -0.3, 0.1, 0.0]
    pairs = [tgpo_arm.Pair(a, b, 0.02 * i, i == 0) for i, (a, b) in enumerate(zip(twin, mujoco))]
    found = tgpo_arm.figures_of(pairs)
    assert (found["twin.success"], found["mujoco.success"]) == (0.75, 0.625)
    assert found["twin.low"] < 0.75 < found["twin.high"]
    assert found["drop"] == 0.125 and found["drop.low"] < 0.125 < found["drop.high"]
    assert found["drop.p"] == 1.0  # two to one of three
    assert found["mujoco.robustness_m"] == pytest.approx(0.0125)
    assert found["apart_m"] == pytest.approx(0.07) and found["limited"] == 0.125


def test_both_begin_at_the_same_joints(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(tgpo_arm, "own_tasks", lambda folder: [load_task("arm_02")])
    out = tmp_path / "arm.json"
    arguments = ["--episodes", "2", "--samples", "16", "--json", str(out)]
    assert tgpo_arm.main(arguments) in (0, 1)
    found = json.loads(out.read_text())
    row = found["series"]["arm_02"]
    assert row["episodes"] == 2 and row == {k: found["figures"][k] for k in row}
    # of other starts they would be decimetres apart
    assert 0.001 < row["apart_m"] < 0.08
    assert "arm_02" in capsys.readouterr().out
