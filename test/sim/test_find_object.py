"""The task of the apartment: what a stop is, where it succeeds, and an expert that solves it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embodied_rl.core.errors import UserError
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.policy import EpisodeInfo, episode_seed
from embodied_rl.sim.navigation.base import HELD_OUT, TRAIN
from embodied_rl.sim.navigation.egocentric import STOP
from embodied_rl.sim.navigation.instructions import wanted_type
from embodied_rl.sim.navigation.layout import OBJECT_NAMES
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import begin, rollout
from embodied_rl.sim.tasks.expert import make_expert
from embodied_rl.sim.tasks.find_object import FindObject

TICK_NS = 100_000_000


@pytest.fixture(scope="module")
def sim():
    made = make_simulator("apartment", "find_object")
    yield made
    made.close()


class Watched:
    """A task that is shown poses ten times a second."""

    def __init__(self, seed: int = 0, trial: int = 0):
        self.task, self.elapsed_ns = FindObject(), 0
        self.task.begin(np.random.default_rng(seed), trial)
        self.start = np.array(self.task.start_pose)

    def show(self, pose: np.ndarray, seconds: float = 0.1):
        for _ in range(round(seconds * 1e9 / TICK_NS)):
            self.elapsed_ns += TICK_NS
            outcome = self.task.update(self.elapsed_ns, np.asarray(pose))
        return outcome


def cell_pose(x: int, y: int, heading: int) -> np.ndarray:
    return np.array([(x + 0.5) / 2, (y + 0.5) / 2, heading * math.pi / 2])


# Its verdict


def test_standing_still_is_a_stop_after_three_seconds_at_first_and_half_of_it_later():
    watched = Watched()
    assert not watched.show(watched.start, 2.9).done and watched.show(watched.start).done
    watched = Watched()
    assert not watched.show(watched.start, 2.0).done
    turned = watched.start + [0, 0, math.pi / 2]
    assert not watched.show(turned, 1.5).done and watched.show(turned).done


def test_turning_and_creeping_are_no_stop_and_time_runs_out():
    watched = Watched()
    for tick in range(899):
        outcome = watched.show(watched.start + [0, 0, 0.03 * tick])
        assert not outcome.done
    outcome = watched.show(watched.start)
    assert (outcome.done, outcome.success, outcome.reason) == (True, False, "time_limit")
    assert outcome.score == 0.0 and watched.task.time_limit_s == 90.0


@pytest.mark.parametrize("trial", [0, 300])
def test_a_stop_succeeds_where_it_does_in_the_grid_twin(trial):
    """Poses off their cell's middle by up to 0.2 m and 40 degrees, against a stop in the twin."""
    twin = make_trial_world("apartment")
    home = twin.worlds(HELD_OUT)[[trial % 256]]
    rng, found = np.random.default_rng(1), []
    for seed in range(25):
        watched = Watched(seed, trial)
        layout = watched.task.layout
        free = np.argwhere(~layout.obstacles)[:, ::-1]
        target = layout.object_cells[list(layout.object_types).index(watched.task.wanted)]
        places = free[np.abs(free - target).sum(axis=1) <= 3]
        x, y = places[rng.integers(len(places))]
        heading = int(rng.integers(4))
        off = rng.uniform([-0.2, -0.2, -0.7], [0.2, 0.2, 0.7])
        watched.show(watched.start + [0.1, 0, 0])
        outcome = watched.show(cell_pose(x, y, heading) + off, 1.6)
        starts = torch.tensor([[[x, y, heading]] * 2])
        twin.begin(home, starts, torch.full((1, 2), watched.task.wanted))
        expected = bool(twin.step(torch.tensor([STOP])).success)
        name = OBJECT_NAMES[watched.task.wanted]
        reason = f"found the {name}" if expected else f"stopped away from the {name}"
        assert (outcome.done, outcome.success, outcome.reason) == (True, expected, reason)
        assert (outcome.score > 0) == expected
        found.append(expected)
        shortest = twin.fewest_actions(torch.tensor([[watched.task.start]]),
                                       torch.tensor([[watched.task.wanted]]))  # fmt: skip
        assert watched.task.shortest == int(shortest)
    assert 5 < sum(found) < 20


def test_the_score_is_the_fewest_actions_over_those_used():
    """Two quarter turns to and fro cost four actions more than the shortest way."""
    seed = next(seed for seed in range(200) if Watched(seed).task.shortest == 1)
    watched = Watched(seed)
    for quarter in (0.25, 0.5, 1.0, 1.5, 2.0, 1.0, 0.4, 0.0):
        watched.show(watched.start + [0, 0, quarter * math.pi / 2])
    outcome = watched.show(watched.start, 1.6)
    assert outcome.success and outcome.score == pytest.approx(1 / 5)
    assert watched.show(watched.start + [1.0, 0, 0], 3.0) == outcome  # it stands


