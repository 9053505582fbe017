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
    arguments = [
        "--robots",
        "linear",
        "--seeds",
        "1",
        "--episodes",
        "8",
        "--work",
        str(configs / "work"),
    ]
    arguments += ["--json", str(out), "--methods", "tgpo", "random", "f_mdp"]
    tgpo_success.main(arguments)
    assert budgets == [("linear_01", 4096), ("linear_07", 4096)]
    found, share = json.loads(out.read_text()), {}
    for method in ("tgpo", "random", "f_mdp"):
        rates = found["series"]["linear"][method]
        cells = rates["cells"][0]
        share[method] = sum(successes for successes, _ in cells.values()) / 16
        assert found["figures"][f"linear.{method}"] == pytest.approx(share[method])
        assert rates["multi_layer"]["success"] == cells["linear_07"][0] / 8
        assert rates["by_seed"] == [pytest.approx(share[method])]
    for key, method in (("over_random", "random"), ("over_best_rival", "f_mdp")):
        lead = share["tgpo"] - share[method]
        assert found["figures"][f"linear.{key}"] == pytest.approx(lead)
    assert set(found["targets"]) == {"linear.tgpo", "linear.multi_layer_over_f_mdp"}
    capsys.readouterr()
    tgpo_success.main([*arguments[:2], "--seeds", "3", *arguments[4:], "--stored"])
    assert len(budgets) == 2  # the cells are read, not measured again, and the others left out
    assert "f_mdp" in capsys.readouterr().out
    with pytest.raises(UserError, match="expected measured cells of these settings, saw none"):
        tgpo_success.main([*arguments, "--stored", "--work", str(configs / "other")])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="saw ..sac.."):
        tgpo_success.main(["--methods", "sac"])
    with pytest.raises(UserError, match="saw ..boat.."):
        tgpo_success.main(["--robots", "boat"])
