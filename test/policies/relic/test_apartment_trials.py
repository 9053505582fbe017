"""The robot beside its twin: the same episodes, counted the same way."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from rich.console import Console
from trial_cases import config_for, opinionated

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome, episode_seed
from embodied_rl.core.window import Observation
from embodied_rl.policies.evaluation import evaluate_in_process
from embodied_rl.policies.relic import apartment, apartment_report
from embodied_rl.policies.relic.episodes import Episodes
from embodied_rl.policies.relic.evaluation import (
    Given,
    Loaded,
    evaluate_given,
    load_relic_model,
)
from embodied_rl.policies.relic.method import RelicOptions
from embodied_rl.policies.relic.picture import FAILURE, LINE, SUCCESS, Course, Floor, draw
from embodied_rl.policies.relic.rollout import Played, Trials
from embodied_rl.sim.navigation.base import HELD_OUT
from embodied_rl.sim.navigation.egocentric import STOP, EgocentricNavigation
from embodied_rl.sim.navigation.layout import OBJECT_NAMES
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.training.publish import publish
from embodied_rl.training.statistics import mean_interval

TRIALS, EPISODES = 5, 6


def grid() -> EgocentricNavigation:
    world = make_trial_world("apartment")
    assert isinstance(world, EgocentricNavigation)
    return world


def some_episodes(world: EgocentricNavigation, seed: int = 0) -> Given:
    """Every other one begins so near that a network that knows nothing may succeed."""
    random = np.random.default_rng(seed)
    homes = world.worlds(HELD_OUT)[:TRIALS]
    starts, wanted = [], []
    for home in homes.tolist():
        layout = world.layout(home)
        cells = np.argwhere(~layout.obstacles)[:, ::-1].repeat(4, axis=0)
        poses = np.c_[cells, np.tile(np.arange(4), len(cells) // 4)]
        kinds = random.choice(layout.object_types, EPISODES)
        starts.append(random.permutation(poses)[:EPISODES])
        for episode in range(0, EPISODES, 2):
            every = torch.from_numpy(poses)[None]
            kind = torch.full((1, len(poses)), int(kinds[episode]))
            world.begin(torch.tensor([home]), every, kind)
            near = (world.fewest_actions(every, kind)[0] == 1).nonzero()[:, 0].numpy()
            starts[-1][episode] = poses[random.choice(near)]
        wanted.append(kinds)
    return Given(homes, torch.from_numpy(np.array(starts)), torch.from_numpy(np.array(wanted)))


class AsRobot:
    """Plays grid episodes, as a watcher of them, and tells them as a robot's results."""

    def __init__(self, world: EgocentricNavigation, given: Given) -> None:
        self.given, self.world = given, world
        self.results: dict[tuple[int, int], EpisodeResult] = {}
        self._poses = given.starts[:, 0].tolist()
        self._number = [0] * TRIALS
        self._rows: list[list[Observation]] = [[] for _ in range(TRIALS)]

    def __call__(self, trials: Trials, played: Played) -> None:
        x, y, heading = (part.tolist() for part in self.world.pose)
        for n in range(TRIALS):
            if self._number[n] == EPISODES:  # it plays on until the last trial is over
                continue
            self._rows[n].append(self._row(*self._poses[n]))
            self._poses[n] = [x[n], y[n], heading[n]]
            if played.transition.ended[n]:
                self._end(n, bool(played.transition.success[n]), bool(played.action[n] == STOP))

    def _row(self, x: int, y: int, heading: int) -> Observation:
        place = np.array([0.5 * x + 0.31, 0.5 * y + 0.17, 0.0])
        yaw = math.remainder(heading * math.pi / 2 + 0.3, math.tau)  # less than half a quarter off
        return Observation(
            0,
            {"base_position": place, "base_yaw": np.array([yaw])},
            dict.fromkeys(apartment.POSE, True),
        )

    def _end(self, n: int, success: bool, stopped: bool) -> None:
        number, name = self._number[n], OBJECT_NAMES[int(self.given.wanted[n, self._number[n]])]
        reason = f"found the {name}" if success else f"stopped away from the {name}"
        outcome = Outcome(True, success, reason if stopped else "time_limit", 0.0)
        info = EpisodeInfo(n * EPISODES + number, 0, "find_object", "", 0, n)
        self.results[n, number] = EpisodeResult(
            info, outcome, 1, 0, np.zeros((1, 2)), self._rows[n],
            {"actions": len(self._rows[n]), "stopped": int(stopped)},
        )  # fmt: skip
        self._number[n], self._rows[n] = number + 1, []

    def in_order(self) -> list[EpisodeResult]:
        return [self.results[n, k] for n in range(TRIALS) for k in range(EPISODES)]