def test_an_episode_has_the_actions_of_the_twins():
    """A stop as the last action counts; standing still after the last one is none."""
    seed = next(seed for seed in range(200) if Watched(seed).task.shortest == 1)
    horizon = make_trial_world("apartment").horizon
    for turns in (horizon - 1, horizon):
        watched = Watched(seed)
        for turn in range(1, turns + 1):
            outcome = watched.show(watched.start + [0, 0, turn * math.pi / 2])
            assert outcome.done == (turn == horizon)
        stood = watched.show(watched.start, 3.0)
        if turns < horizon:
            assert stood.success and stood.score == pytest.approx(1 / horizon)
        else:
            assert (stood.success, stood.reason, stood.score) == (False, "no action left", 0.0)


def test_the_instruction_names_the_object():
    assert [wanted_type(f"find the {name}") for name in OBJECT_NAMES] == list(range(6))
    for text in ("find the sofa", "the clock", "", "push the button"):
        with pytest.raises(UserError, match="instruction: expected 'find the ' and one of lantern"):
            wanted_type(text)


# Its trials


def test_eight_episodes_share_a_home_that_no_training_has_seen(sim):
    homes, asked = [], []
    for episode in (0, 3, 7, 8):
        info = begin(sim, episode, episode_seed(0, episode))
        homes.append(sim.task.layout.seed)
        asked.append((info.trial, info.instruction, sim.task.start))
        assert wanted_type(info.instruction) in sim.task.layout.object_types
    assert [trial for trial, *_ in asked] == [0, 0, 0, 1]
    assert homes[0] == homes[1] == homes[2] != homes[3]
    assert len({(text, start) for _, text, start in asked}) == 4
    twin = make_trial_world("apartment")
    assert set(homes) <= set(twin.worlds(HELD_OUT).tolist())
    assert not set(homes) & set(twin.worlds(TRAIN).tolist())


def test_a_rollout_goes_on_with_the_loop_of_its_trial(sim):
    """A policy that learns in context is told of the boundary, not of a new trial."""

    class Noting:
        def __init__(self, inner):
            self.inner, self.spec, self.told = inner, inner.spec, []

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def reset(self, info: EpisodeInfo) -> None:
            self.told.append(("reset", info.trial))
            self.inner.reset(info)

        def next_episode(self, info: EpisodeInfo) -> None:
            self.told.append(("next", info.trial))
            self.inner.reset(info)

        def figures(self) -> dict[str, float]:
            return {"told": float(len(self.told))}

    policy = Noting(make_expert("find_object", sim.embodiment))
    loop = ControlLoop(policy, sim.embodiment)
    stop = lambda row, chunk: True  # noqa: E731  one tick an episode
    results = [rollout(sim, policy, k, k, loop=loop, on_tick=stop) for k in (6, 7, 8)]
    assert policy.told == [("reset", 0), ("next", 0), ("reset", 1)]
    assert [result.figures for result in results] == [{"told": 1.0}, {"told": 2.0}, {"told": 3.0}]


# Its expert


def test_the_expert_takes_the_fewest_actions(sim):
    """Three episodes in two trials; at least one of them leads through a door."""
    expert, doors = make_expert("find_object", sim.embodiment), 0
    for episode in (1, 9, 11):
        result = rollout(sim, expert, episode, episode_seed(0, episode), keep_observations=True)
        assert result.outcome.success and result.outcome.score == 1.0
        assert sim.task.shortest > 1 and result.info.trial == episode // 8
        way = np.array([row.values["base_position"][:2] for row in result.observations])
        cells = {tuple(cell) for cell in sim.task.layout.cell_at(way).tolist()}
        doors += len(cells & {tuple(door) for door in sim.task.layout.doors.tolist()})
    assert doors > 0


def test_the_experts_memory_can_be_carried_over(sim):
    """A second one that takes the memory over in the middle drives as the first one does."""

    def commands(change: int) -> np.ndarray:
        first, second = (make_expert("find_object", sim.embodiment) for _ in range(2))
        current, ticks = first, 0

        class Relay:
            spec = first.spec

            def __getattr__(self, name):
                return getattr(current, name)

        def on_tick(row, chunk):
            nonlocal current, ticks
            ticks += 1
            if ticks == change:
                second.load_memory(first.save_memory())
                current = second
            return ticks == 60

        return rollout(sim, Relay(), 1, episode_seed(0, 1), on_tick=on_tick).commands

    whole = commands(0)
    assert np.abs(whole).max() > 0.3
    np.testing.assert_array_equal(commands(25), whole)


def test_the_expert_refuses_what_it_cannot_do(sim):
    with pytest.raises(UserError, match="expert: chunk: expected 1 to 4, saw 5"):
        make_expert("find_object", sim.embodiment, chunk=5)
    assert make_expert("find_object", sim.embodiment, chunk=2).spec.chunk == 2
    expert = make_expert("find_object", sim.embodiment)
    with pytest.raises(UserError, match="instruction: expected 'find the '"):
        expert.reset(EpisodeInfo(0, 0, "find_object", "find the door", 0))
    for blob in (b"no", b'{"policy": "relic"}', b"[]"):
        with pytest.raises(UserError, match="memory: expected that of expert_find_object"):
            expert.load_memory(blob)
    with pytest.raises(UserError, match="apartment' 'patrol'; valid: find_object"):
        make_simulator("apartment", "patrol")
