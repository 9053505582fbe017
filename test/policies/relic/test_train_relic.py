"""From a config to a checkpoint, resumed on the way, evaluated by trials; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from trial_cases import config_for, opinionated

from embodied_rl.cli import UsageError
from embodied_rl.cli import eval as eval_verb
from embodied_rl.cli import train as train_verb
from embodied_rl.core.checkpoint import load_checkpoint, save_checkpoint
from embodied_rl.core.errors import UserError
from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.episodes import Episodes
from embodied_rl.policies.relic.evaluation import evaluate, load_relic_model, summary
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.run import RelicRun, RelicTraining, read_run
from embodied_rl.policies.relic.train import Learner, train_relic
from embodied_rl.sim.navigation import registry
from embodied_rl.sim.navigation.base import HELD_OUT, TRAIN
from embodied_rl.sim.navigation.darkroom import Darkroom
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.training import iterations
from embodied_rl.training.ppo import PpoSettings
from embodied_rl.training.state import TrainState
from embodied_rl.training.statistics import mean_interval, wilson_interval

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = sorted(CONFIGS.glob("relic_*.yaml"))
TRANSITIONS = 4 * 50  # of an iteration
CONFIG = f"""
policy: relic
name: tiny
model:
  {{action_count: 5, horizon: 25, feature_count: 12, width: 16, heads: 2, layers: 1, mlp: 16}}
training:
  {{world: darkroom, transitions: {4 * TRANSITIONS}, trials: 4, trial_steps: 50, updates: 2,
   shuffle: true, warmup: 2, save_every: 1}}
ppo: {{epochs: 1, minibatches: 2}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def fit(run: RelicRun, tmp_path: Path, tag: str, resume: bool = False) -> dict[str, np.ndarray]:
    out = tmp_path / f"out_{tag}"
    train_relic(run, out=out, work=tmp_path / f"work_{tag}", resume=resume, quiet=True)
    return load_checkpoint(out)[1] if out.exists() else {}


def test_a_stopped_and_resumed_run_ends_in_the_same_weights(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(config)
    whole = fit(run, tmp_path, "whole")

    class Stop:
        def __init__(self, after: int) -> None:
            self.left = after

        def __enter__(self) -> Stop:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def is_set(self) -> bool:
            self.left -= 1
            return self.left < 0

    monkeypatch.setattr(iterations, "stop_on_interrupt", lambda: Stop(2))
    assert fit(run, tmp_path, "parts") == {}
    monkeypatch.undo()
    log = tmp_path / "work_parts" / "log.jsonl"
    early = [json.loads(line) | {"wall_s": 4000.0} for line in log.read_text().splitlines()]
    torn = json.dumps(early[-1])[:20]  # as by a power cut
    log.write_text("".join(json.dumps(record) + "\n" for record in early) + torn)
    parts = fit(run, tmp_path, "parts", resume=True)
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[key], parts[key]) for key in whole)
    records = iterations.read_log(log.parent)
    assert [r["transitions"] for r in records] == [TRANSITIONS * k for k in (1, 2, 3, 4)]
    assert all(len(r["return"]) == 2 for r in records)
    assert all(r["wall_s"] > 4000 for r in records[2:])
    assert "800 steps in 40" in (tmp_path / "out_parts" / "CARD.md").read_text()
    other = replace(run, ppo=replace(run.ppo, clip=0.1))
    with pytest.raises(UserError, match="start without --resume"):
        fit(other, tmp_path, "parts", resume=True)


class Corridor(Darkroom):
    """Two cells: what is learned in seconds is to leave, or to stay, where the goal was."""

    def __init__(self) -> None:
        super().__init__(size=2, horizon=4, held_out=1)


