"""The grid of PTP's arms: what is made, what is reused, what is refused, and what is reported."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import ptp_arms
import yaml
from _arm_evaluation import checkpoint_hash
from _arm_figures import ArmResults, figures_of

import embodied_rl.cli.main as cli
from embodied_rl.cli import bench
from embodied_rl.core.checkpoint import save_checkpoint
from embodied_rl.core.errors import UserError
from embodied_rl.policies.ptp.config import read_run
from embodied_rl.training.config import as_mapping

EPISODES, SEEDS = 20, 2
CONFIG = {
    "policy": "ptp",
    "name": "ptp_return_home",
    "task": "return_home",
    "model": {"streams": ["arm_position"], "history": 4, "width": 16, "heads": 2},
    "training": {"steps": 7, "warmup": 1},
}


def row(
    successes: int, ratio: float = 1.0, checkpoint: str = "expert", first_seed: int = 100
) -> dict:
    """A result file: the first `successes` episodes went well."""
    outcomes = []
    for k in range(EPISODES):
        well = k < successes
        reason = "success" if well else "lost"
        outcomes.append({"seed": first_seed + k, "success": well, "reason": reason})
    return {
        "success": successes / EPISODES,
        "outcomes": outcomes,
        "predictability_ratio": ratio,
        "checkpoint": checkpoint,
    }


class Programs:
    """In place of the programs that a grid starts: writes what they would, and remembers them."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.successes = {"short": 6, "ptp": 19, "ptp_n4": 20}

    def __call__(self, grid: ptp_arms.Grid, *words: str) -> None:
        value = dict(zip(words, words[1:], strict=False))
        if "train" in words:
            self.ran.append(f"train {Path(value['--out']).name}")
            run = read_run(Path(value["--config"]), {"seed": int(value["--seed"])})
            parts = {"model": as_mapping(run.model), "training": as_mapping(run.training)}
            weights = {"w": np.array([float(len(self.ran))])}
            save_checkpoint(value["--out"], parts, weights, "a card")
        elif "convert" in words:
            self.ran.append(f"convert {Path(value['convert']).name}")
        else:
            out = Path(value["--out"])
            self.ran.append(f"evaluate {out.stem} {value.get('--samples', '')}".strip())
            arm = out.stem.removeprefix("return_home_").rsplit("_", 2)[0]
            found = row(self.successes.get(arm, EPISODES), 2.0, checkpoint_hash(value["--model"]))
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found))


@pytest.fixture
def programs(monkeypatch) -> Programs:
    found = Programs()
    monkeypatch.setattr(ptp_arms.Grid, "_python", lambda grid, *words: found(grid, *words))
    return found


