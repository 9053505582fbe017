"""Uniform draws and the chain against the distributions that they are to have."""

from __future__ import annotations

import pytest
import torch
from tgpo_cases import make_task

from embodied_rl.core.errors import UserError
from embodied_rl.policies.tgpo import allocate
from embodied_rl.policies.tgpo.allocate import AllocationSettings, metropolis_hastings, uniform
from embodied_rl.policies.tgpo.groundings import Groundings, Shape

CHAINS = 20_000


def end_of_chains(groundings, value, temperature, steps: int = 60):
    generator = torch.Generator().manual_seed(2)
    task = torch.zeros(CHAINS, dtype=torch.long)
    chosen, times, _ = uniform(groundings, task, generator)
    settings = AllocationSettings(chain_steps=steps)
    return metropolis_hastings(groundings, chosen, times, value, temperature, settings, generator)


def test_the_chain_reaches_its_target_on_a_grid() -> None:
    """Total variation to exp(V / eta) on 8 x 8 assignments; clipped moves would fail here."""
    groundings = Groundings([make_task("F[0.5,4] A and F[0.5,4] B")], Shape(2, 1, 2))

    def value(chosen, times):
        first, second = times[:, 0].float(), times[:, 1].float()
        return 0.9 * (first - 1) - 0.7 * second + 1.5 * (first == 8) * (second == 1)

    chosen, times, found, accepted = end_of_chains(groundings, value, 2.0, steps=100)
    assert torch.allclose(found, value(chosen, times))
    assert 0.2 < accepted < 0.9
    grid = torch.cartesian_prod(torch.arange(1, 9), torch.arange(1, 9))
    target = (value(None, grid) / 2.0).softmax(dim=0)
    cell = (times[:, 0] - 1) * 8 + times[:, 1] - 1
    share = torch.bincount(cell, minlength=64) / CHAINS
    assert 0.5 * float((share - target).abs().sum()) < 0.05


def test_alternatives_are_weighed_by_their_assignments() -> None:
    """Boxes of 4 and 12 steps, V the same everywhere: the larger one is three times as likely."""
    groundings = Groundings([make_task("F[0.5,2] A or F[0.5,6] B")], Shape(2, 1, 1))
    chosen, times, *_ = end_of_chains(groundings, lambda c, t: torch.zeros(len(c)), 1.0)
    share = torch.bincount(chosen * 12 + times[:, 0] - 1, minlength=24) / CHAINS
    target = torch.cat([torch.full((4,), 1 / 16), torch.zeros(8), torch.full((12,), 1 / 16)])
    assert 0.5 * float((share - target).abs().sum()) < 0.05


def test_infeasible_assignments_are_never_reached() -> None:
    formula = "G[0.5,2] F[0,1] A and F[0,3] B"
    groundings = Groundings([make_task(formula)], Shape(4, 1, 4))
    chosen, times, *_ = end_of_chains(groundings, lambda c, t: -t.sum(dim=1).float(), 1.0, steps=15)
    assert groundings.feasible(chosen, times).all()


def test_uniform_draws_are_uniform_over_the_feasible() -> None:
    groundings = Groundings([make_task("F[0,1] (A and F[0,1] B)")], Shape(2, 1, 2))
    generator = torch.Generator().manual_seed(0)
    chosen, times, refused = uniform(groundings, torch.zeros(9000, dtype=torch.long), generator)
    assert groundings.feasible(chosen, times).all()
    counts = torch.bincount(times[:, 0] * 3 + times[:, 1], minlength=9)
    assert counts[:3].sum() == 0  # the first time is a step that is to be judged, so not 0
    assert (counts[3:] - 1500).abs().max() < 150
    assert 0.28 < refused < 0.38  # a third of the box


def test_a_task_without_feasible_times_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocate, "_ROUNDS", 3)
    groundings = Groundings([make_task("F[0.5,4] A", name="hopeless")], Shape(1, 1, 1))
    monkeypatch.setattr(groundings, "feasible", lambda c, t: torch.zeros(len(c), dtype=torch.bool))
    with pytest.raises(UserError, match="task hopeless: no feasible times among 3 draws"):
        uniform(groundings, torch.zeros(4, dtype=torch.long), torch.Generator())


@pytest.mark.parametrize(
    ("key", "value"), [("guided", 0.8), ("warmup", -1), ("swap", 0.4), ("temperature", 0.0)]
)
def test_bad_settings(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        AllocationSettings(**{key: value})
