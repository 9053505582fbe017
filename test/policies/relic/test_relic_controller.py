"""The network on a robot: what it is shown, what its actions become, and when it stands still."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from home_robot import BODY, PERIOD_NS, HomeRobot
from trial_cases import config_for, opinionated

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.policies.registry import load_policy
from embodied_rl.policies.relic import controller
from embodied_rl.policies.relic.controller import RelicController
from embodied_rl.policies.relic.evaluation import Loaded
from embodied_rl.sim.navigation.darkroom import Darkroom
from embodied_rl.sim.navigation.egocentric import STOP, UNSEEN, EgocentricNavigation
from embodied_rl.sim.navigation.grid import FORWARD, TURN_LEFT, TURN_RIGHT, GridPose
from embodied_rl.sim.navigation.layout import LayoutSettings
from embodied_rl.sim.navigation.registry import CAMERA_RAD, FURNISHED, make_trial_world
from embodied_rl.training.publish import publish

HOME, HORIZON = 4100, 6
PLANS = [
    [FORWARD, TURN_LEFT, FORWARD, FORWARD, STOP],
    [TURN_RIGHT, TURN_RIGHT, FORWARD, STOP],
    [TURN_LEFT, FORWARD, FORWARD, FORWARD, FORWARD, FORWARD],
]


@pytest.fixture(scope="module")
def world():
    return EgocentricNavigation(
        "apartment", layout=FURNISHED, camera_rad=CAMERA_RAD, horizon=HORIZON
    )


def small(world, seed: int = 0, **changes) -> Loaded:
    config = config_for(world, **{"previous_reward": False, **changes})
    return Loaded("small", opinionated(config, seed).eval().requires_grad_(False), world)


def robot_in(world, **options) -> HomeRobot:
    return HomeRobot(RelicController(small(world), BODY, **options), world.layout(HOME))


def scripted(robot: HomeRobot, monkeypatch, actions) -> None:
    """Actions to take whatever the network says, for the rest of the test."""
    left = iter(actions)
    monkeypatch.setattr(robot.policy, "_draw", lambda logits: next(left))


def starts_in(layout) -> list[GridPose]:
    free = np.argwhere(~layout.obstacles)[:, ::-1]
    return [GridPose(*map(int, free[17 * i % len(free)]), i % 4) for i in range(9)]


def steps_of(robot: HomeRobot):
    return robot.policy._memory.tokens


def test_its_steps_are_those_of_the_grid(world, monkeypatch):
    """Three episodes of a trial: the same cells, poses, actions and counters as in the twin."""
    robot = robot_in(world)
    starts, wanted = starts_in(robot.layout)[:3], [0, 3, 1]
    scripted(robot, monkeypatch, [action for plan in PLANS for action in plan])
    poses = torch.tensor([[list(start) for start in starts]])
    view = world.begin(torch.tensor([HOME]), poses, torch.tensor([wanted]))
    views, ended = [], []
    for number, plan in enumerate(PLANS):
        robot.begin(starts[number], wanted[number])
        for count, action in enumerate(plan, 1):
            views.append(view)
            robot.until_actions(count)
            transition = world.step(torch.tensor([action]))
            view = transition.view
            ended.append(bool(transition.ended))
            if not ended[-1]:  # where the motion leads is where the twin is
                robot.run(2.5 if count == len(plan) else 0.1)
    robot.run(2.0)
    steps = steps_of(robot)
    features = torch.cat([view.features for view in views])
    assert torch.equal(steps.features[0], features)
    cells = torch.cat([view.cells for view in views])
    assert (steps.cells[0] == cells).float().mean() > 0.97
    assert steps.episode[0].tolist() == [0] * 5 + [1] * 4 + [2] * 6
    assert steps.time[0].tolist() == [*range(5), *range(4), *range(6)]
    actions = [[0] + [1 + action for action in plan[:-1]] for plan in PLANS]
    assert steps.action[0].tolist() == sum(actions, [])
    assert not steps.reward.any()
    figures = robot.policy.figures()
    assert figures["context_steps"] == 15 and figures["context_episodes"] == 3
    assert figures["cache_bytes"] > 0 and 0 <= figures["sink_mass"] <= 1 and figures["step_ms"] > 0
    assert figures["gave_up"] == 0 and figures["dropped_episodes"] == 0


def test_each_action_waits_until_the_base_stands(world, monkeypatch):
    robot = robot_in(world)
    scripted(robot, monkeypatch, [TURN_LEFT, TURN_LEFT, TURN_RIGHT, STOP])
    robot.begin(GridPose(3, 1, 0), 0)
    begun = []
    while not robot.policy.figures()["stopped"]:
        before = robot.policy.figures()["actions"]
        velocity = robot.velocity.copy()
        robot.tick()
        if robot.policy.figures()["actions"] > before:
            begun.append(robot.tick_ns)
            assert np.all(np.abs(velocity) < [0.05, 0.1])
    assert len(begun) == 4
    assert all(1.2 < (b - a) / 1e9 < 3.0 for a, b in zip(begun, begun[1:]))
    robot.run(3.0)
    assert len(begun) == 4 and not robot.chunks[-1].values.any()  # it stands until the next episode
    assert robot.policy.figures()["actions"] == 4


def test_a_step_into_an_obstacle_is_not_made(world, monkeypatch):
    robot = robot_in(world)
    at = GridPose(2, 1, 2)  # a piece of furniture is ahead
    scripted(robot, monkeypatch, [FORWARD, FORWARD, STOP])
    robot.begin(at, 0)
    robot.until_actions(3)
    assert robot.tick_ns - 10 * PERIOD_NS < 1.2e9
    assert np.allclose(robot.pose, at.centre(0.5)) and robot.policy.figures()["blocked"] == 2


def test_what_was_drawn_depends_on_the_seed_alone(world):
    def actions(seed: int) -> list[int]:
        robot = robot_in(world)
        robot.begin(GridPose(2, 2, 0), 0, seed=seed)
        for number in range(1, 3):
            robot.run(9.0)
            robot.begin(GridPose(2, 2, 0), number % 3, seed=seed + number)
        return steps_of(robot).action[0].tolist()

    first = actions(1)
    assert first == actions(1) and len(set(map(tuple, map(actions, (1, 2, 3))))) > 1


def test_a_trial_begins_with_an_empty_context(world):
    robot = robot_in(world)
    robot.begin(GridPose(2, 2, 0), 0, trial=3)
    robot.run(4.0)
    held = robot.policy.figures()["context_steps"]
    assert held > 0
    robot.begin(GridPose(2, 2, 0), 1, trial=3)
    assert robot.policy.figures()["context_steps"] == held
    assert robot.policy.figures()["actions"] == 0
    assert (robot.policy._perception.known != UNSEEN).any()
    robot.begin(GridPose(2, 2, 0), 1, trial=4)
    assert (robot.policy._perception.known == UNSEEN).all()
    assert (
        robot.policy.figures()["context_steps"] == robot.policy.figures()["context_episodes"] == 0
    )
    robot.run(1.0)
    assert steps_of(robot).episode[0].tolist()[0] == 0


def test_episodes_without_a_step_leave_no_gap(world):
    robot = robot_in(world)
    for _ in range(3):
        robot.begin(GridPose(2, 2, 0), 0)
    robot.run(1.0)
    robot.begin(GridPose(2, 2, 0), 0)
    robot.run(1.0)
    assert sorted(set(steps_of(robot).episode[0].tolist())) == [0, 1]


# Memory


@pytest.mark.parametrize("seconds", [0.5, 1.3, 4.0])
def test_after_a_restart_it_goes_on_as_if_nothing_had_happened(world, seconds):
    robots = [robot_in(world), robot_in(world)]
    first, second = robots
    for robot in robots:
        robot.begin(GridPose(2, 2, 1), 0, seed=5)
        robot.run(3.0)
        robot.begin(GridPose(3, 2, 0), 1, seed=6)
        robot.run(seconds)
    blob = first.policy.save_memory()
    fresh = RelicController(small(world), BODY)
    fresh.load_memory(blob)
    second.policy = second.loop.policy = fresh
    for robot in robots:
        robot.chunks.clear()
        robot.run(8.0)
    known = [robot.policy._perception.known for robot in robots]
    assert np.array_equal(*known) and (known[0] != UNSEEN).any()
    assert len(first.chunks) == len(second.chunks) == 40
    for ours, other in zip(first.chunks, second.chunks):
        assert ours.stamp_ns == other.stamp_ns and np.array_equal(ours.values, other.values)
    for ours, other in zip(steps_of(first), steps_of(second)):
        assert torch.equal(ours, other)
    times = {"step_ms"}
    figures = [robot.policy.figures() for robot in robots]
    assert all(figures[0][key] == figures[1][key] for key in figures[0].keys() - times)
    assert fresh.save_memory() != blob


def test_the_memory_of_another_model_is_refused(world):
    blob = robot_in(world).policy.save_memory()
    other = RelicController(small(world, seed=1), BODY)
    with pytest.raises(UserError, match="memory: expected that of relic/.*, saw that of relic/"):
        other.load_memory(blob)
    with pytest.raises(UserError, match="damaged"):
        other.load_memory(blob[:100])


def test_a_memory_over_the_limit_is_refused_and_changes_nothing(world, monkeypatch):
    robot = robot_in(world)
    scripted(robot, monkeypatch, [TURN_LEFT] * 4)
    robot.begin(GridPose(2, 2, 0), 0)
    robot.until_actions(4)
    fresh = RelicController(small(world), BODY, context_steps=3)
    with pytest.raises(UserError, match="context: expected at most 3 steps, saw 4"):
        fresh.load_memory(robot.policy.save_memory())
    assert fresh.figures()["context_steps"] == 0


def test_whole_oldest_episodes_make_room(world, monkeypatch):
    robot = robot_in(world, context_steps=8)
    scripted(robot, monkeypatch, [TURN_LEFT, TURN_LEFT, STOP] * 4)
    held = []
    for _ in range(4):
        robot.begin(GridPose(2, 2, 0), 0)
        robot.until_actions(3)
        figures = robot.policy.figures()
        keys = ("context_steps", "context_episodes", "dropped_episodes")
        held.append(tuple(figures[key] for key in keys))
    assert held == [(3, 1, 0), (6, 2, 0), (6, 2, 1), (6, 2, 2)]
    assert steps_of(robot).episode[0].tolist() == [2] * 3 + [3] * 3
    assert robot.policy.refusal() == ""


@pytest.mark.parametrize("context_steps", [6, 8])  # full before an episode, and in one
def test_an_episode_begins_without_traces_of_forgotten_ones(world, monkeypatch, context_steps):
    """Its first scores are those of a trial that began with the oldest kept episode, in one pass
    over it; without encoding anew they are not."""

    def first_scores(most: int):
        monkeypatch.setattr(controller, "ENCODE_STEPS", most)
        robot, scores = robot_in(world, context_steps=context_steps), []
        actions = [TURN_LEFT, TURN_LEFT, STOP]

        def draw(logits):
            scores.append(logits[0])
            return actions[(len(scores) - 1) % 3]

        monkeypatch.setattr(robot.policy, "_draw", draw)
        for number in range(3):
            robot.begin(GridPose(2 + number, 2, number), number)
            robot.until_actions(3)
        robot.begin(GridPose(2, 2, 0), 1)
        robot.until_actions(1)
        return steps_of(robot), scores[-1], robot.policy.figures()["dropped_episodes"]

    tokens, scores, dropped = first_scores(6)
    assert dropped == tokens.episode[0, 0] > 0
    alone = tokens._replace(episode=tokens.episode - dropped)
    expected = small(world).model(alone).logits[0, -1]
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    assert (first_scores(2)[1] - expected).abs().max() > 1e-3


# Where it stands still rather than guess


def assert_stands(robot: HomeRobot, said: str) -> None:
    before = robot.pose.copy()
    robot.run(2.0)
    assert said in robot.policy.refusal() and "\n" not in robot.policy.refusal()
    assert not robot.chunks[-1].values.any() and np.allclose(robot.pose, before)


def test_an_episode_that_fills_the_context(world, monkeypatch):
    robot = robot_in(world, context_steps=3)
    scripted(robot, monkeypatch, [TURN_LEFT] * 3 + [STOP])
    robot.begin(GridPose(2, 2, 0), 0)
    robot.until_actions(3)
    robot.run(3.0)
    assert_stands(robot, "context: expected a running episode of at most 2 steps, saw 3")
    robot.begin(GridPose(2, 2, 0), 0)
    robot.until_actions(1)
    assert robot.policy.refusal() == "" and robot.policy.figures()["dropped_episodes"] == 1


def test_an_episode_longer_than_the_position_table(world, monkeypatch):
    robot = robot_in(world)
    scripted(robot, monkeypatch, [TURN_LEFT] * (HORIZON + 1))
    robot.begin(GridPose(2, 2, 0), 0)
    robot.until_actions(HORIZON)
    robot.run(3.0)
    assert_stands(
        robot, f"episode: expected at most {HORIZON} actions (the model's position table)"
    )
    assert robot.policy.figures()["actions"] == HORIZON
    robot.begin(GridPose(2, 2, 0), 0)
    robot.until_actions(1)
    assert robot.policy.refusal() == ""


@pytest.mark.parametrize("text", ["find the sofa", "clock", "bring me the clock", " "])
def test_an_instruction_that_it_does_not_know(world, text):
    robot = robot_in(world)
    robot.begin(GridPose(2, 2, 0), 0, text=text)
    assert_stands(robot, "instruction: expected 'find the ' and one of lantern, plant, ball,")
    assert robot.policy.figures()["actions"] == 0
    with pytest.raises(UserError, match="instruction: expected .* saw 'find the moon'"):
        robot.policy.instruct("find the moon")
    robot.policy.instruct("find the bell")
    robot.until_actions(1)
    assert robot.policy.refusal() == ""
    assert steps_of(robot).features[0, 0, :6].tolist() == [0, 0, 0, 0, 0, 1]


def test_a_type_that_its_map_does_not_have():
    few = EgocentricNavigation("few", layout=LayoutSettings(types=5), camera_rad=CAMERA_RAD)
    robot = robot_in(few)
    robot.begin(GridPose(2, 2, 0), 5)
    said = (
        "instruction: expected one of lantern, plant, ball, clock, basket, which the map of policy"
    )
    assert_stands(robot, said)
    with pytest.raises(UserError, match="saw 'find the bell'"):
        robot.policy.instruct("find the bell")
    robot.policy.instruct("find the clock")
    robot.until_actions(1)
    assert robot.policy.refusal() == ""


def test_another_instruction_is_an_episode_boundary(world, monkeypatch):
    robot = robot_in(world)
    scripted(robot, monkeypatch, [TURN_LEFT, STOP, FORWARD, TURN_LEFT])
    robot.begin(GridPose(2, 2, 0), 0)
    robot.until_actions(2)
    robot.policy.instruct("find the lantern")  # the same
    assert robot.policy.figures()["stopped"]
    with pytest.raises(UserError):
        robot.policy.instruct("dance")
    assert robot.policy.figures()["stopped"] and robot.policy.figures()["actions"] == 2
    robot.policy.instruct("find the bell")
    robot.until_actions(2)
    steps = steps_of(robot)
    assert steps.episode[0].tolist() == [0, 0, 1, 1] and steps.time[0].tolist() == [0, 1, 0, 1]
    assert steps.action[0, 2] == 0 and steps.features[0, 2, :6].tolist() == [0, 0, 0, 0, 0, 1]


def test_odometry_that_falls_silent(world, monkeypatch):
    robot = robot_in(world)
    scripted(robot, monkeypatch, [FORWARD, STOP])
    robot.begin(GridPose(3, 1, 0), 0)
    robot.run(0.8)
    assert robot.velocity[0] > 0.1
    robot.silent = {key for key in robot.policy.spec.streams if key.startswith("base_")}
    robot.run(0.2)
    row, chunk = robot.tick()
    assert set(row.missing) == robot.silent and chunk is None
    robot.run(1.0)
    assert np.all(np.abs(robot.velocity) < 1e-3)  # the last chunk has run out
    assert robot.policy.figures()["actions"] == 1
    robot.silent = set()
    robot.until_actions(2)
    assert np.allclose(robot.pose, GridPose(4, 1, 0).centre(0.5), atol=0.03)


def test_a_place_outside_the_home(world):
    robot = robot_in(world)
    robot.begin(GridPose(2, 2, 0), 0)
    robot._sensed()
    robot.pose[0] -= 2.0
    robot._seen_from = robot.pose.copy()  # what it sees is of no matter
    assert_stands(robot, "odometry: expected a position within the home of 6.5 m by 6.5 m")


# What fits together


def test_a_model_of_another_kind_of_world_is_refused(world):
    room = Darkroom()
    dark = Loaded("dark", opinionated(config_for(room)), room)
    with pytest.raises(UserError, match="policy dark: expected .*saw one of world 'darkroom'"):
        RelicController(dark, BODY)
    with pytest.raises(UserError, match="policy small: expected .* without rewards"):
        RelicController(small(world, previous_reward=True), BODY)
    with pytest.raises(UserError, match="policy small: expected .* its place on the map"):
        RelicController(small(make_trial_world("egocentric_relative")), BODY)


def test_a_robot_with_other_commands_or_streams_is_refused(world):
    other = Embodiment.parse(BODY.text.replace("linear_x, angular_z", "linear_x, linear_y"), "r")
    with pytest.raises(UserError, match="r: commands: discrete motions expect"):
        RelicController(small(world), other)
    blind = Embodiment.parse(BODY.text.replace("camera_front_depth", "camera_rear_depth"), "r")
    with pytest.raises(UserError, match="r: no stream 'camera_front_depth'"):
        RelicController(small(world), blind)


@pytest.fixture
def folder(tmp_path):
    world = EgocentricNavigation("apartment", layout=FURNISHED, camera_rad=CAMERA_RAD)
    loaded = small(world)
    config = {key: getattr(loaded.model.config, key) for key in loaded.model.config.__annotations__}
    publish(
        tmp_path / "m", policy="relic", name="relic_test", task="apartment",
        parts={"model": config}, model=loaded.model, seed=0, data="none",
    )  # fmt: skip
    return tmp_path / "m"


def test_a_checkpoint_is_found_and_loaded(folder):
    policy = load_policy(str(folder), BODY, "find_object", context_steps=100, device="cpu")
    assert policy.figures()["context_steps"] == policy.figures()["actions"] == 0  # a blank start
    assert policy.spec.name == "relic_test" and policy.spec.action_dim == 2
    assert policy.spec.embodiment_hash == BODY.contract_hash(policy.spec.streams)
    assert set(policy.spec.streams) >= {"base_position", "scan", "camera_front_depth"}
    robot = HomeRobot(policy, EgocentricNavigation("a", layout=FURNISHED).layout(HOME))
    robot.begin(GridPose(2, 2, 0), 0)
    robot.until_actions(2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 4}, "expected options among device, context_steps, saw 'samples'"),
        ({"context_steps": 0}, "context_steps: expected at least 1, saw 0"),
        ({"device": "cuda:99"}, "device: expected one that is here"),
    ],
)
def test_options_that_it_cannot_have(folder, options, said):
    with pytest.raises(UserError, match=said):
        load_policy(str(folder), BODY, **options)
