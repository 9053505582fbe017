"""Batched dynamics against one-robot numpy twins, and what their feedback laws achieve."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import twins

from embodied_rl.core.errors import UserError
from embodied_rl.sim.dynamics.registry import DYNAMICS, make_dynamics
from embodied_rl.sim.worlds.tabletop import HOME

TWINS = {
    "linear": twins.linear, "unicycle": twins.unicycle, "quadrotor": twins.quadrotor,
    "arm": twins.arm,
}  # fmt: skip
ANGLES = {"linear": [], "unicycle": [2], "quadrotor": [8], "arm": []}  # that are wrapped
START = {  # middle and half side of the box in which the robots begin
    "linear": ([0.0, 0.0], 2.0),
    "unicycle": ([0.0, 0.0], 2.0),
    "quadrotor": ([0.0, 0.0, 2.0], 2.0),
    "arm": (HOME.tolist(), 0.3),
}
TARGET = {
    "linear": [1.0, -1.5],
    "unicycle": [1.0, -1.5],
    "quadrotor": [1.0, -1.5, 2.5],
    "arm": [0.62, -0.2, 0.35],
}


def start(name: str, count: int) -> torch.Tensor:
    dynamics = make_dynamics(name)
    generator = torch.Generator().manual_seed(3)
    middle, half = START[name]
    spread = 2.0 * torch.rand(count, dynamics.start_dim, generator=generator) - 1.0
    return dynamics.start(torch.tensor(middle) + half * spread, generator)


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_a_thousand_random_steps_equal_the_twin(name: str) -> None:
    dynamics, twin = make_dynamics(name), TWINS[name]
    rng = np.random.default_rng(7)
    state = start(name, 20)
    for _ in range(50):  # 50 steps of 20 robots, the twin re-started at each: no chaos to add up
        action = rng.uniform(-1.3, 1.3, (20, dynamics.action_dim)).astype(np.float32)
        before = state.numpy().astype(np.float64)
        state = dynamics.step(state, torch.from_numpy(action))
        expected = np.array([twin(s, a) for s, a in zip(before, action.astype(np.float64))])
        difference = state.numpy() - expected
        for place in ANGLES[name]:
            turns = difference[:, place]
            difference[:, place] = np.arctan2(np.sin(turns), np.cos(turns))
        assert np.abs(difference).max() <= 1e-5


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_features_have_their_size_and_scale(name: str) -> None:
    dynamics = make_dynamics(name)
    found = dynamics.features(start(name, 50))
    assert found.shape == (50, dynamics.feature_dim)
    assert found.abs().max() <= 1.0


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_gradients_flow_to_the_actions(name: str) -> None:
    dynamics = make_dynamics(name)
    actions = torch.full((30, 4, dynamics.action_dim), 0.1, requires_grad=True)
    state = start(name, 4)
    for action in actions:
        state = dynamics.step(state, action)
    dynamics.position(state).sum().backward()
    assert torch.isfinite(actions.grad).all()
    assert (actions.grad[0].abs().sum(dim=-1) > 0).all()


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_robots_are_computed_where_their_states_are(name: str) -> None:
    """The device ``meta`` refuses to mix with any other, as a GPU would, and computes nothing."""
    dynamics, state = make_dynamics(name), start(name, 4).to("meta")
    action = torch.zeros(4, dynamics.action_dim, device="meta")
    position = dynamics.position(dynamics.step(state, action))
    found = [position, dynamics.features(state), dynamics.toward(state, position)]
    assert [x.shape[-1] for x in found] == [
        dynamics.position_dim, dynamics.feature_dim, dynamics.action_dim
    ]  # fmt: skip
    assert all(x.is_meta for x in found)


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_the_feedback_law_arrives(name: str) -> None:
    dynamics = make_dynamics(name)
    state = start(name, 30)
    target = torch.tensor(TARGET[name]).expand(30, -1)
    for _ in range(dynamics.steps):
        state = dynamics.step(state, dynamics.toward(state, target))
    missed = (dynamics.position(state) - target).norm(dim=-1)
    assert missed.max() < 0.08 * dynamics.arena_m


def test_quadrotor_hovers_and_falls() -> None:
    dynamics = make_dynamics("quadrotor")
    state = start("quadrotor", 1)
    hover = dynamics.step(state, torch.zeros(1, 4))
    assert torch.allclose(hover, state, atol=1e-6)
    fallen = dynamics.step(state, torch.tensor([[-1.0, 0.0, 0.0, 0.0]]))
    assert math.isclose(float(fallen[0, 5]), -9.81 * 0.05, rel_tol=1e-5)


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="unknown dynamics 'boat'; valid: arm, linear"):
        make_dynamics("boat")
