"""Task files, the generator, and witnesses: every task that ships can be satisfied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from witness import find_witness, follow, interpolated

from embodied_rl.core.errors import UserError
from embodied_rl.sim.dynamics.registry import make_dynamics
from embodied_rl.sim.stl_tasks.generate import FAMILIES, generate
from embodied_rl.sim.stl_tasks.task import load_task, read_task, task_from, write_task
from embodied_rl.sim.worlds.base import sim_worlds_file
from embodied_rl.stl import formula as fm
from embodied_rl.stl import robustness as reference
from embodied_rl.training.cem import CemSettings, maximise

SHIPPED = sorted(p.stem for p in sim_worlds_file("stl_tasks/linear_00.yaml").parent.glob("*.yaml"))


def plain() -> dict:
    return {
        "name": "case", "dynamics": "linear", "layers": "two_layer",
        "formula": "F[1,20] A and G[0,32] not O",
        "regions": {"A": {"centre": [3.0, 0.0], "radius": 0.6},
                    "O": {"centre": [0.0, 0.0], "radius": 1.0}},
        "start": {"low": [-3.5, -0.5], "high": [-2.5, 0.5]},
    }  # fmt: skip


def test_robustness_is_that_of_the_reference_semantics() -> None:
    task = task_from(plain(), "case")
    positions = torch.cumsum(torch.randn(6, 65, 2, generator=torch.Generator().manual_seed(1)), 1)
    found = task.robustness(positions).numpy()
    for trace, value in zip(positions.double().numpy(), found):
        signals = {
            name: region.radius - np.hypot(*(trace - region.centre).T)
            for name, region in task.regions.items()
        }
        expected = reference.robustness(task.formula, signals)[0]
        assert abs(value - expected) < 1e-12


def test_a_short_trace_is_refused() -> None:
    with pytest.raises(UserError, match="decided after 65 samples, saw a trace of 64"):
        task_from(plain(), "case").robustness(torch.zeros(1, 64, 2))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("formula", "F[1,20] B", "formula: expected names among the regions .'A', 'O'., saw .'B'."),
        ("formula", "F[1,40] A", "horizon of at most 32 s, saw 40 s"),
        ("dynamics", "boat", "dynamics: expected one of"),
        (
            "start",
            {"low": [0.0, 0.0], "high": [-1.0, 0.0]},
            "start.high: expected values not below",
        ),
        ("start", {"low": [0.0], "high": [1.0, 0.0]}, "start.low: expected 2 numbers, saw 1"),
        ("regions", {"A": {"centre": [0.0, 0.0], "radius": -1.0}}, "regions.A.radius"),
        ("layer", "x", "layer: unknown key; did you mean 'layers'"),
    ],
)
def test_bad_tasks_are_named(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_from({**plain(), key: value}, "case")


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("robot", ["linear", "quadrotor", "arm"])
def test_generated_tasks_are_sound(robot: str, family: str, tmp_path: Path) -> None:
    dynamics = make_dynamics(robot)
    for seed in range(15):
        task = generate("case", dynamics, family, seed)
        assert fm.horizon(task.formula) <= dynamics.steps
        generator = torch.Generator().manual_seed(seed)
        spots = dynamics.position(task.start(64, generator))
        for name, region in task.regions.items():
            if name.startswith("O"):
                assert (region.margin(spots) < 0).all()
        assert generate("case", dynamics, family, seed).as_mapping() == task.as_mapping()
        write_task(task, tmp_path / "case.yaml")
        again = read_task(tmp_path / "case.yaml")
        assert (again.formula, again.regions) == (task.formula, task.regions)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tasks_have_a_witness(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.witness is not None and task.witness.margin_m > 0


def test_shipped_counts() -> None:
    for robot, count in (("linear", 10), ("unicycle", 10), ("quadrotor", 5), ("arm", 5)):
        assert sum(name.startswith(robot) for name in SHIPPED) == count


def test_witness_of_an_easy_task_and_none_of_an_impossible_one() -> None:
    small = CemSettings(population=64, elite=8, iterations=15)
    found = find_witness(task_from(plain(), "case"), settings=small)
    assert found is not None and found.margin_m > 0
    far = {**plain(), "formula": "F[1,2] A and G[0,32] not O"}
    assert find_witness(task_from(far, "case"), settings=small) is None


def test_following_a_path() -> None:
    dynamics = make_dynamics("linear")
    knots = torch.tensor([[[0.0, 0.0], [6.0, 0.0], [6.0, 6.0]]])
    path = interpolated(knots, 49)
    assert torch.allclose(path[0, 24], torch.tensor([6.0, 0.0]))
    trace = follow(dynamics, torch.zeros(1, 2), path)
    assert trace.shape == (1, 50, 2)
    assert (trace[0, 1:] - path[0]).norm(dim=-1).max() < 0.3


def test_cross_entropy_finds_a_known_maximum() -> None:
    goal = torch.tensor([1.5, -2.0, 0.3])
    best, score = maximise(
        lambda x: -(x - goal).square().sum(-1), torch.zeros(3), torch.full((3,), 2.0),
        CemSettings(population=100, elite=10, iterations=30), torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert score > -1e-2 and torch.allclose(best, goal, atol=0.1)
    with pytest.raises(ValueError, match="elite: expected 1 to population = 4, saw 5"):
        CemSettings(population=4, elite=5)
