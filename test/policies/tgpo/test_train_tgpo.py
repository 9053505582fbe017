"""From a config to a checkpoint, resumed on the way, and what the checkpoint refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tgpo_cases import make_task

from embodied_rl.cli import eval as eval_verb
from embodied_rl.cli import train as train_verb
from embodied_rl.core.checkpoint import load_checkpoint, save_checkpoint
from embodied_rl.core.errors import UserError
from embodied_rl.policies.tgpo import train
from embodied_rl.policies.tgpo.config import TgpoRun, read_run
from embodied_rl.policies.tgpo.evaluation import evaluate, summary
from embodied_rl.policies.tgpo.groundings import Groundings
from embodied_rl.policies.tgpo.runtime import RunSettings, load_tgpo
from embodied_rl.policies.tgpo.train import train_tgpo
from embodied_rl.sim.stl_tasks.task import load_task, write_task
from embodied_rl.training import iterations
from embodied_rl.training.statistics import wilson_interval

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = sorted(p for p in CONFIGS.glob("tgpo_*.yaml") if "rival" not in p.stem)
CONFIG = """
policy: tgpo
name: tiny
model: {{dynamics: linear, width: 16}}
training: {{tasks: [{task}], transitions: {transitions}, environments: 32, save_every: 2}}
ppo: {{epochs: 2, minibatches: 4, learning_rate: 0.003}}
allocation: {{warmup: 1, chain_steps: 2}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_task(make_task("F[0.5,16] A and F[0.5,30] B", name="pair"), tmp_path / "pair.yaml")
    path = tmp_path / "tiny.yaml"
    text = CONFIG.format(task=tmp_path / "pair.yaml", transitions=32 * 64 * 4)
    path.write_text(text, encoding="utf-8")
    return path


def fit(run: TgpoRun, tmp_path: Path, tag: str, resume: bool = False) -> dict[str, np.ndarray]:
    out = tmp_path / f"out_{tag}"
    train_tgpo(run, out=out, work=tmp_path / f"work_{tag}", resume=resume, quiet=True)
    return load_checkpoint(out)[1] if out.exists() else {}


def test_a_stopped_and_resumed_run_ends_in_the_same_weights(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(config)
    whole = fit(run, tmp_path, "whole")

    class Stop:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __init__(self, after: int) -> None:
            self.left = after

        def is_set(self) -> bool:
            self.left -= 1
            return self.left < 0

    monkeypatch.setattr(iterations, "stop_on_interrupt", lambda: Stop(2))
    assert fit(run, tmp_path, "parts") == {}
    monkeypatch.undo()
    parts = fit(run, tmp_path, "parts", resume=True)
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[key], parts[key]) for key in whole)
    log = (tmp_path / "work_parts" / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in log]
    assert [r["iteration"] for r in records] == [1, 2, 3, 4]
    assert np.isnan(records[0]["accepted"]) and 0 < records[1]["accepted"] <= 1
    other = replace(run, ppo=replace(run.ppo, clip=0.1))
    with pytest.raises(UserError, match="start without --resume"):
        fit(other, tmp_path, "parts", resume=True)


