"""The backend: time, stream rates, noise, determinism, bad commands and bad names."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.sim.registry import make_simulator, world_embodiment
from embodied_rl.sim.rollout import started_gate

STATES = {"arm_position", "arm_velocity", "gripper_position", "tool_position", "object_position"}


@pytest.fixture(scope="module")
def sim():
    return make_simulator()


def run(sim, seed: int, steps: int) -> list[tuple]:
    """Every sample of a short episode that closes the gripper and turns the base."""
    sim.reset(seed)
    start, seen, target = sim.time_ns, [], sim.command
    for step in range(steps):
        for key, sample in sim.read().items():
            seen.append((key, sample.stamp_ns - start, sample.value.tobytes()))
        target[0] += 0.001
        target[6] = 0.4 if step > 20 else 0.0
        sim.step(target)
    return seen


def test_streams_come_at_exactly_their_rates(sim):
    sim.reset(0)
    counts: Counter[str] = Counter()
    for _ in range(100):  # one second
        counts.update(sim.read().keys())
        for key, sample in sim.read().items():
            stream = sim.embodiment.streams[key]
            assert sample.stamp_ns == sim.time_ns and sample.stamp_ns % stream.period_ns == 0
            assert sample.value.shape == stream.shape and sample.value.dtype == stream.dtype
        sim.step(sim.command)
    rates = {key: sim.embodiment.streams[key].rate_hz for key in STATES}
    assert counts == rates


def test_time_runs_on_over_resets(sim):
    sim.reset(0)
    before = sim.time_ns
    sim.step(sim.command)
    sim.reset(0)
    assert sim.time_ns > before and sim.time_ns % 100_000_000 == 0
    assert set(sim.read()) == STATES  # all are due at the start of an episode


def test_same_seed_and_commands_give_the_same_bits(sim):
    first = run(sim, 5, 60)
    assert run(sim, 5, 60) == first
    assert run(make_simulator(), 5, 60) == first
    assert run(sim, 6, 60) != first


def test_reading_twice_draws_noise_once(sim):
    sim.reset(2)
    once, twice = sim.read(), sim.read()
    for key in once:
        np.testing.assert_array_equal(once[key].value, twice[key].value)


def test_noise_has_the_stated_size(sim):
    exact = make_simulator(noise=0.0)
    errors: dict[str, list[np.ndarray]] = {key: [] for key in STATES}
    for seed in range(40):
        sim.reset(seed)
        exact.reset(seed)
        for key, sample in sim.read().items():
            errors[key].append(sample.value - exact.read()[key].value)
    for key, found in errors.items():
        spread = np.concatenate(found).std()
        assert spread == pytest.approx(sim.world.sources[key].sigma, rel=0.25), key


def test_gripper_jumps_and_arm_glides(sim):
    sim.reset(0)
    target = sim.command
    target[0] += 0.01
    target[6] = 0.5
    sim.step(target)
    np.testing.assert_array_equal(sim.command, target)
    np.testing.assert_array_equal(sim.data.act[0], target[0])
    assert sim.data.ctrl[6] == pytest.approx(0.5 * 255 / 0.8)
    assert sim.data.ctrl[0] == pytest.approx(0.01 / 0.01)  # rad/s over a step of 10 ms


def test_bad_commands_are_refused_and_nothing_moves(sim):
    sim.reset(0)
    before, time_ns = sim.data.qpos.copy(), sim.time_ns
    bad = sim.command
    bad[2] = np.nan
    with pytest.raises(UserError, match="elbow_joint: target is not finite"):
        sim.step(bad)
    with pytest.raises(UserError, match=r"expected shape \(7,\), saw \(6,\)"):
        sim.step(np.zeros(6))
    assert sim.time_ns == time_ns
    np.testing.assert_array_equal(sim.data.qpos, before)


def test_divergence_ends_the_episode(sim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a log in the working folder
    sim.reset(0)
    sim.data.qvel[0] = np.nan
    for _ in range(5):
        sim.step(sim.command)
    assert (sim.outcome().done, sim.outcome().reason) == (True, "unstable")
    sim.reset(0)
    for _ in range(5):
        sim.step(sim.command)
    assert not sim.outcome().done


def test_the_gate_of_an_episode_starts_where_the_robot_is_measured(sim):
    sim.reset(3)
    target = started_gate(sim).next_target(sim.time_ns).values[0]
    np.testing.assert_allclose(target, sim.command, atol=0.02)
    assert not np.array_equal(target, sim.command)  # measured, with noise


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world": "moon"}, "unknown world 'moon'; valid: apartment, arena, reach, tabletop"),
        ({"task": "juggle"}, "valid: count_pushes, pick_place, replace_object"),
        ({"visuals": "shiny"}, "valid: mesh, primitives"),
        ({"cameras": ("front",)}, "unknown camera 'front'; valid: camera_fixed, .*, wrist"),
        ({"cameras": "fixed"}, "expected a list"),
    ],
)
def test_unknown_names_list_the_valid_ones(options, message):
    with pytest.raises(UserError, match=message):
        make_simulator(**options)


def changed(old: str, new: str) -> Embodiment:
    text = world_embodiment("tabletop").text
    assert old in text
    return Embodiment.parse(text.replace(old, new, 1), "robot.yaml")


def test_impossible_rates_name_both_values():
    with pytest.raises(UserError, match=r"object_position.rate_hz.* 33.3333 ms .* of 2 ms"):
        make_simulator(embodiment=changed("rate_hz: 20\n", "rate_hz: 30\n"))


def test_unknown_stream_and_joint_are_named():
    with pytest.raises(UserError, match="streams.gripper_state: world 'tabletop' has no such"):
        make_simulator(embodiment=changed("  gripper_position:", "  gripper_state:"))
    with pytest.raises(UserError, match="has no joints .*left_finger"):
        other = changed("commands:", "commands:  # changed")
        text = other.text.replace(
            "    joints: [robotiq_85_left_knuckle_joint]\n    unit: rad\n    lower",
            "    joints: [left_finger]\n    unit: rad\n    lower",
        )
        make_simulator(embodiment=Embodiment.parse(text, "robot.yaml"))
