"""Adapters: what a robot is told so that it does what its twin would."""

from __future__ import annotations

import numpy as np
import pytest
from tgpo_cases import rover

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk
from embodied_rl.policies.registry import load_policy
from embodied_rl.policies.tgpo.adapters import JointTargets, make_adapter
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.worlds.base import sim_worlds_file
from embodied_rl.sim.worlds.reach import REACH as WORLD

DT_S = 0.05
START = np.array([-0.2, -1.5, 1.7, -1.8, -1.5, -0.2])


@pytest.fixture(scope="module")
def reach() -> Embodiment:
    return Embodiment.load(sim_worlds_file(WORLD.embodiment_file))


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
    text = sim_worlds_file(WORLD.embodiment_file).read_text(encoding="utf-8")
    begin, middle, end = (text.index(key) for key in ("  arm:\n", "  gripper:\n", "# The box"))
    swapped = text[:begin] + text[middle:end] + text[begin:middle] + text[end:]
    with pytest.raises(UserError, match="expects .'shoulder_pan_joint'.*, saw .'robotiq"):
        make_adapter("arm", DT_S, Embodiment.parse(swapped, "other.yaml"))
    with pytest.raises(UserError, match="whole number of control ticks"):
        make_adapter("arm", 0.03, reach)


NIMBLE = "lower: [-0.5, -4], upper: [2, 4], max_acceleration: [5, 40]"
SLOW = "lower: [-0.5, -1], upper: [2, 1], max_acceleration: [1, 10]"


def driven(targets: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Where velocities (T, 2) of a tenth of a second each lead, by small steps."""
    x, y, heading, speed = state
    for speed, rate in np.repeat(targets, 100, axis=0):
        x += speed * np.cos(heading) * 1e-3
        y += speed * np.sin(heading) * 1e-3
        heading += rate * 1e-3
    return np.array([x, y, heading, speed])


def steps_of_the_twin() -> list[tuple[np.ndarray, np.ndarray]]:
    import torch

    from embodied_rl.sim.dynamics.unicycle import Unicycle

    generator = torch.Generator().manual_seed(0)
    now = Unicycle().start(torch.zeros(40, 2), generator)
    now[:, 3] *= 1.5
    after = Unicycle().step(now, 2 * torch.rand(40, 2, generator=generator) - 1)
    return list(zip(now.double().numpy(), after.double().numpy()))


def away(ends: list[np.ndarray]) -> np.ndarray:
    """Distance, turn and speed between where it is and where its twin is."""
    steps = steps_of_the_twin()
    found = np.array([end - after for end, (_, after) in zip(ends, steps)])
    turns = np.abs(np.remainder(found[:, 2] + np.pi, 2 * np.pi) - np.pi)
    return np.column_stack([np.linalg.norm(found[:, :2], axis=1), turns, np.abs(found[:, 3])])


def test_a_base_follows_its_twin_as_closely_as_its_limits_allow() -> None:
    distances = {}
    for name, limits in (("nimble", NIMBLE), ("slow", SLOW)):
        ends = []
        for now, after in steps_of_the_twin():
            adapter = make_adapter("unicycle", 0.5, rover(limits))
            ends.append(driven(adapter.targets(now, after), now))
        distance, turn, speed = away(ends).T
        # a slow base can hardly begin each turn from a stand at the twin's full rate
        assert turn.max() < (0.01 if name == "nimble" else 0.08)
        assert speed.max() < 1e-9
        distances[name] = distance
    even = []
    for now, after in steps_of_the_twin():
        turn = np.remainder(after[2] - now[2] + np.pi, 2 * np.pi) - np.pi
        shares = np.arange(1, 6)[:, None] / 5
        even.append(
            driven(
                np.hstack([now[3] + (after[3] - now[3]) * shares, np.full((5, 1), 2 * turn)]), now
            )
        )
    evenly = away(even)[:, 0]
    assert distances["nimble"].mean() < 0.35 * evenly.mean()
    assert distances["slow"].mean() < 0.85 * evenly.mean()


def test_a_base_changes_its_velocities_from_those_in_force() -> None:
    adapter = make_adapter("unicycle", 0.5, rover(SLOW))
    now, after = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.5, 0.0, 0.3, 1.2])
    adapter.executed(ActionChunk(0, 100_000_000, np.array([[0.6, -0.9]])))
    rows = np.vstack([[0.6, -0.9], adapter.targets(now, after)])
    assert (np.abs(np.diff(rows, axis=0)) <= np.array([0.1, 1.0]) + 1e-9).all()
    assert rows[1, 0] == pytest.approx(0.7) and rows[-1, 0] == pytest.approx(1.1)
    assert rows[1:, 1].sum() * 0.1 == pytest.approx(0.3, abs=1e-3)
    assert not adapter.rest(now).any()
    adapter.reset()
    assert adapter.targets(now, after)[0, 0] == pytest.approx(1.0), "from what is measured"


def test_a_base_that_turns_around_takes_the_short_way() -> None:
    adapter = make_adapter("unicycle", 0.5, rover(NIMBLE))
    now, after = np.array([0.0, 0.0, 3.1, 0.5]), np.array([-0.25, 0.01, -3.1, 0.5])
    rates = adapter.targets(now, after)[:, 1]
    assert rates.sum() * 0.1 == pytest.approx(2 * np.pi - 6.2, abs=1e-3)


def test_the_trained_arm_meets_a_formula_in_mujoco() -> None:
    """Through limits, servos and the noise of encoders; what it plans is what it is judged by."""
    sim = make_simulator("reach", "arm_04")
    policy = load_policy("tgpo_arm", sim.embodiment, "arm_04", samples=64)
    results = [rollout(sim, policy, episode, seed=episode) for episode in range(3)]
    sim.close()
    assert all(result.outcome.success for result in results)
    plan = policy.plan()  # the episode ends with the row of the last step, before it is shown
    assert plan["step"] == 63 and not plan["violated"]
    assert 0 < policy.figures()["follow_error_m"] < 0.1