@pytest.fixture
def words(tmp_path) -> list[str]:
    """The command line of a small grid, with its config and its bags."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "ptp_return_home.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "demos" / "return_home").mkdir(parents=True)
    (tmp_path / "demos" / "return_home" / "episodes.json").write_text("[{}, {}, {}]")
    return [
        *("--tasks", "return_home", "--arms", "short", "ptp", "ptp_n4", "--seeds", str(SEEDS)),
        *("--episodes", str(EPISODES), "--demonstrations", "3", "--workers", "1"),
        *("--configs", str(tmp_path / "configs"), "--bags", str(tmp_path / "demos")),
        *("--work", str(tmp_path / "work"), "--json", str(tmp_path / "out" / "ptp_arms.json")),
    ]


def test_a_grid_from_bags_to_figures_then_again_from_what_is_there(programs, words, tmp_path):
    assert ptp_arms.main(words) == 0
    assert programs.ran[:2] == ["convert return_home", "evaluate return_home_expert_20"]
    assert programs.ran[2:6] == [
        "train return_home_short_0",
        "evaluate return_home_short_0_20",
        "train return_home_ptp_0",
        "evaluate return_home_ptp_0_20",
    ]
    assert "evaluate return_home_ptp_n4_1_20 4" in programs.ran
    assert len(programs.ran) == 2 + SEEDS * (2 + 3)
    short = yaml.safe_load((tmp_path / "work/models/return_home_short_1/config.yaml").read_text())
    assert (short["model"]["history"], short["training"]["seed"]) == (2, 1)
    result = json.loads((tmp_path / "out" / "ptp_arms.json").read_text())
    assert result["held"] and result["figures"]["return_home.ptp.success"] == 0.95
    assert (tmp_path / "out" / "ptp_arms.png").read_bytes().startswith(b"\x89PNG")

    programs.ran.clear()
    assert ptp_arms.main(words) == 0
    assert programs.ran == []


def test_only_what_is_missing_or_of_another_checkpoint_is_made(programs, words, tmp_path, capsys):
    ptp_arms.main(words)
    programs.ran.clear()
    (tmp_path / "work/results/return_home_ptp_n4_0_20.json").unlink()
    stale = tmp_path / "work/results/return_home_short_1_20.json"
    stale.write_text(json.dumps(row(3, 1.0, "0123456789abcdef")))
    ptp_arms.main(words)
    assert programs.ran == ["evaluate return_home_ptp_n4_0_20 4", "evaluate return_home_short_1_20"]
    assert "return_home_short_1_20.json: of checkpoint 0123456789abcdef" in capsys.readouterr().out


def test_an_unfinished_grid_is_reported_as_it_is(programs, words, tmp_path):
    as_is = [*words, "--as-is"]
    with pytest.raises(UserError, match="results: no result of these tasks and arms"):
        ptp_arms.main(as_is)
    ptp_arms.main(words)
    programs.ran.clear()
    for name in ("short_1", "ptp_n4_0"):  # what comes after a gap is not shown either
        (tmp_path / f"work/results/return_home_{name}_20.json").unlink()
    assert ptp_arms.main(as_is) == 0 and programs.ran == []
    figures = json.loads((tmp_path / "out" / "ptp_arms.json").read_text())["figures"]
    assert figures["return_home.ptp.seeds"] == 2 and figures["return_home.short.seeds"] == 1
    assert figures["return_home.ptp_minus_short"] == pytest.approx(0.95 - 0.3)
    assert "return_home.ptp_n4.success" not in figures


def test_a_model_of_another_config_is_refused_with_both_values(programs, words, tmp_path):
    ptp_arms.main(words)
    changed = {**CONFIG, "training": {**CONFIG["training"], "learning_rate": 0.003}}
    (tmp_path / "configs" / "ptp_return_home.yaml").write_text(yaml.safe_dump(changed))
    programs.ran.clear()
    with pytest.raises(UserError, match=r"training.learning_rate: expected 0.003, saw 0.001"):
        ptp_arms.main(words)
    assert programs.ran == []


def test_a_default_that_is_written_out_is_the_same_config(programs, words, tmp_path):
    ptp_arms.main(words)
    spelled = {**CONFIG, "model": {**CONFIG["model"], "stride": 3}}
    (tmp_path / "configs" / "ptp_return_home.yaml").write_text(yaml.safe_dump(spelled))
    programs.ran.clear()
    assert ptp_arms.main(words) == 0 and programs.ran == []


def test_half_a_set_of_demonstrations_is_refused(programs, words, tmp_path):
    (tmp_path / "demos" / "return_home" / "episodes.json").write_text("[{}]")
    with pytest.raises(UserError, match="expected 3 episodes, saw 1"):
        ptp_arms.main(words)
    assert programs.ran == []


def test_bad_words(capsys, monkeypatch):
    assert "ptp_arms" in bench.benchmarks()
    assert cli.main(["bench", "ptp_arms", "--arms", "long"]) == 2
    assert "unknown arm 'long'; valid: future_only, no_ptp, ptp," in capsys.readouterr().err
    assert cli.main(["bench", "ptp_arms", "--episodes", "1"]) == 2
    assert "--episodes: expected at least 2, saw 1" in capsys.readouterr().err


PATIENT = """
import signal, sys, time
def save(*_):
    open(sys.argv[1], "w").write("saved")
    sys.exit(1)
