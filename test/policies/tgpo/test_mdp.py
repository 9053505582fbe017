"""The augmented MDP: its reward against a plain loop, its certificate, and closed loopholes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tgpo_cases import make_task

from embodied_rl.nn.device import device_of, new_tensors_on
from embodied_rl.policies.tgpo.allocate import uniform
from embodied_rl.policies.tgpo.config import TgpoConfig
from embodied_rl.policies.tgpo.groundings import Groundings, Schedule, Shape
from embodied_rl.policies.tgpo.mdp import AugmentedMdp, RewardWeights, observation_dim
from embodied_rl.policies.tgpo.runtime import make_model
from embodied_rl.sim.stl_tasks.task import load_task

W = RewardWeights()


def begin(formula: str, times: list[list[int]], start: list[float]):
    task = make_task(formula)
    groundings = Groundings([task], Shape())
    filled = torch.tensor([row + [0] * (4 - len(row)) for row in times])
    chosen = torch.zeros(len(times), dtype=torch.long)
    assert groundings.feasible(chosen, filled).all()
    mdp = AugmentedMdp(task.dynamics, W)
    state = torch.tensor([start] * len(times))
    return mdp, mdp.reset(state, groundings.schedule(chosen, filled))


def plain_return(subgoals, avoided, trace: np.ndarray) -> list[float]:
    """Rewards of one episode, from section to section of the definition, with Python's numbers."""
    status, rewards = ["pending"] * len(subgoals), []
    violated = any(f <= 0 <= end and math.dist(trace[0], c) <= r for c, r, f, end in avoided)
    for t in range(1, len(trace)):
        total, left = 0.0, [i for i, s in enumerate(status) if s == "pending"]
        if left:
            centre, radius = subgoals[left[0]][:2]
            before, after = (max(0.0, math.dist(trace[u], centre) - radius) for u in (t - 1, t))
            total += W.progress * (before - after) - W.distance * after
        failed = False
        for i in left:
            centre, radius, first, last = subgoals[i]
            away = math.dist(trace[t], centre) - radius
            if first <= t <= last and away >= 0:
                status[i], failed = "missed", True
                total -= W.miss_distance * away
            elif t == last:
                status[i] = "done"
                total += W.hit / len(subgoals)
        gaps = [math.dist(trace[t], c) - r for c, r, f, end in avoided if f <= t <= end]
        nearest = min([*gaps, 2.0])
        if nearest <= 0:
            failed, violated, total = failed or not violated, True, total - W.violation
        if failed:
            total -= W.miss * sum(status[i] != "done" for i in left) / len(subgoals)
        total -= W.barrier * math.exp(-W.steepness * max(nearest, 0.0))
        if t == len(trace) - 1 and set(status) == {"done"} and not violated:
            total += W.success
        rewards.append(W.scale * total)
    return rewards


@pytest.mark.parametrize("seed", range(6))
def test_reward_is_that_of_a_plain_loop(seed: int) -> None:
    formula = "F[0.5,14] A and F[1,15] G[0,2] B and ((not C) U[0.5,20] B) and G[0,32] not O"
    times = [[8, 20, 17], [25, 6, 12]]
    mdp, _ = begin(formula, times, [0.0, 0.3])
    generator = torch.Generator().manual_seed(seed)
    trace, rewards = [mdp.state.clone()], []
    for _ in range(64):
        pull = 0.7 * mdp._away.gather(1, torch.zeros(2, 1, 2, dtype=torch.long))[:, 0]
        action = pull + 0.8 * torch.randn(2, 2, generator=generator)
        rewards.append(mdp.step(action)[1])
        trace.append(mdp.state.clone())
    regions = mdp.dynamics and make_task(formula).regions
    a, b, c, o = (regions[name] for name in "ABCO")
    for n, (first, second, third) in enumerate(times):
        subgoals = [
            (a.centre, a.radius, first, first),
            (b.centre, b.radius, second, second + 4),
            (b.centre, b.radius, third, third),
        ]
        subgoals.sort(key=lambda item: (item[3], item[2]))
        avoided = [(c.centre, c.radius, 0, third - 1), (o.centre, o.radius, 0, 64)]
        positions = torch.stack(trace)[:, n].double().numpy()
        expected = plain_return(subgoals, avoided, positions)
        assert np.allclose(torch.stack(rewards)[:, n].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["linear_02", "linear_07", "linear_08", "unicycle_04", "unicycle_06"]
)
def test_success_certifies_the_formula(name: str) -> None:
    """Whatever the flags call a success satisfies the task's own formula."""
    task = load_task(name)
    groundings = Groundings([task], Shape())
    generator = torch.Generator().manual_seed(4)
    chosen, times, _ = uniform(groundings, torch.zeros(400, dtype=torch.long), generator)
    mdp = AugmentedMdp(task.dynamics, W)
    mdp.reset(task.start(400, generator), groundings.schedule(chosen, times))
    positions = [mdp.state[:, :2]]
    for _ in range(task.dynamics.steps):
        active = mdp.pending.int().argmax(dim=1)
        target = mdp.schedule.centre[torch.arange(400), active]
        mdp.step(mdp.dynamics.toward(mdp.state, target))
        positions.append(mdp.state[:, :2])
    robustness = task.robustness(torch.stack(positions, dim=1))
    assert mdp.success.any() and not mdp.success.all()
    assert (robustness[mdp.success] > 0).all()


