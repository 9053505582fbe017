"""The comparison of TGPO with its rivals: equal budgets, stored cells, figures by class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tgpo_success

from embodied_rl.core.errors import UserError

OWN = """
policy: tgpo
name: tiny
model: {dynamics: linear, width: 8}
training: {tasks: [linear_01, linear_07], transitions: 8192, environments: 32}
ppo: {epochs: 1, minibatches: 2}
"""
RIVAL = "method: f_mdp\nlearner: {width: 8, environments: 32}\nppo: {epochs: 1, minibatches: 2}\n"


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tgpo_success, "CONFIGS", tmp_path)
    (tmp_path / "tgpo_linear.yaml").write_text(OWN)
    (tmp_path / "tgpo_rival_f_mdp.yaml").write_text(RIVAL)
    return tmp_path


def test_cells_are_measured_once_under_one_budget(
    configs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = []
    plain = tgpo_success.train_learner

    def counted(task, run, transitions, seed):
        budgets.append((task.name, transitions))
        return plain(task, run, transitions, seed)

    monkeypatch.setattr(tgpo_success, "train_learner", counted)
    out = configs / "found.json"
    arguments = ["--seeds", "1", "--episodes", "8", "--work", str(configs / "work")]
    arguments += ["--json", str(out), "--methods", "tgpo", "random", "f_mdp"]
    tgpo_success.main(arguments)
    assert budgets == [("linear_01", 4096), ("linear_07", 4096)]
    found = json.loads(out.read_text())
    for method in ("tgpo", "random", "f_mdp"):
        cells = found["series"][method][0]
        share = sum(successes for successes, _ in cells.values()) / 16
        assert found["figures"][f"{method}.success"] == pytest.approx(share)
        assert found["figures"][f"{method}.multi_layer.success"] == cells["linear_07"][0] / 8
    assert set(found["targets"]) == {"tgpo.success", "tgpo_over_f_mdp"}
    tgpo_success.main(arguments)
    assert len(budgets) == 2  # the cells are read, not measured again
    capsys.readouterr()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="saw .'sac'."):
        tgpo_success.main(["--methods", "sac"])
    with pytest.raises(UserError, match="saw boat"):
        tgpo_success.main(["--robot", "boat"])