@pytest.fixture(scope="module")
def played() -> tuple[Given, Episodes, list[EpisodeResult], list[Played]]:
    world, steps = grid(), []
    given = some_episodes(world)
    robot = AsRobot(world, given)

    def watch(trials: Trials, played: Played) -> None:
        steps.append(played)
        robot(trials, played)

    model = opinionated(config_for(world), 3)
    twin = evaluate_given(model, world, given, 0, watch=watch)
    return given, twin, robot.in_order(), steps


def test_the_twin_plays_the_episodes_that_are_given(played) -> None:
    given, twin, _, steps = played
    assert twin.finished.all() and twin.success.any() and not twin.success.all()
    for n in range(TRIALS):
        objects, begun = grid().objects(int(given.worlds[n])), 0
        for step in steps:
            if step.tokens.time[n] == 0 and begun < EPISODES:
                x, y = given.starts[n, begun, :2].tolist()
                assert step.place.position[n].tolist() == [x, y]
                told = step.tokens.features[n, 6 + 13 + 13 :][:4]  # after wanted type, x and y
                assert told.argmax() == given.starts[n, begun, 2] and told.sum() == 1
                target = objects == given.wanted[n, begun] + 1
                assert torch.equal(step.place.targets[n], target) and target.any()
                begun += 1
        assert begun == EPISODES


def test_a_robot_that_does_as_the_grid_is_counted_as_the_grid(played) -> None:
    given, twin, results, _ = played
    robot, known = apartment.robot_episodes(grid(), given, results)
    for key in ("success", "steps", "familiar"):
        assert torch.equal(getattr(robot, key), getattr(twin, key)), key
    assert torch.allclose(robot.efficiency, twin.efficiency)
    assert robot.familiar.any() and not robot.familiar.all() and not known[:, 0].any()
    assert (known[:, 1:] >= known[:, :-1]).all()  # nothing is unseen again within a trial
    found = apartment.compared(robot, twin, results, grid().horizon)
    assert found["gap"]["success"]["all"] == [0.0, 0.0, 0.0]
    assert found["by_episode"] == found["twin"]["by_episode"]
    assert found["pairs"] == {
        "both": int(twin.success.sum()), "robot_alone": 0, "twin_alone": 0,
        "neither": int((~twin.success).sum()),
    }  # fmt: skip
    assert found["reasons"]["lost"] == {}
    assert found["reasons"]["robot"]["found the object"] == int(twin.success.sum())
    assert sum(found["reasons"]["twin"].values()) == TRIALS * EPISODES
    assert found["per_episode"]["actions"] == pytest.approx(float(twin.steps.double().mean()))


def test_the_gap_is_between_the_same_episodes(played) -> None:
    _, twin, results, _ = played
    lost = twin.success & (torch.arange(EPISODES) == 2)
    robot = twin._replace(success=twin.success & ~lost, efficiency=twin.efficiency * ~lost)
    changed = [
        replace(result, outcome=Outcome(True, False, "time_limit", 0.0)) if gone else result
        for result, gone in zip(results, lost.flatten().tolist())
    ]
    found = apartment.compared(robot, twin, changed, grid().horizon)
    share = lost[:, 2].double().numpy()
    assert found["gap"]["success"]["by_episode"][2] == list(mean_interval(-share))
    assert found["gap"]["success"]["by_episode"][0][0] == 0.0
    assert found["gap"]["success"]["all"] == list(mean_interval(-share / EPISODES))
    assert found["pairs"]["twin_alone"] == int(lost.sum()) > 0
    assert found["reasons"]["lost"] == {"time_limit": int(lost.sum())}