signal.signal(signal.SIGINT, save)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_failure_stops_the_others_in_order(words, tmp_path):
    """A program that runs is asked to save (SIGINT), one that waits is never started."""
    patient, saved = tmp_path / "patient.py", [tmp_path / f"saved_{k}" for k in range(3)]
    patient.write_text(PATIENT)
    grid = ptp_arms.Grid(ptp_arms.Arguments(workers=2, work=tmp_path), ptp_arms.Console())
    begun = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            begun.wait(30)
            time.sleep(1.0)  # until the other has set its handler
            grid._python("-c", "import sys; sys.exit('out of memory')")
        begun.set()
        grid._python(str(patient), str(saved[number]))

    with pytest.raises(UserError, match="exit code 1: out of memory"):
        grid._all(work, range(3))
    assert [path.exists() for path in saved] == [False, True, False]


def test_programs_run_from_this_source_tree(tmp_path):
    grid = ptp_arms.Grid(ptp_arms.Arguments(work=tmp_path), ptp_arms.Console())
    out = tmp_path / "where"
    code = "import embodied_rl, sys; open(sys.argv[1], 'w').write(embodied_rl.__file__)"
    grid._python("-c", code, str(out))
    assert Path(out.read_text()).parents[1] == ptp_arms.ROOT


def results(**successes: tuple[int, ...]) -> list[ArmResults]:
    return [
        ArmResults("return_home", arm, [row(k, 0.5 * 4**s) for s, k in enumerate(counts)])
        for arm, counts in successes.items()
    ]


def test_figures_of_known_outcomes():
    arms = results(expert=(20,), short=(5, 7), no_ptp=(20, 20), ptp=(18, 16), ptp_n4=(18, 20))
    figures, targets = figures_of(arms)
    name = "return_home"
    assert (figures[f"{name}.ptp.seeds"], figures["episodes_a_seed"]) == (2, 20)
    assert figures[f"{name}.ptp.success"] == 0.85
    assert figures[f"{name}.ptp.worst_seed"] == 0.8
    assert figures[f"{name}.ptp.failed_lost"] == pytest.approx(0.15)
    assert figures[f"{name}.ptp.predictability_ratio"] == pytest.approx(1.0)  # of 0.5 and 2
    assert figures[f"{name}.ptp_minus_short"] == pytest.approx(0.55)
    # The same episodes go well in all arms, so the pairs disagree in one direction only.
    assert figures[f"{name}.ptp_minus_no_ptp"] == pytest.approx(-0.15)
    assert figures[f"{name}.ptp_minus_no_ptp_mcnemar_p"] == pytest.approx(2 * 0.5**6)
    assert figures[f"{name}.ptp_n4_minus_ptp"] == pytest.approx(0.1)
    assert figures[f"{name}.ptp_n4_minus_ptp_low"] == 0.0
    assert figures["tasks_with_ptp_minus_short_of_0.40"] == 1
    assert targets["tasks_with_ptp_minus_short_of_0.40"] == (">=", 1)
    assert set(targets) == {
        "tasks_with_ptp_minus_short_of_0.40",
        f"{name}.ptp.low",
        f"{name}.ptp_minus_no_ptp_high",
        f"{name}.ptp_n4_minus_ptp_high",
    }


def test_ptp_clearly_below_a_rival_misses_its_target():
    figures, targets = figures_of(results(future_only=(20, 20), ptp=(8, 9)))
    relation, bound = targets["return_home.ptp_minus_future_only_high"]
    assert relation == ">=" and figures["return_home.ptp_minus_future_only_high"] < bound


def test_arms_of_other_episodes_are_not_compared():
    arms = results(ptp=(18, 16))
    other = ArmResults("return_home", "short", [row(3), row(3, first_seed=7)])
    with pytest.raises(UserError, match=r"return_home.short, training seed 1: expected the epi"):
        figures_of([*arms, other])