def test_an_expired_subgoal_leaves_the_active_slot() -> None:
    mdp, observation = begin("F[0.5,8] A and F[0.5,16] B", [[3, 20]], [0.0, 0.0])
    active = slice(2 + 1 + 4 * 7, 2 + 1 + 4 * 7 + 4)
    assert observation[0, active][:2].tolist() == pytest.approx([1.0, 0.0])  # towards A
    for _ in range(3):
        observation, reward = mdp.step(torch.tensor([[-0.1, 0.0]]))
    assert mdp.missed[0].tolist() == [True, False, False, False]
    assert observation[0, active][:2].tolist() == pytest.approx([-1.0, 0.0])  # towards B
    # the last step paid for A: its distance, its miss; the next one knows B alone
    _, reward = mdp.step(torch.tensor([[-1.0, 0.0]]))
    after = 2.0 - 0.15 - 0.5 - 0.8
    expected = W.scale * (0.5 - W.distance * after - W.barrier * math.exp(-2 * W.steepness))
    assert float(reward[0]) == pytest.approx(expected, abs=1e-5)


def test_a_change_of_stage_is_no_progress() -> None:
    mdp, _ = begin("F[0.5,8] A and F[0.5,16] B", [[3, 20]], [2.0, 0.0])
    rewards = [float(mdp.step(torch.zeros(1, 2))[1][0]) for _ in range(5)]
    hit = W.scale * W.hit / 2
    waiting = -W.scale * W.distance * 3.2
    assert rewards[2] == pytest.approx(hit, abs=1e-5)
    assert rewards[3] == pytest.approx(waiting, abs=1e-5) == pytest.approx(rewards[4], abs=1e-5)


@pytest.mark.parametrize("short_m", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("waits_at_b", [False, True])
def test_giving_a_goal_up_never_pays(short_m: float, waits_at_b: bool) -> None:
    """Up to the failure, a robot that runs for A and falls short earns more than one that stays
    away from it, be it at B already, where the next hit is certain."""
    totals = []
    for end in (2.0 - 0.8 - short_m, -2.0):
        start = -2.0 if waits_at_b else -0.5
        mdp, _ = begin("F[0.5,16] A and F[0.5,20] B", [[20, 40]], [start, 0.0])
        total = 0.0
        for _ in range(20):
            target = torch.tensor([[end, 0.0]])
            total += float(mdp.step(mdp.dynamics.toward(mdp.state, target))[1][0])
        assert mdp.failed[0] and mdp.missed[0, 0]
        totals.append(total)
        mdp.step(torch.zeros(1, 2))
        assert not mdp.failed[0]  # the failure is one step; the rest is another episode
    assert totals[0] > totals[1]


def test_a_window_broken_off_is_missed_at_once_and_a_kept_one_done_at_its_end() -> None:
    mdp, _ = begin("F[0.5,8] G[0,2] A", [[2], [2]], [1.4, 0.0])
    for t in range(1, 7):
        mdp.step(torch.tensor([[0.0, 0.0], [-1.0 if t == 4 else 0.0, 0.0]]))
        assert mdp.done[0, 0] == (t >= 6)
        assert mdp.missed[1, 0] == (t >= 4)


@pytest.mark.parametrize("name", ["linear_02", "unicycle_04", "quadrotor_03"])
def test_episodes_run_on_the_device_of_their_robots(name: str) -> None:
    """On the device "meta" torch computes shapes alone, but mixes devices as little as CUDA."""
    task, meta = load_task(name), torch.device("meta")
    groundings, generator = Groundings([task], Shape()), torch.Generator().manual_seed(0)
    chosen, times, _ = uniform(groundings, torch.zeros(6, dtype=torch.long), generator)
    parts = vars(groundings.schedule(chosen, times))
    schedule = Schedule(**{key: value.to(meta) for key, value in parts.items()})
    config = TgpoConfig(task.dynamics.name)
    with new_tensors_on(meta):
        model, mdp = make_model(config), AugmentedMdp(task.dynamics, W)
        observation = mdp.reset(task.start(6, generator).to(meta), schedule)
        for _ in range(3):
            observation, reward = mdp.step(model.actor(observation))
        assert {x.device for x in (observation, reward, mdp.failed, mdp.success)} == {meta}
    assert device_of(model) == meta


def test_observations_stay_bounded_far_away() -> None:
    for dynamics in ("linear", "unicycle", "quadrotor"):
        name = f"{dynamics}_00"
        task = load_task(name)
        groundings = Groundings([task], Shape())
        generator = torch.Generator().manual_seed(0)
        chosen, times, _ = uniform(groundings, torch.zeros(50, dtype=torch.long), generator)
        mdp = AugmentedMdp(task.dynamics, W)
        observation = mdp.reset(task.start(50, generator), groundings.schedule(chosen, times))
        assert observation.shape == (50, observation_dim(task.dynamics, Shape()))
        for _ in range(task.dynamics.steps):
            assert torch.isfinite(observation).all() and observation.abs().max() <= 3
            observation, reward = mdp.step(torch.ones(50, task.dynamics.action_dim))
            assert torch.isfinite(reward).all()
