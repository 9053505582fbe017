"""Darkroom against a robot written out step by step, and its split of goals."""

from __future__ import annotations

import pytest
import torch

from embodied_rl.core.errors import UserError
from embodied_rl.sim.navigation.base import HELD_OUT, TRAIN
from embodied_rl.sim.navigation.darkroom import Darkroom


class Twin:
    """One robot in plain Python."""

    def __init__(self, goal: int) -> None:
        self.goal, self.found = (goal % 6, goal // 6), False
        self.begin()

    def begin(self) -> None:
        self.x = self.y = self.time = 0
        self.arrival: int | None = None

    def step(self, action: int) -> tuple[float, bool, bool, float, bool]:
        if action == 1:
            self.x = min(self.x + 1, 5)
        elif action == 2:
            self.x = max(self.x - 1, 0)
        elif action == 3:
            self.y = min(self.y + 1, 5)
        elif action == 4:
            self.y = max(self.y - 1, 0)
        self.time += 1
        reward = float((self.x, self.y) == self.goal)
        if reward and self.arrival is None:
            self.arrival = self.time
        success, familiar = self.arrival is not None, self.found
        least = max(1, sum(self.goal))
        efficiency = least / max(least, self.arrival) if self.arrival else 0.0
        ended = self.time == 25
        if ended:
            self.found = self.found or success
            self.begin()
        return reward, ended, success, efficiency, familiar


def test_a_trial_equals_the_twins() -> None:
    world, generator = Darkroom(), torch.Generator().manual_seed(0)
    goals = torch.arange(36)
    world.reset(goals, 75, generator)
    twins = [Twin(int(goal)) for goal in goals]
    for _ in range(75):
        action = torch.randint(5, (36,), generator=generator)
        found = world.step(action)
        rows = [twin.step(int(a)) for twin, a in zip(twins, action)]
        reward, ended, success, efficiency, familiar = (torch.tensor(c) for c in zip(*rows))
        assert torch.equal(found.reward, reward)
        assert torch.equal(found.ended, ended)
        assert torch.equal(found.success, success)
        assert torch.equal(found.efficiency, efficiency)
        assert torch.equal(found.familiar, familiar)
        seen = found.view.features.view(36, 2, 6).argmax(dim=-1)
        assert seen.tolist() == [[twin.x, twin.y] for twin in twins]
    assert familiar.any() and not familiar.all()


def test_goals_are_split_once() -> None:
    train, held_out = (Darkroom().worlds(split) for split in (TRAIN, HELD_OUT))
    assert (len(train), len(held_out)) == (28, 8)
    assert sorted(train.tolist() + held_out.tolist()) == list(range(36))
    assert torch.equal(held_out, Darkroom().worlds(HELD_OUT))
    with pytest.raises(UserError, match="unknown split 'test'; valid: held_out, train"):
        Darkroom().worlds("test")


def test_who_knows_the_goal_earns_the_best_return() -> None:
    """The mean over all goals is the ceiling that the specification of the task states: 21."""
    world, goals = Darkroom(), torch.arange(36)
    world.reset(goals, 25, torch.Generator())
    earned = torch.zeros(36)
    for _ in range(25):
        place = world.place()
        goal = torch.stack([goals % 6, goals // 6], dim=-1)
        assert torch.equal(place.targets.nonzero()[:, 1:].flip(-1), goal)
        found = world.step(world.expert_action())
        earned += found.reward
    assert torch.equal(earned, world.best_return(goals).float())
    assert found.success.all() and (found.efficiency == 1.0).all()
    assert abs(float(earned.mean()) - 21.0) < 0.05
