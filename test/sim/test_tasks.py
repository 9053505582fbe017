"""What counts as success, event by event, on made-up object states."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_rl.sim.tasks.base import CUBE_HALF_M, ObjectState
from embodied_rl.sim.tasks.pick_place import PickPlace
from embodied_rl.sim.tasks.replace_object import HUB, PADS, ReplaceObject


class Story:
    """Feeds a task with states 20 ms apart."""

    def __init__(self, task, seed: int = 0):
        self.task, self.time_s = task, 0.0
        self.start = task.start(np.random.default_rng(seed))
        self.outcome = None

    def at(self, place, height: float, seconds: float, held: bool = True, speed: float = 0.0):
        position = (place[0], place[1], CUBE_HALF_M + height)
        for _ in range(max(1, round(seconds / 0.02))):
            self.time_s += 0.02
            state = ObjectState(self.time_s, position, speed, lambda: held)
            self.outcome = self.task.update(state)
        return self

    def ended(self) -> tuple[bool, bool, str]:
        return self.outcome.done, self.outcome.success, self.outcome.reason


RUNNING = (False, False, "running")


def carried_to_hub(seconds: float = 0.5) -> tuple[Story, tuple, tuple]:
    story = Story(ReplaceObject())
    own, other = PADS[story.task.own_pad], PADS[1 - story.task.own_pad]
    story.at(own, 0.0, 1.0, held=False).at(own, 0.1, 0.2).at(HUB, 0.1, seconds)
    return story, own, other


def test_own_pad_after_the_hub_is_success_at_once():
    story, own, _ = carried_to_hub()
    assert story.ended() == RUNNING and story.outcome.score == 0.5
    story.at(own, 0.0, 0.1, held=True)
    assert story.ended() == RUNNING  # not let go yet
    story.at(own, 0.0, 0.02, held=False, speed=0.2)
    assert story.ended() == RUNNING  # not at rest yet
    story.at(own, 0.0, 0.02, held=False)
    assert story.ended() == (True, True, "success") and story.outcome.score == 1.0


def test_success_is_latched():
    story, own, other = carried_to_hub()
    story.at(own, 0.0, 0.02, held=False).at(other, 0.0, 1.0, held=False).at(own, -1.0, 20.0)
    assert story.ended() == (True, True, "success")


def test_the_wrong_pad_ends_the_episode():
    story, own, other = carried_to_hub()
    story.at(other, 0.0, 0.02, held=False).at(own, 0.0, 0.5, held=False)
    assert story.ended() == (True, False, "wrong_pad")


def test_brushing_past_the_hub_is_not_visiting_it():
    story, own, _ = carried_to_hub(seconds=0.2)
    story.at(own, 0.0, 0.5, held=False)
    assert story.ended() == RUNNING


def test_two_short_visits_are_not_a_long_one():
    story, own, _ = carried_to_hub(seconds=0.2)
    story.at(own, 0.1, 0.1).at(HUB, 0.1, 0.2).at(own, 0.0, 0.1, held=False)
    assert story.ended() == RUNNING


def test_dragging_over_the_hub_is_not_carrying():
    story = Story(ReplaceObject())
    own = PADS[story.task.own_pad]
    story.at(own, 0.1, 0.1).at(HUB, 0.01, 1.0).at(own, 0.0, 0.1, held=False)
    assert story.ended() == RUNNING


@pytest.mark.parametrize("place", [HUB, (0.5, 0.0), (0.42, 0.3)])
def test_put_down_elsewhere_is_dropped(place):
    story, _, _ = carried_to_hub()
    assert story.at(place, 0.0, 0.1, held=False).ended() == (True, False, "dropped")


def test_off_the_table_is_dropped():
    story = Story(ReplaceObject())
    assert story.at((0.9, 0.9), -0.2, 0.02, held=False).ended() == (True, False, "dropped")


def test_nothing_done_runs_into_the_time_limit():
    story = Story(ReplaceObject())
    own = PADS[story.task.own_pad]
    story.at(own, 0.0, 15.9, held=False)
    assert story.ended() == RUNNING
    assert story.at(own, 0.0, 0.2, held=False).ended() == (True, False, "time_limit")


def test_a_new_start_forgets_the_old_episode():
    story, own, _ = carried_to_hub()
    story.at(own, 0.0, 0.1, held=False)
    again = Story(story.task, seed=1)
    assert again.at(PADS[again.task.own_pad], 0.0, 0.1, held=False).ended() == RUNNING


def test_both_pads_are_drawn_equally_often_and_starts_lie_on_them():
    task, rng = ReplaceObject(), np.random.default_rng(0)
    own = []
    for _ in range(400):
        start = task.start(rng)
        own.append(task.own_pad)
        offset = start.object_position[:2] - PADS[task.own_pad][:2]
        assert np.hypot(*offset) <= task.start_jitter_m
    assert abs(np.mean(own) - 0.5) < 0.1
    assert min(np.hypot(*(np.subtract(pad, HUB)[:2])) for pad in PADS) > 0.15


def test_pick_place_needs_lifting_and_letting_go_on_the_hub():
    story = Story(PickPlace())
    story.at(HUB, 0.0, 0.2, held=False)
    assert story.ended() == RUNNING  # pushed there
    story.at(HUB, 0.1, 0.1).at(HUB, 0.0, 0.1, held=True)
    assert story.ended() == RUNNING
    assert story.at(HUB, 0.0, 0.02, held=False).ended() == (True, True, "success")
    lost = Story(PickPlace())
    assert lost.at((0.9, 0.0), 0.0, 0.02, held=False).ended() == (True, False, "dropped")
    slow = Story(PickPlace())
    slow.at((0.4, 0.0), 0.0, 14.1, held=False)
    assert slow.ended() == (True, False, "time_limit")
