"""The comparison of ReLIC's arms: one change each, stored cells, first and late episodes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import relic_learning

from embodied_rl.core.errors import UserError
from embodied_rl.policies.relic.run import read_run
from embodied_rl.policies.relic.train import Learner

TINY = """
policy: relic
name: relic_darkroom
model:
  {action_count: 5, horizon: 25, feature_count: 12, width: 16, heads: 2, layers: 1, mlp: 16}
training: {world: darkroom, transitions: 400, trials: 4, trial_steps: 50, updates: 2}
ppo: {epochs: 1, minibatches: 2}
"""


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(relic_learning, "CONFIGS", tmp_path)
    (tmp_path / "relic_darkroom.yaml").write_text(TINY)
    return tmp_path


def test_each_arm_changes_one_thing(configs: Path) -> None:
    run = read_run(configs / "relic_darkroom.yaml")
    for arm, change in relic_learning.CHANGES.items():
        other = relic_learning.changed(run, arm, 2, 77)
        expected = asdict(run) | {"name": f"relic_darkroom_{arm}_2"}
        for part, values in change.items():
            expected[part] |= values
        expected["training"] |= {"seed": 2, "transitions": 77}
        assert asdict(other) == expected


def test_cells_are_measured_once(
    configs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []
    plain = relic_learning.train_relic

    def train(run, **options):
        trained.append(run.name)
        return plain(run, **options)

    monkeypatch.setattr(relic_learning, "train_relic", train)
    out = configs / "found.json"
    words = ["--arms", "relic", "no_sink", "--seeds", "2", "--trials", "8"]
    words += ["--work", str(configs / "work"), "--json", str(out)]
    for _ in range(2):
        assert relic_learning.main(words) in (0, 1)
    assert len(trained) == 4
    found = json.loads(out.read_text())
    figures = found["figures"]
    assert figures["relic.returned.gain"] == pytest.approx(
        figures["relic.returned.late"] - figures["relic.returned.first"]
    )
    assert figures["after_4_shown"] >= 0 and "after_1_own" in figures
    assert 0 < figures["relic.sink_mass"] < 1 and "no_sink.sink_mass" not in figures
    assert set(found["targets"]) == {"relic.returned.gain", "relic_and_no_sink_apart"}
    assert out.with_suffix(".png").stat().st_size > 10_000
    with pytest.raises(UserError, match="saw .'magic'"):
        relic_learning.main(["--arms", "magic"])
    capsys.readouterr()


def test_several_amounts_of_training(
    configs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played = []
    plain = Learner.iterate

    def iterate(learner, state, total):
        played.append(state.step)
        return plain(learner, state, total)

    monkeypatch.setattr(Learner, "iterate", iterate)
    monkeypatch.setattr(relic_learning, "SHOWN", ())
    out = configs / "found.json"
    words = ["--arms", "relic", "one_update", "no_sink", "--seeds", "1", "--trials", "8"]
    words += ["--json", str(out), "--work", str(configs / "work"), "--transitions"]
    relic_learning.main([*words, "400", "200"])
    assert played == [0, 0] + [0, 1] * 3
    found = json.loads(out.read_text())
    figures = found["figures"]
    assert figures["transitions"] == 400
    assert [record[0] for record in found["series"]["relic"][0]] == [200, 400]
    late = {key: figures[f"at_{key}.relic"] for key in (200, 400)}
    assert late[400] == figures["relic.returned.late"]
    for key in late:
        gap = figures[f"at_{key}.relic_over_one_update"]
        assert gap == pytest.approx(late[key] - figures[f"at_{key}.one_update"])
    assert "at_400.relic_over_no_sink" in figures and "at_200.no_sink" not in figures
    capsys.readouterr()


def test_speed_of_learning() -> None:
    steps = np.arange(1.0, 41.0) * 100
    logs = [np.stack([steps, np.minimum(steps / 1000, top)], axis=1) for top in (2.0, 3.0)]
    found = relic_learning.speed(logs, 1, 1.5)
    mean = np.mean([log[:, 1].mean() for log in logs])
    assert found["area"] == pytest.approx(mean)
    # the mean of ten values that rise by 0.1 is 0.45 behind the newest
    assert found["steps_to_threshold"] == pytest.approx(2000.0, abs=100)
    assert "steps_to_threshold" not in relic_learning.speed(logs, 1, 2.5)


def test_gates() -> None:
    figures = {"relic.success.gain": 0.2, "map.success.late": 1.0, "search.success.late": 0.8}
    figures |= {"no_iea.success.gain": -0.01, "no_iea.efficiency.gain": 0.06}
    targets = relic_learning.targets_of("egocentric", figures, ("relic", "no_iea"))
    assert figures["share_of_scripted_gain"] == pytest.approx(1.0)
    assert targets["relic.efficiency.gain"] == (">=", 0.12)
    assert figures["no_iea.efficiency.abs_gain"] == 0.06
    assert targets["no_iea.efficiency.abs_gain"] == ("<=", 0.04)
