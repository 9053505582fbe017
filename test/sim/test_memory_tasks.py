"""``count_pushes`` and ``return_home``: verdicts on made-up states, and what the expert shows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embodied_rl.core.window import Observation
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.tasks.base import ObjectState, Stillness
from embodied_rl.sim.tasks.count_pushes import (
    BUTTON,
    BUTTON_TOP_M,
    FINGERTIP_M,
    PUSHES,
    STROKE_M,
    CountPushes,
)
from embodied_rl.sim.tasks.expert import make_expert
from embodied_rl.sim.tasks.replace_object import HUB
from embodied_rl.sim.tasks.return_home import RING_M, ReturnHome

RUNNING = (False, False, "running")
HISTORY_TICKS = 15 * 3  # what 16 rows with stride 3 reach back


class Story:
    """Feeds a task with states 50 ms apart."""

    def __init__(self, task, seed: int = 0):
        self.task, self.time_s = task, 0.0
        self.start = task.start(np.random.default_rng(seed))

    def tool(self, place, seconds: float, depth: float = 0.0, shift_m: float = 0.0):
        """The tool at ``place (3,)``, every state ``shift_m`` further; the button at ``depth``."""
        origin = self.start.object_position
        for step in range(max(1, round(seconds / 0.05))):
            self.time_s += 0.05
            there = (place[0], place[1] + step * shift_m, place[2])
            where = (origin[0], origin[1], origin[2] - depth)
            state = ObjectState(self.time_s, where, 0.0, lambda: False, there)
            self.outcome = self.task.update(state)
        return self

    def ended(self) -> tuple[bool, bool, str]:
        return self.outcome.done, self.outcome.success, self.outcome.reason


# ------------------------------------------------------------------------------- count_pushes
HIGH = (*BUTTON, BUTTON_TOP_M + 0.06)
LOW = (*BUTTON, BUTTON_TOP_M + FINGERTIP_M - 0.012)
DONE = (HUB[0], HUB[1], 0.12)


def pushed(times: int) -> Story:
    story = Story(CountPushes()).tool(HIGH, 0.3)
    for _ in range(times):
        story.tool(LOW, 0.2, depth=0.012).tool(HIGH, 0.3)
    return story


def test_three_pushes_then_rest_over_the_hub():
    story = pushed(PUSHES)
    assert story.task.pushes == PUSHES and story.ended() == RUNNING
    assert story.outcome.score == 0.5
    story.tool(DONE, 0.3)
    assert story.ended() == RUNNING  # not at rest long enough
    assert story.tool(DONE, 0.1).ended() == (True, True, "success")
    story.tool(LOW, 1.0, depth=0.012)
    assert story.ended() == (True, True, "success")  # latched


@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_hub_after_too_few_pushes_ends_the_episode(times):
    story = pushed(times).tool(DONE, 0.4)
    assert story.ended() == (True, False, "too_few_pushes")
    assert story.outcome.score == pytest.approx(0.5 * times / PUSHES)


def test_a_fourth_push_ends_the_episode_at_its_full_stroke():
    story = pushed(PUSHES).tool(LOW, 0.05, depth=0.006)
    assert story.ended() == RUNNING  # not a full stroke yet
    assert story.tool(LOW, 0.05, depth=0.012).ended() == (True, False, "too_many_pushes")


def test_passing_over_the_hub_is_not_resting_there():
    story = pushed(1).tool((HUB[0], -0.05, 0.12), 0.5, shift_m=0.01)
    assert story.ended() == RUNNING


def test_only_whole_cycles_count():
    story = pushed(0)
    for _ in range(4):  # trembling on the button: pressed and released, never lifted clear
        story.tool(LOW, 0.1, depth=0.012).tool(LOW, 0.1, depth=0.0)
    assert story.task.pushes == 0
    assert story.tool(HIGH, 0.1).task.pushes == 1
    for _ in range(4):  # not pressed far enough
        story.tool(LOW, 0.1, depth=0.008).tool(HIGH, 0.1)
    assert story.task.pushes == 1
    story.tool(LOW, 0.1, depth=0.012).tool(HIGH, 0.1, depth=0.005)  # it sticks
    assert story.task.pushes == 1
    assert story.tool(HIGH, 0.1).task.pushes == 2


def test_pushes_of_the_expert_stay_within_the_memory():
    """From the first full stroke to leaving after the third: in the reach of 16 rows, stride 3."""
    sim = make_simulator(task="count_pushes")
    expert = make_expert("count_pushes", sim.embodiment)
    for seed in range(12):
        legs, depths = [], []

        def look(_row, _chunk, legs=legs, depths=depths):
            legs.append(expert.leg)
            depths.append(BUTTON_TOP_M - sim.data.body("button").xpos[2])

        assert rollout(sim, expert, 0, seed, on_tick=look).outcome.success
        pressed = np.array(depths) > CountPushes.full_stroke_m
        first, leaves = int(np.argmax(pressed)), legs.index("done")
        assert leaves - first <= HISTORY_TICKS - 3
        begins = [i for i in range(1, len(legs)) if legs[i] == "push" != legs[i - 1]]
        assert len(begins) == PUSHES
        assert min(np.diff(begins)) >= 11  # no open-loop chunk of 8 reaches from push to push
        assert max(depths) < STROKE_M  # never against the stop
        assert max(np.abs(depths[: begins[0]])) < 1e-3  # returns to the same height
        assert max(np.abs(depths[leaves:])) < 1e-3


def test_the_same_row_above_the_button_asks_for_two_actions():
    """Proof that memory is needed: one row at the end of a wait, two pasts, two commands."""
    sim = make_simulator(task="count_pushes")
    chain = sim.embodiment.chain
    place = np.array([*BUTTON, 0.10])
    values = {
        "arm_position": chain.inverse(place, sim.world.tool_down, sim.world.home),
        "gripper_position": np.array([0.6]),
        "tool_position": place,
        "object_position": np.array([*BUTTON, BUTTON_TOP_M]),
    }
    moves = {}
    for done in (2, PUSHES):
        expert = make_expert("count_pushes", sim.embodiment)

        def waiting(_row, _chunk, expert=expert, done=done):
            return expert.leg == "hover" and sim.task.pushes == done and expert._memory.stayed > 0

        rollout(sim, expert, 0, 5, on_tick=waiting)
        tick = 0
        while expert.leg == "hover":
            tick += 1
            expert.observe(Observation(tick, values, dict.fromkeys(values, True)))
            command = expert.act().values[0]
        moves[done] = chain.forward(command[:6])[0] - place
    assert moves[2][2] < -0.01 and abs(moves[2][0]) < 0.015  # down
    assert moves[PUSHES][0] > 0.01  # to the hub


# -------------------------------------------------------------------------------- return_home
def held_hub(seconds: float = 0.5) -> Story:
    story = Story(ReturnHome())
    hub = story.start.object_position
    return story.tool(story.task.home, 0.5).tool((hub[0], hub[1], 0.12), seconds)


def test_resting_at_the_start_after_the_hub_is_success():
    story = held_hub()
    assert story.ended() == RUNNING and story.outcome.score == 0.5
    near = story.task.home + [0.03, 0.0, 0.02]
    assert story.tool(near, 0.4).ended() == RUNNING
    assert story.tool(near, 0.1).ended() == (True, True, "success")
    assert story.tool(near + 0.1, 2.0).ended() == (True, True, "success")


@pytest.mark.parametrize("away", [(0.06, 0.0, 0.0), (0.0, 0.06, 0.0), (0.0, 0.0, 0.06)])
def test_resting_elsewhere_after_the_hub_ends_the_episode(away):
    story = held_hub()
    story.tool(story.task.home + away, 0.5)
    assert story.ended() == (True, False, "wrong_place") and story.outcome.score == 0.5


def test_crossing_the_start_is_not_coming_home():
    story = held_hub().tool(held_hub().task.home - [0.0, 0.05, 0.0], 0.5, shift_m=0.01)
    assert story.ended() == RUNNING


def test_the_hub_counts_only_after_a_rest():
    story = held_hub(seconds=0.2)
    story.tool(story.task.home, 1.0)
    assert story.ended() == RUNNING and story.outcome.score == 0.0
    assert story.tool(story.task.home, 12.0).ended() == (True, False, "time_limit")


def test_no_place_is_a_good_guess():
    task, rng = ReturnHome(), np.random.default_rng(0)
    homes, sectors, hubs = [], [], []
    for _ in range(4000):
        start = task.start(rng)
        homes.append(task.home)
        sectors.append(task.start_sector)
        hubs.append(start.object_position)
        np.testing.assert_array_equal(start.tool_position, task.home)
    homes = np.array(homes)
    assert np.all(np.abs(np.bincount(sectors) / len(sectors) - 0.25) < 0.03)
    radii = np.hypot(homes[:, 0] - HUB[0], homes[:, 1] - HUB[1])
    assert RING_M[0] <= radii.min() and radii.max() <= RING_M[1]
    guesses = [task.start(rng).tool_position for _ in range(200)]
    for guess in guesses:
        assert np.mean(np.linalg.norm(homes - guess, axis=1) < task.home_radius_m) < 0.15
    shift = np.array(hubs)[:, :2] - HUB[:2]
    assert np.hypot(*shift.T).max() <= task.hub_jitter_m
    assert np.all(np.abs(np.corrcoef(shift.T, homes[:, :2].T)[:2, 2:]) < 0.06)


def test_the_wait_outlasts_a_chunk_and_the_start_stays_in_sight():
    sim = make_simulator(task="return_home")
    expert = make_expert("return_home", sim.embodiment)
    for seed in range(12):
        legs, waits = [], []

        def look(_row, _chunk, legs=legs, waits=waits):
            legs.append(expert.leg)
            waits.append(expert.leg == "hold" and expert._memory.stayed > 0)

        assert rollout(sim, expert, 0, seed, on_tick=look).outcome.success
        assert 11 <= sum(waits) <= 17
        assert legs.index("home") - legs.index("hold") <= HISTORY_TICKS - 3


# ------------------------------------------------------------------------------------- common
def test_stillness_is_measured_from_the_last_move():
    stillness = Stillness(radius_m=0.01)
    assert stillness.update(0.0, (0.0, 0.0, 0.0)) == 0.0
    assert stillness.update(0.3, (0.005, 0.0, 0.0)) == pytest.approx(0.3)
    assert stillness.update(0.4, (0.02, 0.0, 0.0)) == 0.0
    assert stillness.update(0.6, (0.02, 0.009, 0.0)) == pytest.approx(0.2)
    # creeping is not resting: the way adds up
    creep = Stillness(radius_m=0.01)
    assert max(creep.update(i * 0.1, (i * 0.002, 0.0, 0.0)) for i in range(50)) < 0.7


@pytest.mark.parametrize("task", ["count_pushes", "return_home"])
def test_the_tracker_reports_the_button_or_the_hub(task):
    sim = make_simulator(task=task, noise=0.0)
    places = []
    for seed in range(5):
        sim.reset(seed)
        start = sim.task.start(np.random.default_rng([seed, 0]))
        sim.reset(seed)
        places.append(sim.read()["object_position"].value)
        assert start.object_position.shape == (3,)
        name = {"count_pushes": "button", "return_home": "hub"}[task]
        np.testing.assert_allclose(places[-1], sim.data.body(name).xpos, atol=1e-4)
    spread = np.ptp(np.array(places), axis=0)
    assert math.hypot(*spread[:2]) > 0.005 and spread[2] < 1e-3
