"""The arm against the kinematics of ``core``, MuJoCo's model and the command gate's limiter."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from embodied_rl.core.commands import CommandLimiter
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk
from embodied_rl.sim.dynamics.arm import Arm
from embodied_rl.sim.worlds.base import sim_worlds_file
from embodied_rl.sim.worlds.reach import REACH as WORLD
from embodied_rl.sim.worlds.tabletop import HOME, TABLETOP

REACH = Embodiment.load(sim_worlds_file(WORLD.embodiment_file))
WHOLE = Embodiment.load(sim_worlds_file(TABLETOP.embodiment_file))
STEP_NS = 50_000_000


def anywhere(count: int, seed: int = 0) -> np.ndarray:
    """Joint angles ``(count, 6)`` from all of the limits of the file."""
    lower, upper, _ = REACH.limits()
    return np.random.default_rng(seed).uniform(lower[:6], upper[:6], (count, 6))


def test_tool_and_jacobian_equal_the_kinematics_of_core() -> None:
    q = np.random.default_rng(1).uniform(-3, 3, (300, 6))
    arm = Arm().kinematics
    tool, jacobian = arm.jacobian(torch.tensor(q, dtype=torch.float32))
    assert torch.allclose(tool, arm.position(torch.tensor(q, dtype=torch.float32)), atol=1e-5)
    assert np.abs(tool.numpy() - [REACH.chain.forward(row)[0] for row in q]).max() < 1e-5
    assert np.abs(jacobian.numpy() - [REACH.chain.jacobian(row)[:3] for row in q]).max() < 1e-5


def test_gradients_are_the_jacobian() -> None:
    q = torch.tensor(anywhere(20), dtype=torch.float32, requires_grad=True)
    arm = Arm().kinematics
    jacobian = arm.jacobian(q.detach())[1]
    for axis in range(3):
        found = torch.autograd.grad(arm.position(q)[:, axis].sum(), q)[0]
        assert torch.allclose(found, jacobian[:, axis], atol=1e-5)


def test_tool_is_where_mujoco_has_it() -> None:
    model = TABLETOP.build("primitives").compile()
    data = mujoco.MjData(model)
    names = [TABLETOP.joints[joint].joint for joint in REACH.chain.joints]
    places = [model.jnt_qposadr[model.joint(name).id] for name in names]
    site = model.site(TABLETOP.tool_site).id
    for q in anywhere(50):
        data.qpos[places] = q
        mujoco.mj_kinematics(model, data)
        found = Arm().position(torch.tensor(q, dtype=torch.float32)).numpy()
        assert np.abs(found - data.site_xpos[site]).max() < 1e-3


def test_a_step_is_what_the_limiter_lets_through() -> None:
    """From anywhere, workspace left or not: the trainer's arm and the robot's agree."""
    arm, rng = Arm(), np.random.default_rng(2)
    q = anywhere(400)
    action = rng.uniform(-1.3, 1.3, q.shape)
    tensors = (torch.tensor(x, dtype=torch.float32) for x in (q, action))
    found = arm.step(*tensors).numpy()
    held = 0
    for row, speed, after in zip(q, np.clip(action, -1, 1), found):
        limiter = CommandLimiter(REACH)
        limiter.reset(0, np.append(row, 0.0))
        target = np.append(row + 0.05 * speed, 0.0)[None]
        chunk, report = limiter.limit(ActionChunk(0, STEP_NS, target))
        held += bool(report.workspace)
        assert np.abs(chunk.values[0, :6] - after).max() < 1e-5
    assert 50 < held < 350


def test_the_file_is_the_tabletop_robot_within_its_limits() -> None:
    for key in ("origins", "axes", "tool"):
        assert np.array_equal(getattr(REACH.chain, key), getattr(WHOLE.chain, key))
    assert REACH.action_names == WHOLE.action_names
    (low, high, fast), (lowest, highest, fastest) = REACH.limits(), WHOLE.limits()
    assert (low >= lowest).all() and (high <= highest).all() and (fast <= fastest).all()
    assert (REACH.workspace.lower >= WHOLE.workspace.lower).all()
    assert (REACH.workspace.upper <= WHOLE.workspace.upper).all()
    assert REACH.period_ns == round(Arm.dt_s * 1e9) == STEP_NS
    assert REACH.workspace.contains(REACH.chain.forward(HOME)[0])


def test_a_robot_without_a_workspace_is_refused() -> None:
    text = sim_worlds_file(WORLD.embodiment_file).read_text(encoding="utf-8")
    begin, end = text.index("# The box"), text.index("kinematics:")
    with pytest.raises(UserError, match="other.yaml: expected kinematics, a workspace and"):
        Arm(Embodiment.parse(text[:begin] + text[end:], "other.yaml"))
