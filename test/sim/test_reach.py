"""The world of reach tasks: where the arm begins, how it follows, and how its tasks judge."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from embodied_rl.core.errors import UserError
from embodied_rl.sim.dynamics.arm import Arm
from embodied_rl.sim.registry import make_simulator, world_embodiment
from embodied_rl.sim.stl_tasks.task import load_task
from embodied_rl.sim.tasks.formula import AVOIDED_RGBA
from embodied_rl.stl import robustness as reference

TASK = "arm_00"
DT_S = 0.05


@pytest.fixture(scope="module")
def sim():
    made = make_simulator("reach", TASK, noise=0.0)
    yield made
    made.close()


def glide(sim, rate: np.ndarray, seconds: float) -> None:
    """All joints at constant velocities (rad/s), the gripper still."""
    command = sim.command
    for _ in range(round(seconds * 1e9 / sim.step_ns)):
        command[:6] += rate * sim.step_ns / 1e9
        sim.step(command)


def test_episodes_begin_in_the_start_box_of_the_task(sim) -> None:
    task, starts = load_task(TASK), []
    for seed in (0, 1, 0):
        sim.reset(seed)
        starts.append(sim.command[:6])
        np.testing.assert_array_equal(starts[-1], sim.task.joints)
        np.testing.assert_allclose(sim.read()["arm_position"].value, starts[-1], atol=1e-9)
        assert (starts[-1] >= task.start_low).all() and (starts[-1] <= task.start_high).all()
        tool = world_embodiment("reach").chain.forward(starts[-1])[0]
        np.testing.assert_allclose(sim.task.positions[0], tool, atol=1e-3)
    np.testing.assert_array_equal(starts[0], starts[2])
    assert np.abs(starts[0] - starts[1]).max() > 0.01


def test_the_servos_follow_at_the_speed_of_the_twin_a_little_late(sim) -> None:
    """The twin's joints are where they are told to be; the robot's are less than a step behind."""
    rate = np.array([0.8, -0.5, 0.6, 0.9, -0.7, 1.0])
    sim.reset(3)
    glide(sim, rate, 0.5)
    behind = sim.command[:6] - sim.read()["arm_position"].value
    late_s = behind / rate
    assert (late_s > 0.005).all() and (late_s < DT_S).all()
    before = sim.read()["arm_position"].value
    glide(sim, rate, 0.2)
    speed = (sim.read()["arm_position"].value - before) / 0.2
    np.testing.assert_allclose(speed, rate, rtol=0.03)


def test_the_verdict_is_the_robustness_of_the_true_trace(sim) -> None:
    task, arm = load_task(TASK), Arm()
    rates = np.random.default_rng(5).uniform(-0.4, 0.4, (64, 6))
    sim.reset(5)
    joints = [sim.read()["arm_position"].value]
    for step, rate in enumerate(rates, start=1):
        assert not sim.outcome().done
        glide(sim, rate, DT_S)
        joints.append(sim.read()["arm_position"].value)
        assert len(sim.task.positions) == step + 1
    outcome, trace = sim.outcome(), np.array(sim.task.positions)
    tools = arm.position(torch.tensor(np.array(joints), dtype=torch.float32)).numpy()
    assert np.abs(trace - tools).max() < 3e-3  # the site is 2 ms behind the joints
    signals = {
        name: region.radius - np.linalg.norm(trace - region.centre, axis=1)
        for name, region in task.regions.items()
    }
    expected = reference.robustness(task.formula, signals)[0]
    assert outcome.done and outcome.success == (expected > 0)
    assert outcome.reason == f"robustness {expected:+.3f} m"
    assert outcome.score == pytest.approx(np.clip(0.5 + expected / 0.2, 0, 1))
    assert sim.task.time_limit_s == pytest.approx(64 * DT_S)


def test_regions_are_drawn_and_touch_nothing(sim) -> None:
    model = sim.model
    for name, region in load_task(TASK).regions.items():
        body = model.body(sim.task.instances[name])
        geom = model.geom(int(body.geomadr[0]))
        assert geom.type[0] == mujoco.mjtGeom.mjGEOM_SPHERE and not geom.contype[0]
        assert geom.size[0] == pytest.approx(region.radius) and not geom.conaffinity[0]
        np.testing.assert_allclose(body.pos, region.centre)
        avoided = np.allclose(geom.rgba[:3], AVOIDED_RGBA[:3])
        assert avoided == name.startswith("O")


def test_tasks_of_other_robots_are_refused() -> None:
    with pytest.raises(UserError, match="world 'reach' expects dynamics arm, saw linear"):
        make_simulator("reach", "linear_00")
    with pytest.raises(UserError, match="world 'arena' expects dynamics unicycle, saw arm"):
        make_simulator("arena", TASK)
