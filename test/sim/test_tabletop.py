"""The world: kinematics against MuJoCo, servo tracking, both visuals, where files are found."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from embodied_rl.core.errors import UserError
from embodied_rl.sim.registry import make_simulator, world_embodiment
from embodied_rl.sim.worlds.base import package_folder, sim_worlds_file
from embodied_rl.sim.worlds.tabletop import TABLETOP, TOOL_DOWN, TOOL_SITE


@pytest.fixture(scope="module")
def sim():
    return make_simulator(noise=0.0)


def test_chain_equals_mujoco(sim):
    chain, data = sim.embodiment.chain, mujoco.MjData(sim.model)
    rng = np.random.default_rng(0)
    addresses = [sim.model.joint(name).qposadr[0] for name in chain.joints]
    for _ in range(20):
        q = rng.uniform(-3, 3, 6)
        data.qpos[addresses] = q
        mujoco.mj_kinematics(sim.model, data)
        site = data.site(TOOL_SITE)
        position, rotation = chain.forward(q)
        np.testing.assert_allclose(position, site.xpos, atol=1e-6)
        np.testing.assert_allclose(rotation, site.xmat.reshape(3, 3), atol=1e-6)


def test_home_branch_points_down_over_the_whole_workspace(sim):
    chain = sim.embodiment.chain
    for x in (0.33, 0.5, 0.62):
        for y in (-0.25, 0.0, 0.25):
            for z in (0.02, 0.2):
                q = chain.inverse(np.array([x, y, z]), TOOL_DOWN, TABLETOP.home)
                assert np.all(np.abs(q - TABLETOP.home) < 1.3)  # no elbow or wrist flip


def test_arm_follows_a_moving_target_like_the_real_one(sim):
    """The delay behind a ramp of 0.5 rad/s stays below 50 ms, and a held target is reached."""
    sim.reset(1)
    start = sim.command
    target = start.copy()
    for _ in range(60):
        target[:6] += 0.5 * sim.step_ns / 1e9
        sim.step(target)
    behind = target[:6] - sim.data.qpos[:6]
    assert np.all(behind > 0) and np.all(behind / 0.5 < 0.05)
    for _ in range(100):
        sim.step(target)
    np.testing.assert_allclose(sim.data.qpos[:6], target[:6], atol=2e-4)


def test_visuals_do_not_change_physics():
    states = []
    for visuals in ("primitives", "mesh"):
        sim = make_simulator(visuals=visuals)
        sim.reset(4)
        target = sim.command
        for step in range(30):
            target[:6] += 0.002
            target[6] = 0.3 if step > 10 else 0.0
            sim.step(target)
        states.append(np.concatenate([sim.data.qpos, sim.data.qvel]))
    np.testing.assert_array_equal(*states)


def test_actuators_agree_with_the_embodiment():
    embodiment = world_embodiment("tabletop")
    assert set(embodiment.action_names) == set(TABLETOP.joints)
    assert set(embodiment.streams) == set(TABLETOP.sources)


def test_missing_files_and_packages_are_named():
    with pytest.raises(UserError, match="sim_worlds/nowhere.yaml: not found"):
        sim_worlds_file("nowhere.yaml")
    with pytest.raises(UserError, match="'no_such_package' is not installed: get it"):
        package_folder("no_such_package", "get it")


def test_files_are_found_where_colcon_installs_them(tmp_path, monkeypatch):
    installed = tmp_path / "share" / "embodied_rl" / "sim_worlds" / "other.yaml"
    installed.parent.mkdir(parents=True)
    installed.write_text("name: other\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert sim_worlds_file("other.yaml") == installed
