"""Rivals: what they see, that they learn a tiny case, and that budgets are kept."""

from __future__ import annotations

from pathlib import Path

import _tgpo_planners as planners
import pytest
import torch
from _tgpo_learners import FormulaMdp, run_learner, train_learner
from _tgpo_rivals import (
    BaselineRun,
    GradSettings,
    LearnerSettings,
    read_baseline,
)
from tgpo_cases import make_task

from embodied_rl.core.errors import UserError
from embodied_rl.training.cem import CemSettings
from embodied_rl.training.ppo import PpoSettings

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("tgpo_rival_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_are_sound(path: Path) -> None:
    assert f"tgpo_rival_{read_baseline(path).method}" == path.stem


def test_parts_of_another_method_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("method: cem\nppo: {epochs: 3}\n")
    with pytest.raises(UserError, match="ppo: unknown key"):
        read_baseline(tmp_path / "x.yaml")


def test_observations_of_the_three_methods() -> None:
    task, settings = make_task("F[1,20] A and F[1,20] B"), LearnerSettings(history=3)
    start, east = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    for method, size in (("f_mdp", 1 + 6 + 4), ("tau_mdp", 1 + 3 * 6), ("rnn", 1 + 6)):
        mdp = FormulaMdp(task, method, settings)
        observation = mdp.reset(start)
        for t in range(1, 5):
            before, (observation, reward) = observation, mdp.step(east)
            assert observation.shape == (1, size) == (1, mdp.observation_dim)
            assert observation[0, 0] == t / 64 and reward == 0
        assert observation[0, 1:7].tolist() == pytest.approx(
            [0.4, 0.0, 0.16, (0.8 - 4) / 5, (0.8 - 8**0.5) / 5, (1 - 8**0.5) / 5]
        )  # at (2, 0): in the middle of A
        if method == "f_mdp":
            assert observation[0, 7:].tolist() == [1, 0, 0, 0]  # A was entered, no other
        if method == "tau_mdp":
            assert torch.equal(observation[0, 7:], before[0, 1:13])
    while mdp.t < 64:
        _, reward = mdp.step(east)
    assert reward.item() == pytest.approx(max(float(mdp.robustness()), -5.0))


@pytest.mark.parametrize("method", ["f_mdp", "rnn"])
def test_a_tiny_case_is_learned(method: str) -> None:
    """One goal close by: rewarded only at the end, and still found."""
    task = make_task("F[0.5,32] A")
    run = BaselineRun(
        method,
        LearnerSettings(width=16, environments=64),
        PpoSettings(learning_rate=0.01, epochs=3, minibatches=4),
    )
    state = task.start(32, torch.Generator().manual_seed(3))
    before = run_learner(task, run, train_learner(task, run, 1, 0), state)
    after = run_learner(task, run, train_learner(task, run, 64 * 64 * 12, 0), state)
    assert after.mean() > before.mean() + 0.3


@pytest.mark.parametrize("method", ["cem", "grad"])
def test_planners_find_a_plan_within_their_budget(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("F[0.5,12] A and G[0,32] not O")
    calls = []
    plain = planners.simulate

    def counted(task, state, actions):
        calls.append(actions.shape[0] * actions.shape[1])
        return plain(task, state, actions)

    monkeypatch.setattr(planners, "simulate", counted)
    run = BaselineRun(method, cem=CemSettings(64, 8, 40), grad=GradSettings(4, 40, 0.1))
    state = task.start(2, torch.Generator().manual_seed(0))
    found = planners.plan(task, run, state, 200_000, torch.Generator().manual_seed(1))
    assert found.shape == (2,) and (found > 0).all()
    last = 2 * 64 * (4 if method == "grad" else 1)  # what judges the plans found is not planning
    assert sum(calls) - last <= 2 * 200_000
    with pytest.raises(ValueError, match="transitions: expected one"):
        planners.plan(task, run, state, 10, torch.Generator())