def test_standing_still_is_not_always_a_stop(played) -> None:
    _, twin, results, _ = played
    away = Outcome(True, False, "stopped away from the bell", 0.0)
    kinds = [{"stopped": 1}, {"stopped": 0}, {"stopped": 0, "actions": 25}]
    changed = [
        replace(result, outcome=away, figures={"actions": 4, **kind})
        for result, kind in zip(results, kinds * TRIALS * EPISODES)
    ]
    found = apartment.compared(twin, twin, changed, 25)["reasons"]["robot"]
    assert found == dict.fromkeys(
        ("no action left", "stood still without a stop", "stopped away from the object"), 10
    )


def test_a_spent_robot_beside_the_object_has_not_stopped(played) -> None:
    """The task takes its standing still for a stop, for it counts what the robot moved."""
    given, twin, results, _ = played
    number = twin.success.flatten().tolist().index(True)
    spent = [*results]
    spent[number] = replace(results[number], figures={"actions": 25, "stopped": 0})
    robot, _ = apartment.robot_episodes(grid(), given, spent)
    expected = twin.success.flatten().clone()
    expected[number] = False
    assert torch.equal(robot.success.flatten(), expected)
    assert robot.efficiency.flatten()[number] == 0.0
    found = apartment.compared(robot, twin, spent, 25)
    assert found["reasons"]["lost"] == {"no action left": 1}
    assert found["reasons"]["robot"]["found the object"] == int(expected.sum())


def test_results_that_cannot_be_counted_are_refused(played) -> None:
    given, _, results, _ = played
    for changed, message in (
        ({"figures": {"step_ms": 1.0}}, r"expected the figure 'actions' .* saw \['step_ms'\]"),
        ({"figures": {"actions": 3}}, r"expected the figure 'stopped' .* saw \['actions'\]"),
        ({"observations": []}, "episode 5: expected rows with"),
    ):
        wrong = [*results]
        wrong[5] = replace(results[5], **changed)
        with pytest.raises(UserError, match=message):
            apartment.robot_episodes(grid(), given, wrong)


def test_given_episodes_are_those_of_the_simulator() -> None:
    given = apartment.given_episodes(2, seed=4)
    assert given.worlds.tolist() == grid().worlds(HELD_OUT)[:2].tolist()
    assert given.starts.shape == (2, 8, 3)
    sim = make_simulator("apartment", "find_object", noise=0.0)
    for trial, episode in ((1, 6), (0, 3)):  # in another order, as another process has them
        sim.reset(episode_seed(4, 8 * trial + episode), trial)
        x, y, heading = given.starts[trial, episode].tolist()
        seen = sim.read()
        assert np.allclose(seen["base_position"].value[:2], [0.5 * x + 0.25, 0.5 * y + 0.25])
        off = seen["base_yaw"].value[0] - heading * math.pi / 2
        assert abs(math.remainder(off, math.tau)) < 1e-6
        assert sim.instruction == f"find the {OBJECT_NAMES[given.wanted[trial, episode]]}"
    sim.close()


