"""Kinematics against scipy's rotations and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from core_cases import robot, tip
from scipy.spatial.transform import Rotation

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.kinematics import Chain, _rotation_vector, transform

# Six joints with a spherical wrist, offsets and an axis that is not a coordinate axis.
JOINTS = [
    ([0, 0, 0.2], [0, 0, 0], [0, 0, 1]),
    ([0, 0.1, 0], [0, 1.2, 0], [0, 1, 0]),
    ([0, -0.1, 0.4], [0.1, 0, 0.2], [0, 3, 0]),
    ([0, 0, 0.35], [0, -0.4, 0], [1, 0, 1]),
    ([0, 0.1, 0.05], [0.3, 0.2, -0.1], [0, 0, 2]),
    ([0.02, 0, 0.1], [0, 0, 0.5], [1, 0, 0]),
]
TOOL = ([0, 0.05, 0.12], [-0.7, 0.2, 1.1])


def matrix(xyz, rotation: Rotation) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3], out[:3, :3] = xyz, rotation.as_matrix()
    return out


def reference(q) -> np.ndarray:
    """Product of explicit matrices, with rotations by scipy."""
    frame = np.eye(4)
    for (xyz, rpy, axis), angle in zip(JOINTS, q, strict=True):
        frame = frame @ matrix(xyz, Rotation.from_euler("xyz", rpy))
        unit = np.array(axis) / np.linalg.norm(axis)
        frame = frame @ matrix([0, 0, 0], Rotation.from_rotvec(angle * unit))
    return frame @ matrix(TOOL[0], Rotation.from_euler("xyz", TOOL[1]))


@pytest.fixture(scope="module")
def chain() -> Chain:
    names = [f"j{i}" for i in range(6)]
    lines = "\n".join(
        f"    {name}: {{xyz: {xyz}, rpy: {rpy}, axis: {axis}}}"
        for name, (xyz, rpy, axis) in zip(names, JOINTS, strict=True)
    )
    body = Embodiment.parse(f"""
name: six
control_rate_hz: 10
streams:
  q: {{topic: q, type: sensor_msgs/msg/JointState, field: position, joints: {names}, rate_hz: 10,
      max_age_s: 1}}
commands:
  arm: {{topic: a, type: std_msgs/msg/Float64MultiArray, joints: {names}, lower: {[-4] * 6},
        upper: {[4] * 6}, max_velocity: {[1] * 6}}}
kinematics:
  joints:
{lines}
  tool: {{xyz: {TOOL[0]}, rpy: {TOOL[1]}}}
""")
    assert body.chain is not None and body.chain.joints == tuple(names)
    return body.chain


def test_transform_is_fixed_axis_roll_pitch_yaw():
    for rpy in np.random.default_rng(1).uniform(-3, 3, size=(20, 3)):
        wanted = matrix([1, 2, 3], Rotation.from_euler("xyz", rpy))
        np.testing.assert_allclose(transform(np.array([1, 2, 3]), rpy), wanted, atol=1e-12)


def test_forward_equals_the_product_of_matrices(chain):
    for q in np.random.default_rng(2).uniform(-3, 3, size=(30, 6)):
        position, rotation = chain.forward(q)
        wanted = reference(q)
        np.testing.assert_allclose(position, wanted[:3, 3], atol=1e-12)
        np.testing.assert_allclose(rotation, wanted[:3, :3], atol=1e-12)


def test_forward_of_the_planar_arm_is_school_geometry():
    for q in np.random.default_rng(3).uniform(-3, 3, size=(10, 2)):
        np.testing.assert_allclose(robot().chain.forward(q)[0], tip(q), atol=1e-12)


def test_jacobian_equals_finite_differences(chain):
    step = 1e-6
    for q in np.random.default_rng(4).uniform(-2, 2, size=(10, 6)):
        jacobian = chain.jacobian(q)
        assert jacobian.shape == (6, 6)
        for i in range(6):
            ahead, behind = (reference(q + sign * step * np.eye(6)[i]) for sign in (1, -1))
            linear = (ahead[:3, 3] - behind[:3, 3]) / (2 * step)
            turn = Rotation.from_matrix(ahead[:3, :3] @ behind[:3, :3].T).as_rotvec() / (2 * step)
            np.testing.assert_allclose(jacobian[:, i], [*linear, *turn], atol=1e-6)


def test_inverse_reaches_random_poses_near_its_start(chain):
    rng = np.random.default_rng(5)
    for _ in range(20):
        q = np.array([0.2, 0.4, 0.9, 0.5, -0.6, 0.3]) + rng.uniform(-0.3, 0.3, 6)
        start = q + rng.uniform(-0.15, 0.15, 6)
        kept = start.copy()
        wanted = reference(q)
        found = chain.inverse(wanted[:3, 3], wanted[:3, :3], start)
        reached = reference(found)
        np.testing.assert_allclose(reached[:3, 3], wanted[:3, 3], atol=1e-6)
        turn = Rotation.from_matrix(reached[:3, :3] @ wanted[:3, :3].T).magnitude()
        assert turn < 2e-6
        np.testing.assert_array_equal(start, kept)


def test_inverse_at_its_goal_returns_the_start_unchanged(chain):
    q = np.array([0.2, 0.4, 0.9, 0.5, -0.6, 0.3])
    np.testing.assert_array_equal(chain.inverse(*chain.forward(q), q), q)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0.6, -0.8, 0], [1, -2, 3], [-1, -1, 1]])
def test_rotation_vector_of_half_a_turn_has_the_right_axis(axis):
    unit = np.array(axis) / np.linalg.norm(axis)
    for angle in (np.pi, np.pi - 1e-9, np.pi - 1e-4, 1.0, 1e-3, 1e-9, 0.0):
        rotation = Rotation.from_rotvec(angle * unit).as_matrix()
        back = Rotation.from_rotvec(_rotation_vector(rotation))
        assert (back * Rotation.from_matrix(rotation).inv()).magnitude() < 1e-6


def test_unreachable_poses_are_refused_with_pose_and_error(chain):
    with pytest.raises(UserError, match=r"tool pose \[5.0, 0.0, 0.0\] m not reached.*error left"):
        chain.inverse(np.array([5.0, 0, 0]), np.eye(3), np.zeros(6))
    with pytest.raises(UserError, match="not reached"):
        chain.inverse(np.array([np.nan, 0, 0]), np.eye(3), np.full(6, 0.3))
