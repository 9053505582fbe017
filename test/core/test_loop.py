"""The control loop with a policy that writes down what it is shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
from core_cases import MS, PERIOD_NS, robot, sample, spec

from embodied_rl.core.errors import UserError
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.policy import ActionChunk, EpisodeInfo
from embodied_rl.core.window import Arrival

BODY = robot()


class Probe:
    """Answers with a chunk that carries the number of rows it has seen."""

    def __init__(self, execute: int = 2):
        self.spec = spec({"arm": (2,), "thing": (3,)}, execute=execute)
        self.episodes: list[EpisodeInfo] = []
        self.rows, self.in_force, self.values = [], [], np.zeros((4, 3))

    def reset(self, episode):
        self.episodes.append(episode)
        self.rows, self.in_force = [], []

    def observe(self, observation):
        self.rows.append(observation)

    def act(self):
        return ActionChunk(self.rows[-1].stamp_ns, PERIOD_NS, self.values + len(self.rows))

    def executed(self, chunk):
        self.in_force.append(chunk)

    def save_memory(self):
        return b""

    def load_memory(self, blob):
        del blob


def episode(start_ns=0) -> EpisodeInfo:
    return EpisodeInfo(4, 7, "task", "do it", start_ns)


def begun(execute=2, start_ns=0) -> tuple[ControlLoop, Probe]:
    probe = Probe(execute)
    loop = ControlLoop(probe, BODY)
    loop.reset(episode(start_ns))
    return loop, probe


def feed(loop: ControlLoop, begin_ns: int, end_ns: int, skip=()) -> None:
    """Every stream on its grid in ``[begin, end]``, but for the ticks of ``thing`` in ``skip``."""
    for stamp in range(begin_ns, end_ns + 1, 10 * MS):
        if stamp % (20 * MS) == 0:
            loop.add("arm", sample(stamp, stamp / MS, 0))
        if stamp % (50 * MS) == 0 and stamp not in skip:
            loop.add("thing", sample(stamp, stamp / MS, 0, 0))


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_it_acts_every_execute_ticks_and_shows_every_row(execute):
    loop, probe = begun(execute)
    feed(loop, 0, 1000 * MS)
    acted = []
    for tick in range(10):
        assert loop.next_tick_ns == tick * PERIOD_NS
        row, chunk = loop.tick()
        assert row.stamp_ns == tick * PERIOD_NS and row is probe.rows[-1]
        assert row.values["arm"][0] == row.values["thing"][0] == tick * 100
        if chunk is not None:
            acted.append(tick)
            assert chunk.stamp_ns == row.stamp_ns and chunk.values[0, 0] == tick + 1
    assert acted == list(range(0, 10, execute)) and len(probe.rows) == 10
    assert probe.episodes == [episode()] and loop.invalid_rows == 0


def test_owing_speaks_of_the_next_tick():
    loop, _ = begun()
    assert loop.owing() == ["arm", "thing"]
    feed(loop, 0, 0)
    assert loop.owing() == []
    loop.tick()
    assert loop.owing() == ["arm", "thing"]
    feed(loop, 10 * MS, 90 * MS)
    loop.add("arm", sample(100 * MS, 1, 1))
    assert loop.owing() == ["thing"]


@pytest.mark.parametrize(("start_ns", "first"), [(0, 0), (1, 1), (100 * MS, 1), (101 * MS, 2)])
def test_the_first_tick_is_the_first_on_the_grid_from_the_start_on(start_ns, first):
    loop, _ = begun(start_ns=start_ns)
    feed(loop, 0, 300 * MS)
    row, _ = loop.tick()
    assert row.stamp_ns == first * PERIOD_NS
    assert all(row.values[k][0] * MS >= start_ns for k in row.values if row.valid[k])


def test_it_never_acts_on_a_row_with_a_missing_stream_but_shows_it():
    loop, probe = begun(execute=3)
    feed(loop, 0, 1000 * MS, skip=set(range(150 * MS, 550 * MS, 50 * MS)))
    got = [loop.tick() for _ in range(9)]
    # thing is 200 ms good: its sample of 100 ms serves until tick 3; 4 and 5 are invalid
    assert [row.missing for row, _ in got] == [[]] * 4 + [["thing"]] * 2 + [[]] * 3
    # due at 0 and 3; the next one is due at 6, where the row is sound again
    assert [i for i, (_, chunk) in enumerate(got) if chunk is not None] == [0, 3, 6]
    assert loop.invalid_rows == 2 and len(probe.rows) == 9
    assert np.all(np.isnan(probe.rows[4].values["thing"]))


def test_an_act_that_was_due_on_an_invalid_row_follows_on_the_next_sound_one():
    loop, _ = begun(execute=4)
    feed(loop, 0, 1200 * MS, skip=set(range(150 * MS, 550 * MS, 50 * MS)))
    acted = [i for i in range(12) if loop.tick()[1] is not None]
    assert acted == [0, 6, 10]  # due at 4, possible at 6, and then every fourth from there


def test_skipped_ticks_are_shown_so_that_the_memory_keeps_its_spacing():
    loop, probe = begun(execute=2)
    feed(loop, 0, 1000 * MS)
    loop.tick()
    assert loop.skip_to(500 * MS) == 4 and loop.skip_to(500 * MS) == 0
    assert [row.stamp_ns for row in probe.rows] == [i * PERIOD_NS for i in range(5)]
    assert [row.values["arm"][0] for row in probe.rows] == [0, 100, 200, 300, 400]
    row, chunk = loop.tick()
    assert row.stamp_ns == 500 * MS and chunk is not None and chunk.stamp_ns == 500 * MS
    assert loop.tick()[1] is None and loop.tick()[1] is not None
    assert loop.skip_to(0) == 0  # never back


def test_rows_are_the_same_whether_ticks_are_skipped_or_not():
    (slow, one), (fast, two) = begun(), begun()
    for loop in (slow, fast):
        feed(loop, 0, 1000 * MS)
    for _ in range(9):
        slow.tick()
    fast.skip_to(800 * MS)
    fast.tick()
    for a, b in zip(one.rows, two.rows, strict=True):
        assert a.stamp_ns == b.stamp_ns and a.valid == b.valid
        for key in a.values:
            np.testing.assert_array_equal(a.values[key], b.values[key])


def test_a_clock_set_back_begins_the_episode_anew_from_there():
    loop, probe = begun()
    feed(loop, 0, 5000 * MS)
    for _ in range(20):
        loop.tick()
    for stamp in (120, 140, 160):
        arrival = loop.add("arm", sample(stamp * MS, stamp, 0))
    assert arrival is Arrival.CLOCK_JUMP
    assert [e.start_ns for e in probe.episodes] == [0, 120 * MS]
    assert probe.episodes[1].seed == 7 and loop.episode == probe.episodes[1]
    assert probe.rows == [] and loop.next_tick_ns == 200 * MS
    feed(loop, 130 * MS, 200 * MS)
    row, chunk = loop.tick()
    assert row.stamp_ns == 200 * MS and not row.missing and chunk is not None
    # The other stream's clock comes back too and that is no second jump.
    assert len(probe.episodes) == 2


class Learner(Probe):
    """A probe that keeps its rows from one episode of a trial to the next."""

    def __init__(self):
        super().__init__()
        self.boundaries = []

    def next_episode(self, episode):
        self.boundaries.append(episode)


def numbered(number: int, trial: int, start_s: int) -> EpisodeInfo:
    return EpisodeInfo(number, 7, "task", "do it", start_s * 1000 * MS, trial)


def test_a_policy_that_learns_in_context_keeps_its_memory_within_a_trial():
    learner = Learner()
    loop = ControlLoop(learner, BODY)
    numbers = ((0, 0), (1, 0), (3, 0), (4, 1), (5, 1), (5, 1), (6, 1), (0, 1))
    for start_s, (number, trial) in enumerate(numbers):
        loop.reset(numbered(number, trial, start_s))
        feed(loop, start_s * 1000 * MS, start_s * 1000 * MS)
        assert loop.tick()[1] is not None
    # 5 again is no next one, nor is a run that was begun anew
    assert [(e.episode, e.trial) for e in learner.episodes] == [(0, 0), (4, 1), (5, 1), (0, 1)]
    assert [(e.episode, e.trial) for e in learner.boundaries] == [(1, 0), (3, 0), (5, 1), (6, 1)]


def test_a_clock_set_back_begins_a_trial_anew():
    learner = Learner()
    loop = ControlLoop(learner, BODY)
    loop.reset(numbered(5, 2, 5))
    loop.add("arm", sample(5000 * MS, 1, 1))
    for stamp in (0, 20, 40):
        loop.add("arm", sample(stamp * MS, 1, 1))
    assert [e.start_ns for e in learner.episodes] == [5000 * MS, 0] and not learner.boundaries


def test_a_policy_without_trials_begins_anew_with_every_episode():
    probe = Probe()
    loop = ControlLoop(probe, BODY)
    for number in range(3):
        loop.reset(numbered(number, 0, number))
    assert [e.episode for e in probe.episodes] == [0, 1, 2]


def test_samples_before_any_episode_change_nothing():
    probe = Probe()
    loop = ControlLoop(probe, BODY)
    loop.add("arm", sample(5000 * MS, 1, 1))
    arrivals = [loop.add("arm", sample(stamp * MS, 1, 1)) for stamp in (0, 20, 40)]
    assert arrivals == [Arrival.STRAY, Arrival.STRAY, Arrival.CLOCK_JUMP]
    assert loop.episode is None and probe.episodes == []


def test_a_reset_begins_with_a_clean_count_and_acts_at_once():
    loop, probe = begun(execute=4)
    feed(loop, 0, 90 * MS)
    loop.tick()
    loop.tick()
    loop.tick()
    assert loop.invalid_rows == 1  # thing's sample of 50 ms is just 150 ms old at 200, arm's is not
    loop.reset(episode(250 * MS))
    assert loop.invalid_rows == 0 and probe.rows == [] and loop.next_tick_ns == 300 * MS
    feed(loop, 250 * MS, 300 * MS)
    row, chunk = loop.tick()
    assert not row.missing and chunk is not None


@pytest.mark.parametrize(
    ("values", "said"),
    [(np.full((4, 3), np.nan), "not finite"), (np.zeros((4, 2)), r"\(T, 3\), saw \(4, 2\)")],
)
def test_an_unsound_chunk_never_leaves_the_loop(values, said):
    loop, probe = begun()
    feed(loop, 0, 100 * MS)
    probe.values = values
    with pytest.raises(UserError, match=said):
        loop.tick()
    probe.values = np.zeros((4, 3))
    row, chunk = loop.tick()  # the loop goes on; the refused act is made up for
    assert row.stamp_ns == 100 * MS and chunk is not None


def test_a_stream_that_the_robot_lacks_is_named():
    probe = Probe()
    probe.spec = spec({"arm": (2,), "leg": (2,)})
    with pytest.raises(UserError, match="no stream 'leg'"):
        ControlLoop(probe, BODY)


def test_the_policy_hears_what_became_of_its_chunk():
    loop, probe = begun(start_ns=100 * MS)
    assert not loop.awaiting
    feed(loop, 100 * MS, 200 * MS)
    _, chunk = loop.tick()
    assert loop.awaiting and not probe.in_force
    limited = ActionChunk(chunk.stamp_ns, PERIOD_NS, chunk.values * 0.5)
    assert loop.executed(limited) and not loop.awaiting
    assert probe.in_force == [limited]
    loop.tick()
    assert not loop.awaiting, "no chunk, nothing to wait for"


def test_a_chunk_of_the_last_episode_is_not_told_and_a_hold_before_this_one_is_no_answer():
    loop, probe = begun(start_ns=300 * MS)
    old = ActionChunk(200 * MS, PERIOD_NS, np.zeros((1, 3)))
    assert not loop.executed(old) and not probe.in_force
    feed(loop, 300 * MS, 400 * MS)
    loop.tick()
    assert not loop.executed(old) and loop.awaiting
    loop.give_up_waiting()
    assert not loop.awaiting
    loop.reset(episode(500 * MS))
    assert not loop.awaiting


def test_a_gap_that_outlasts_the_memory_begins_anew_at_once():
    loop, probe = begun()
    feed(loop, 0, 100 * MS)
    loop.tick()
    hour_ns = 3600 * 1000 * MS
    assert not loop.leap_to(loop.next_tick_ns + loop.reach_ns)
    assert loop.leap_to(hour_ns) and len(probe.episodes) == 2 and not probe.rows
    assert loop.next_tick_ns == hour_ns
    feed(loop, hour_ns, hour_ns)
    row, chunk = loop.tick()
    assert not row.missing and chunk.stamp_ns == hour_ns
    assert loop.newest_tick(3 * hour_ns) == hour_ns + PERIOD_NS  # found without a walk


@pytest.mark.parametrize("silent", [(), (250 * MS, 300 * MS, 350 * MS, 400 * MS)])
def test_the_newest_tick_is_the_last_that_owes_nothing(silent):
    loop, _ = begun()
    feed(loop, 0, 620 * MS, skip=silent)
    walked = loop.next_tick_ns
    for tick in range(0, 900 * MS, PERIOD_NS):
        if not loop.builder.owing(tick):
            walked = tick
    assert loop.newest_tick(900 * MS) == walked == 600 * MS
    assert loop.newest_tick(430 * MS) == 400 * MS


class Remembering(Probe):
    def save_memory(self):
        return repr(self.values.tolist()).encode()

    def load_memory(self, blob):
        self.values[:] = 0
        if blob.startswith(b"no"):
            raise KeyError("field")
        self.values[:] = np.array(json.loads(blob))


def test_a_damaged_memory_is_refused_and_changes_nothing():
    loop = ControlLoop(Remembering(), BODY)
    loop.reset(episode())
    loop.policy.values[:] = 3.0
    with pytest.raises(UserError, match="damaged one .KeyError"):
        loop.load_memory(b"nothing")
    assert np.all(loop.policy.values == 3.0)
    feed(loop, 0, 300 * MS)
    assert loop.tick()[1] is not None and loop.tick()[1] is None
    loop.load_memory(loop.policy.save_memory())
    assert loop.tick()[1] is not None, "it plans anew at once"
