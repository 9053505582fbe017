"""Adapters: what a robot is told so that it does what its twin would."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk
from embodied_rl.policies.tgpo.adapters import JointTargets, make_adapter
from embodied_rl.sim.dynamics.arm import EMBODIMENT_FILE
from embodied_rl.sim.worlds.base import sim_worlds_file

DT_S = 0.05
START = np.array([-0.2, -1.5, 1.7, -1.8, -1.5, -0.2])


@pytest.fixture(scope="module")
def reach() -> Embodiment:
    return Embodiment.load(sim_worlds_file(EMBODIMENT_FILE))


def adapter_at(embodiment: Embodiment, dt_s: float = DT_S, gripper: float = 0.3) -> JointTargets:
    adapter = make_adapter("arm", dt_s, embodiment)
    adapter.state({"arm_position": START, "gripper_position": np.array([gripper])})
    return adapter


def test_joints_that_trail_their_targets_move_as_fast_as_the_twin(reach) -> None:
    """A servo with a time constant of 30 ms; all joints asked for 0.5 rad/s."""
    adapter, joints, target = adapter_at(reach), START.copy(), START.copy()
    places = []
    for _ in range(20):
        before, target = target, adapter.targets(joints, joints + 0.5 * DT_S)[0, :6]
        for step in range(50):
            glide = before + (target - before) * (step + 1) / 50
            joints = joints + (glide - joints) * 0.001 / 0.030
        places.append(joints)
    speeds = np.diff(places, axis=0)[5:] / DT_S
    np.testing.assert_allclose(speeds, 0.5, rtol=0.02)


def test_a_step_begins_where_the_limits_let_the_last_one_end(reach) -> None:
    adapter = adapter_at(reach)
    chunk = adapter.targets(START, START + 0.05)
    np.testing.assert_allclose(chunk, [[*(START + 0.05), 0.3]])
    held = np.append(START + 0.02, 0.3)
    adapter.executed(ActionChunk(0, reach.period_ns, held[None]))
    now = START + 0.01
    np.testing.assert_allclose(adapter.targets(now, now + 0.05)[0, :6], START + 0.07)
    np.testing.assert_allclose(adapter.rest(now)[0, :6], START + 0.07)


def test_a_joint_that_is_stuck_is_not_pulled_ever_harder(reach) -> None:
    adapter = adapter_at(reach)
    for _ in range(50):
        target = adapter.targets(START, START + 0.05)[0, :6]
    np.testing.assert_allclose(target, START + adapter.most_lead_rad)


def test_targets_stay_within_the_limits(reach) -> None:
    adapter = adapter_at(reach, gripper=-0.002)
    lower, upper, _ = reach.limits()
    low = lower[:6] + 0.01
    for _ in range(3):
        target = adapter.targets(low, low - 0.05)[0]
    np.testing.assert_array_equal(target, lower)


def test_an_episode_forgets_what_was_sent_in_the_last(reach) -> None:
    adapter = adapter_at(reach)
    adapter.targets(START, START + 0.05)
    adapter.reset()
    adapter.state({"arm_position": START, "gripper_position": np.array([0.5])})
    np.testing.assert_allclose(adapter.rest(START), [[*START, 0.5]])


def test_a_step_of_several_control_ticks_is_divided_evenly(reach) -> None:
    chunk = adapter_at(reach, dt_s=0.15).targets(START, START + 0.09)
    np.testing.assert_allclose(chunk[:, 0], START[0] + np.array([0.03, 0.06, 0.09]))
    np.testing.assert_array_equal(chunk[:, 6], 0.3)


def test_another_robot_is_refused(reach) -> None:
    text = sim_worlds_file(EMBODIMENT_FILE).read_text(encoding="utf-8")
    begin, middle, end = (text.index(key) for key in ("  arm:\n", "  gripper:\n", "# The box"))
    swapped = text[:begin] + text[middle:end] + text[begin:middle] + text[end:]
    with pytest.raises(UserError, match="expects .'shoulder_pan_joint'.*, saw .'robotiq"):
        make_adapter("arm", DT_S, Embodiment.parse(swapped, "other.yaml"))
    with pytest.raises(UserError, match="whole number of control ticks"):
        make_adapter("arm", 0.03, reach)