def test_table_and_notes(played) -> None:
    given, twin, results, _ = played
    world = grid()
    loaded = Loaded("small", opinionated(config_for(world), 3), world)
    found = apartment.beside(loaded, given, results, 0)
    same = {"episodes": 12, "same_outcome": 11, "same_commands": 10}
    figures = {"model": "small", "task": "apartment", "over": "ros", "seed": 0}
    figures |= found.figures | {"against_in_process": same}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(apartment_report._table(figures))
    rows = [line.split("│") for line in console.export_text().splitlines() if "│" in line]
    assert [row[1].strip() for row in rows] == [*"123456", "last - first", "late - first"]
    mean, cells = found.figures["by_episode"]["success"][0][0], [cell.strip() for cell in rows[0]]
    assert cells[2].startswith(f"{mean:.2f} [") and cells[3:5] == [f"{mean:.2f}", "+0.00"]
    notes = "\n".join(apartment_report._notes(figures))
    assert "outcome in 11, all commands in 10 of 12 episodes" in notes
    assert f"success {twin.success.double().mean():.3f}, the twin's" in notes
    assert f"both succeeded in {found.figures['pairs']['both']}," in notes
    card = apartment_report._card_text(figures)
    assert "| 4 | " in card and "embodied_rl eval small --trials 5 --seed 0 --ros" in card
    json.dumps(figures, allow_nan=False)
    outcomes = found.figures["outcomes"]
    assert [one["episode"] for one in outcomes] == list(range(TRIALS * EPISODES))
    assert [one["twin_success"] for one in outcomes] == twin.success.flatten().tolist()
    assert outcomes[7]["wanted"] == OBJECT_NAMES[int(given.wanted[1, 1])]
    floor, courses = found.shown
    assert len(courses) == EPISODES and courses[0].known == frozenset()
    assert floor.furniture.sum() == 6 and len(floor.objects) == 5
    for course, result in zip(courses, results):
        assert course.success == result.outcome.success and len(course.places) == len(
            result.observations
        )
        assert course.targets[0] in floor.objects.values()


def colours(path: Path) -> set[str]:
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    return {f"#{value:06X}" for value in np.unique(pixels @ [1 << 16, 1 << 8, 1])}


def test_the_picture_shows_what_became_of_each_episode(tmp_path: Path, played) -> None:
    _, twin, results, _ = played
    figures = apartment.compared(twin, twin, results, grid().horizon)
    figures["episodes"] = 1  # and no curve in the colour of success but its own
    figures["by_episode"] = {key: value[:1] for key, value in figures["by_episode"].items()}
    walls = np.pad(np.zeros((4, 4), dtype=bool), 1, constant_values=True)
    floor = Floor(walls, {0: (1.0, 1.25)}, ("clock",), np.zeros((6, 6), dtype=bool), 0.5, "m")
    path = [(0.75, 0.75), (1.75, 0.75), (1.75, 2.25)]
    seen = {}
    for success in (True, False):
        course = Course([(1.0, 1.25)], path, success, True, "clock", frozenset({0}))
        draw(tmp_path / "one.png", "t", floor, [course], figures, ("twin", figures))
        seen[success] = colours(tmp_path / "one.png")
    assert {LINE, SUCCESS} <= seen[True] and FAILURE not in seen[True]
    assert FAILURE in seen[False]


def test_a_network_that_knows_nothing_drives_the_robot(tmp_path: Path) -> None:
    world = grid()
    model = opinionated(config_for(world, previous_reward=False), 3)
    parts = {"model": asdict(model.config)}
    publish(
        tmp_path, policy="relic", name="small", task="apartment", parts=parts, model=model, seed=0,
        data="none",
    )  # fmt: skip
    given = Given(*(part[:1] for part in apartment.given_episodes(1, 1)))
    given = given._replace(starts=given.starts[:, :2], wanted=given.wanted[:, :2])
    evaluation = replace(
        apartment_report.evaluation_of(str(tmp_path), given, 1, RelicOptions(device="cpu")),
        episodes=2,
    )
    results = evaluate_in_process(evaluation)
    found = apartment.beside(load_relic_model(tmp_path), given, results, 1)
    pairs, events = found.figures["pairs"], found.figures["per_episode"]
    assert sum(pairs.values()) == 2 and set(events) == set(apartment.EVENTS)
    for episode, (course, result) in enumerate(zip(found.shown[1], results)):
        cell = given.starts[0, episode, :2].numpy()
        assert np.allclose(course.places[0], 0.5 * cell + 0.25, atol=0.05)
        assert result.figures["actions"] >= 1 and result.outcome.done
    assert results[1].figures["context_episodes"] == 2
    assert results[1].figures["context_steps"] == sum(r.figures["actions"] for r in results)
