"""Times chosen by the critic, and chosen anew after a miss."""

from __future__ import annotations

import pytest
import torch
from tgpo_cases import make_task

from embodied_rl.core.errors import UserError
from embodied_rl.policies.tgpo.allocate import AllocationSettings
from embodied_rl.policies.tgpo.config import TgpoConfig
from embodied_rl.policies.tgpo.groundings import Groundings
from embodied_rl.policies.tgpo.mdp import AugmentedMdp, RewardWeights
from embodied_rl.policies.tgpo.planner import Critic, Plan, Planner, temperature
from embodied_rl.policies.tgpo.runtime import RunSettings, make_model

CONFIG = TgpoConfig("linear", width=16)


def make_planner(formula: str, candidates: int = 64):
    torch.manual_seed(0)
    model = make_model(CONFIG).requires_grad_(False)
    groundings = Groundings([make_task(formula)], CONFIG.shape)
    return Planner(model, groundings, AllocationSettings(), candidates), model, groundings


def test_the_critic_picks_the_best_of_its_candidates() -> None:
    formula = "F[0.5,8] A and F[0.5,8] B"
    state = torch.tensor([[0.1, 0.2], [-0.4, 0.3], [0.0, 0.0]])
    task = torch.zeros(3, dtype=torch.long)
    means = []
    for candidates in (1, 8, 512):
        planner, model, groundings = make_planner(formula, candidates)
        plan = planner.plan(task, state, torch.Generator().manual_seed(1))
        assert groundings.feasible(plan.chosen, plan.times).all()
        again = Critic(model, groundings, state)(plan.chosen, plan.times)
        assert torch.allclose(plan.value, again, atol=1e-5)
        means.append(float(plan.value.mean()))
    assert means[0] < means[1] <= means[2]
    every = torch.cartesian_prod(torch.arange(1, 17), torch.arange(1, 17))
    every = torch.nn.functional.pad(every, (0, 2))
    for row, value in zip(state, plan.value):
        critic = Critic(model, groundings, row.expand(len(every), -1))
        best = critic(torch.zeros(len(every), dtype=torch.long), every).max()
        assert value > best - 0.05 * best.abs()


def started(formula: str, times: list[int], start: list[float]):
    planner, _, groundings = make_planner(formula)
    plan = Plan(torch.zeros(1, dtype=torch.long), torch.tensor([times]), torch.zeros(1))
    mdp = AugmentedMdp(groundings.dynamics, RewardWeights())
    mdp.reset(torch.tensor([start]), groundings.schedule(plan.chosen, plan.times))
    return planner, plan, mdp


def test_a_missed_subgoal_gets_a_later_time_and_the_done_one_keeps_its_own() -> None:
    planner, plan, mdp = started("F[0.5,8] A and F[0.5,16] B", [2, 5, 0, 0], [2.0, 0.0])
    for _ in range(5):
        mdp.step(torch.zeros(1, 2))
    assert mdp.done[0, 0] and mdp.missed[0, 1]
    found = planner.replan(mdp, torch.tensor([0]), plan, torch.Generator().manual_seed(0))
    assert found.tolist() == [True]
    assert plan.times[0, 0] == 2 and 5 < plan.times[0, 1] <= 32
    assert mdp.done[0].tolist() == [True, False, False, False] and not mdp.missed.any()
    assert mdp.schedule.last[0, 1] == plan.times[0, 1]
    while mdp.t < plan.times[0, 1]:  # the new time can be met, and then counts
        mdp.step(torch.tensor([[-1.0 if mdp.state[0, 0] > -1.6 else 0.0, 0.0]]))
    assert bool(mdp.done[0, 1]) == (int(plan.times[0, 1]) >= 12)  # the way takes 7 steps


def test_a_window_under_way_is_left_alone() -> None:
    planner, plan, mdp = started("F[0.5,4] G[0,10] A and F[0.5,8] B", [1, 4, 0, 0], [2.0, 0.0])
    for _ in range(4):
        mdp.step(torch.zeros(1, 2))
    assert mdp.missed.sum() == 1 and mdp.under_way.sum() == 1
    planner.replan(mdp, torch.tensor([0]), plan, torch.Generator().manual_seed(0))
    assert plan.times[0, 0] == 1 and plan.times[0, 1] > 4


def test_a_window_that_is_over_is_given_up() -> None:
    planner, plan, mdp = started("F[0.5,2] A and F[0.5,16] B", [3, 20, 0, 0], [0.0, 0.0])
    for _ in range(4):
        mdp.step(torch.zeros(1, 2))
    before = plan.times.clone()
    found = planner.replan(mdp, torch.tensor([0]), plan, torch.Generator().manual_seed(0))
    assert found.tolist() == [False]
    assert torch.equal(plan.times, before) and mdp.missed[0, 0]


def test_temperature_is_the_spread_within_a_task() -> None:
    values = torch.tensor([1.0, 3.0, 101.0, 103.0])
    task = torch.tensor([0, 0, 1, 1])
    assert temperature(values, task, AllocationSettings(temperature=0.5)) == pytest.approx(0.5)
    flat = temperature(torch.zeros(4), task, AllocationSettings(least_temperature=0.05))
    assert flat == pytest.approx(0.05)


def test_no_candidates_are_refused() -> None:
    with pytest.raises(UserError, match="candidates: expected at least 1, saw 0"):
        RunSettings(candidates=0)