def test_a_hidden_goal_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning in context in its smallest form: four cells, three goals to train on."""
    monkeypatch.setitem(registry.TRIAL_WORLDS, "darkroom", Corridor)
    training = RelicTraining("darkroom", trials=32, trial_steps=24, updates=2, warmup=1)
    ppo = PpoSettings(
        learning_rate=0.003, epochs=3, minibatches=2, gamma=0.9, entropy_coefficient=0.01
    )
    model_config = replace(config_for(Corridor(), width=32, mlp=64), horizon=4)
    run = RelicRun("corridor", model_config, training, ppo)
    torch.manual_seed(0)
    model = RelicModel(run.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    learner, state = Learner(run, model), TrainState(model, optimizer, None)
    for _ in range(60):
        learner.iterate(state, 60)
    found = evaluate(model.eval(), Corridor(), 60, 0, episodes=6, split=TRAIN)
    first, last = (found.returned[:, k].mean() for k in (0, -1))
    assert last > first + 0.5
    assert found.success[:, -1].float().mean() > 0.95


def test_a_trial_is_a_function_of_its_seed() -> None:
    world = EgocentricNavigation()
    model = opinionated(config_for(world))
    first, again, other = (
        evaluate(model, world, 6, seed, episodes=2).returned for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_demonstrations_come_first() -> None:
    world = Darkroom()
    model = opinionated(config_for(world))
    found = evaluate(model, world, 16, 0, episodes=4, shown=2)
    best = world.best_return(world.worlds(HELD_OUT)[torch.arange(16) % 8]).float()
    assert all(torch.equal(found.returned[:, k], best) for k in (0, 1))
    assert found.familiar[:, 1:].all()
    assert (found.returned[:, 2] < best).any()


def test_held_out_worlds_are_taken_in_turn() -> None:
    world, seen = Darkroom(), []
    model = opinionated(config_for(world))
    evaluate(model, world, 20, 0, episodes=1, watch=lambda trials, _: seen.append(trials.worlds))
    held_out = world.worlds(HELD_OUT).tolist()
    assert seen[0].tolist() == (3 * held_out)[:20]


def test_the_summary_is_what_its_names_say() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (40, 7)
    success, familiar = torch.rand(2, *shape, generator=generator) < 0.6
    returned, efficiency = torch.randn(2, *shape, generator=generator)
    found = summary(
        Episodes(torch.ones(shape, dtype=torch.bool), returned, torch.ones(shape), success,
                 efficiency, familiar)
    )  # fmt: skip
    assert found["by_episode"]["success"][3][1:] == list(
        wilson_interval(int(success[:, 3].sum()), 40)
    )
    assert found["by_episode"]["return"][2] == list(mean_interval(returned[:, 2].double().numpy()))
    assert found["gain"]["efficiency"]["last"][0] == pytest.approx(
        float((efficiency[:, 6] - efficiency[:, 0]).mean()), abs=1e-6
    )
    late = (returned[:, 5] + returned[:, 6]) / 2 - returned[:, 0]
    assert found["gain"]["return"]["late"][0] == pytest.approx(float(late.mean()), abs=1e-6)
    known = familiar[:, 1:]
    assert found["familiar"]["episodes"] == int(known.sum())
    assert found["new"]["success"] == pytest.approx(float(success[:, 1:][~known].float().mean()))


def test_command_lines(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures, png = (tmp_path / name for name in ("model", "eval.json", "out.png"))
    steps = ["--steps", str(TRANSITIONS), "--out", str(out), "--work", str(tmp_path / "work")]
    assert train_verb.main(["relic", "--config", str(config), *steps]) == 0
    arguments = [str(out), "--trials", "9", "--json", str(figures), "--picture", str(png)]
    assert eval_verb.main([*arguments, "--card"]) == 0
    found = json.loads(figures.read_text())
    assert (found["task"], found["trials"], found["episodes"]) == ("darkroom", 9, 8)
    assert len(found["by_episode"]["return"]) == 8
    assert "9 trials in held-out worlds" in (out / "CARD.md").read_text()
    assert matplotlib.image.imread(png).shape[1] > 800
    with pytest.raises(UsageError, match="at least 2, saw 1"):
        eval_verb.main([str(out), "--trials=1"])
    with pytest.raises(UsageError, match="train relic: expected --device cpu, saw cuda"):
        train_verb.main(["relic", "--device", "cuda"])
    with pytest.raises(SystemExit):
        train_verb.main(["relic", "--bags", str(tmp_path)])
    capsys.readouterr()


def test_what_a_checkpoint_refuses(config: Path, tmp_path: Path) -> None:
    run = read_run(config)
    short = replace(run.training, transitions=TRANSITIONS)
    fit(replace(run, training=short), tmp_path, "small")
    folder = tmp_path / "out_small"
    loaded = load_relic_model(folder)
    assert (loaded.name, loaded.world.name, loaded.model.config) == ("tiny", "darkroom", run.model)
    data, arrays = load_checkpoint(folder)
    for change, message in (
        ({"policy": "ptp"}, "policy: expected one of"),
        ({"task": "boat"}, "unknown world 'boat'; valid: apartment, darkroom"),
        ({"task": "egocentric"}, "model.action_count: expected 4 as world egocentric has, saw 5"),
        ({"model": {**data["model"], "mlp": 8}}, "blocks.0.mlp.down.weight': expected shape"),
    ):
        save_checkpoint(tmp_path / "changed", {**data, **change}, arrays, "card")
        with pytest.raises(UserError, match=message):
            load_relic_model(tmp_path / "changed")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("updates: 2", "updates: 3", "training.updates: expected a divisor of trial_steps = 50"),
        ("trials: 4", "trials: 0", "training.trials: expected at least 1, saw 0"),
        ("horizon: 25", "horizon: 9", "model.horizon: expected at least the 25 steps"),
        ("feature_count: 12", "feature_count: 2", "model.feature_count: expected 12 as world"),
        ("warmup: 2", "warmups: 2", "training.warmups: unknown key"),
        ("world: darkroom", "world: barn", "unknown world 'barn'"),
        ("policy: relic", "policy: ptp", "policy: expected one of"),
        ("epochs: 1", "auxiliary_coefficient: 0.3", "ppo.auxiliary_coefficient: expected 0 for"),
    ],
)
def test_bad_configs_are_named(config: Path, old: str, new: str, message: str) -> None:
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read_run(config)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configs_fit_their_worlds(path: Path) -> None:
    run = read_run(path)
    assert run.name == path.stem and isinstance(run.model, RelicConfig)