def test_an_easy_task_is_learned(tmp_path: Path) -> None:
    """Straight to a goal nearby: random times satisfy it seldom, the trained policy always."""
    write_task(make_task("F[2,10] A", name="near"), tmp_path / "near.yaml")
    text = CONFIG.format(task=tmp_path / "near.yaml", transitions=32 * 64 * 25)
    (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
    fit(read_run(tmp_path / "tiny.yaml"), tmp_path, "easy")
    policy = load_tgpo(tmp_path / "out_easy")
    results = evaluate(policy, [make_task("F[2,10] A")], 32, 0, RunSettings(candidates=64))
    figures = summary(results)
    assert figures["success"] > 0.9
    assert (figures["low"], figures["high"]) == wilson_interval(figures["successes"], 32)
    certified = results[0].episodes.certified
    assert (results[0].episodes.robustness[certified] > 0).all()


def test_returns_end_at_a_failure(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a subgoal is missed, or an avoided region entered for the first time."""
    task = make_task("F[0.5,16] A and F[0.5,30] B and G[0,32] not O", name="pair")
    write_task(task, tmp_path / "pair.yaml")
    run, failures = read_run(config), []
    plain = train.AugmentedMdp.step

    def watched(mdp, action):
        before = mdp.missed.sum(dim=1) + mdp.violated
        found = plain(mdp, action)
        failures.append(mdp.missed.sum(dim=1) + mdp.violated > before)
        return found

    monkeypatch.setattr(train.AugmentedMdp, "step", watched)
    collector = train.Collector(run, train.make_model(run.model))
    rollout, figures = collector.collect(0, torch.Generator().manual_seed(0))
    assert figures.violated > 0
    assert torch.equal(rollout.ended[:-1], torch.stack(failures)[:-1])
    assert rollout.ended[:-1].any() and rollout.ended[-1].all()


def test_what_a_checkpoint_refuses(config: Path, tmp_path: Path) -> None:
    fit(replace(read_run(config), training=replace(read_run(config).training, transitions=2048)),
        tmp_path, "small")  # fmt: skip
    folder = tmp_path / "out_small"
    policy = load_tgpo(folder)
    with pytest.raises(UserError, match="trained for linear, task case is one of unicycle"):
        policy.groundings([make_task("F[1,2] A", "unicycle")])
    data, arrays = load_checkpoint(folder)
    for change, message in (
        ({"dt_s": 0.1}, "dt_s: expected 0.5 as linear has, saw 0.1"),
        ({"policy": "ptp"}, "policy: expected one of"),
        ({"model": {**data["model"], "avoided": 3}}, "actor.0.weight': expected shape"),
    ):
        save_checkpoint(tmp_path / "changed", {**data, **change}, arrays, "card")
        with pytest.raises(UserError, match=message):
            load_tgpo(tmp_path / "changed")


def test_command_lines(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "model", tmp_path / "eval.json"
    steps = ["--steps", "2048", "--out", str(out), "--work", str(tmp_path / "work")]
    assert train_verb.main(["tgpo", "--config", str(config), *steps]) == 0
    arguments = [str(out), "--episodes", "8", "--samples", "16", "--json", str(figures), "--card"]
    assert eval_verb.main(arguments) == 0
    found = json.loads(figures.read_text())
    assert found["episodes"] == 8 and list(found["tasks"]) == ["pair"]
    assert found["candidates"] == 16
    assert "share of episodes in which the robustness" in (out / "CARD.md").read_text()
    with pytest.raises(UserError, match="device: expected one that is here, saw 'cuda:9'"):
        train_verb.main(["tgpo", "--config", str(config), "--device", "cuda:9", *steps])
    with pytest.raises(UserError, match="device: expected one that is here, saw 'cuda:9'"):
        eval_verb.main([str(out), "--device", "cuda:9"])
    for words, said in ((["tgpo", "--bags", str(tmp_path)], "--bags"), (["ptp"], "--bags PATH")):
        with pytest.raises(SystemExit) as stopped:
            train_verb.main(words)
        assert stopped.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(UserError, match="no simulated robot is driven as 'linear'"):
        eval_verb.main([str(out), "--ros"])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width: 16", "width: 0", "model.width: expected at least 1, saw 0"),
        ("save_every: 2", "hold_out: true", "training.hold_out: expected generated tasks"),
        ("warmup: 1", "warmups: 1", "allocation.warmups: unknown key"),
        ("policy: tgpo", "policy: ptp", "policy: expected one of"),
        ("epochs: 2", "epochs: 0", "ppo.epochs"),
        ("epochs: 2", "auxiliary_coefficient: 0.1", "ppo.auxiliary_coefficient: expected 0"),
    ],
)
def test_bad_configs_are_named(config: Path, old: str, new: str, message: str) -> None:
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read_run(config)


def test_generated_tasks_are_part_of_the_pool(config: Path) -> None:
    run = read_run(config)
    run = replace(run, training=replace(run.training, generated=6))
    names = [task.name for task in train.training_tasks(run)]
    assert names == ["pair", *(f"generated_{10_000 + i}" for i in range(6))]
    held = replace(run, training=replace(run.training, hold_out=True))
    assert [task.name for task in train.training_tasks(held)] == names[1:]
    assert torch.isfinite(train.Collector(held, train.make_model(run.model)).starts(
        torch.Generator().manual_seed(0))[1]).all()  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configs_fit_their_tasks(path: Path) -> None:
    run = read_run(path)
    assert run.name == path.stem
    groundings = Groundings([load_task(name) for name in run.training.tasks], run.model.shape)
    assert groundings.dynamics.name == run.model.dynamics
    assert (groundings.counts >= 1).all()
