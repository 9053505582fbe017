"""The map of values over two times: symmetric under the names of the goals, and true episodes."""

from __future__ import annotations

import pytest
import torch
from tgpo_cases import make_task

from embodied_rl.core.errors import UserError
from embodied_rl.policies.tgpo.allocate import AllocationSettings
from embodied_rl.policies.tgpo.config import TgpoConfig
from embodied_rl.policies.tgpo.evaluation import value_map
from embodied_rl.policies.tgpo.runtime import TgpoPolicy, make_model

STATE = torch.tensor([[0.2, -0.3]])


@pytest.fixture
def policy() -> TgpoPolicy:
    torch.manual_seed(3)
    config = TgpoConfig("linear", width=8)
    return TgpoPolicy("random", config, make_model(config), AllocationSettings())


def test_exchanging_the_goals_transposes_the_map(policy: TgpoPolicy) -> None:
    """The network sees regions in the order of their times, never names."""
    one = value_map(policy, make_task("F[1,20] A and F[3,32] B and G[0,32] not O"), STATE)
    other = value_map(policy, make_task("F[3,32] B and F[1,20] A and G[0,32] not O"), STATE)
    ties = torch.eye(65, dtype=torch.bool)  # at equal times the order is that of the formula
    for ours, theirs in zip(one, other):
        same = torch.isclose(ours.float(), theirs.T.float(), equal_nan=True)
        assert (same | ties).all()
    known = torch.isfinite(one[0])
    assert known[2:41, 6:65].all() and int(known.sum()) == 39 * 59
    assert not one[1][~known].any()


def test_met_pairs_are_those_that_episodes_meet(policy: TgpoPolicy) -> None:
    """A robot that drifts through A meets the formula at any times: they are only its plan."""
    with torch.no_grad():
        policy.model.actor[-1].weight.zero_()
        policy.model.actor[-1].bias.copy_(torch.tensor([0.2, 0.0]))
    _, met = value_map(policy, make_task("F[0.5,32] A and F[0.5,31] G[0,1] A"), STATE)
    x = 0.2 + 0.1 * torch.arange(65)
    inside = (x - 2.0).square() + 0.3**2 < 0.8**2
    feasible = torch.zeros(65, 65, dtype=torch.bool)
    feasible[1:65, 1:63] = True
    assert inside.any() and torch.equal(met, feasible)


def test_tasks_of_other_sizes_are_refused(policy: TgpoPolicy) -> None:
    for formula, seen in (("F[1,2] A", "1 with 1"), ("F[1,2] A or F[1,2] B", "2 with 2")):
        with pytest.raises(UserError, match=f"one alternative with two times, saw {seen}"):
            value_map(policy, make_task(formula), STATE)
