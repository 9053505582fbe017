"""Choosing among candidates by what was carried out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ptp_cases import PERIOD_NS, episode, rows_of
from test_ptp_runtime import make_policy

from embodied_rl.core.commands import TrajectoryTrack
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk
from embodied_rl.policies.ptp.verification import ExecutedActions, disagreement


def chunk_at(tick, values):
    return ActionChunk(tick * PERIOD_NS, PERIOD_NS, np.asarray(values, dtype=np.float64))


def test_executed_actions_equal_the_track_that_a_robot_follows():
    """Against the follower's own track, asked at each tick while it still knows."""
    rng = np.random.default_rng(0)
    log, track = ExecutedActions(reach_ns=9 * PERIOD_NS), None
    expected = {}
    starts = {2: 5, 4: 5, 9: 3, 15: 4, 16: 1, 17: 2}  # tick -> length; gaps are held
    for tick in range(24):
        if tick in starts:
            chunk = chunk_at(tick, rng.normal(size=(starts[tick], 2)))
            track = track or TrajectoryTrack(chunk.stamp_ns, np.zeros(2))
            track.follow(chunk.stamp_ns, chunk.times_ns, chunk.values)
            log.follow(chunk)
        if track is not None:
            expected[tick] = track.target((tick + 1) * PERIOD_NS)
        ticks = range(max(tick - 9, 0), tick + 1)
        values, known = log.at([t * PERIOD_NS for t in ticks], 2)
        assert known.tolist() == [t >= 2 for t in ticks]
        for t, value, there in zip(ticks, values, known, strict=True):
            assert np.array_equal(value, expected[t] if there else np.zeros(2)), (tick, t)
    assert len(log.chunks) <= 5, "what no window reaches is forgotten"


def test_a_later_chunk_replaces_all_that_begins_after_it():
    log = ExecutedActions(reach_ns=20 * PERIOD_NS)
    log.follow(chunk_at(0, [[0.0], [1.0], [2.0], [3.0]]))
    log.follow(chunk_at(3, [[9.0]]))
    log.follow(chunk_at(2, [[5.0], [6.0]]))  # a hold at an older tick, told later
    log.follow(chunk_at(7, np.zeros((0, 1))))  # nothing
    values, known = log.at(np.arange(6) * PERIOD_NS, 1)
    assert values[:, 0].tolist() == [0, 1, 5, 6, 6, 6] and known.all()


def test_disagreement_is_the_mean_squared_error_over_known_places():
    rng = np.random.default_rng(1)
    past, done = rng.normal(size=(5, 4, 3)), rng.normal(size=(4, 3))
    known = np.array([False, True, True, False])
    got = disagreement(torch.tensor(past), torch.tensor(done), torch.tensor(known))
    for n in range(5):
        errors = [(past[n, i, a] - done[i, a]) ** 2 for i in (1, 2) for a in range(3)]
        assert got[n].item() == pytest.approx(sum(errors) / len(errors), rel=1e-9)


def candidates_of(policy, monkeypatch, planted, past):
    """Replaces the sampler: candidate `planted` tells the past `past` (P, A), the others do not."""
    torch.manual_seed(5)

    def sample(frames, noise, clocks):
        assert frames.shape[0] == 1, "frames are shared, not repeated"
        tokens = torch.randn(noise.shape) + 3.0
        if noise.shape[0] > 1:
            tokens[planted, : len(past)] = past
        return tokens

    monkeypatch.setattr(policy.model, "sample", sample)


@pytest.mark.parametrize("planted", [0, 2, 5])
def test_the_planted_candidate_wins(config, embodiment, recordings, monkeypatch, planted):
    policy = make_policy(config, embodiment, recordings, samples=6)
    policy.reset(episode())
    rows = list(rows_of(recordings[0]))
    rng = np.random.default_rng(3)
    done = rng.normal(size=(30, 2))
    for tick, row in enumerate(rows[:12]):
        policy.observe(row)
        policy.executed(chunk_at(tick, done[tick : tick + 5]))
    # history 4, stride 3: the past tokens stand at ticks 11 - 9, 11 - 6, 11 - 3
    candidates_of(policy, monkeypatch, planted, torch.tensor(done[[2, 5, 8]], dtype=torch.float32))
    values = policy.act().values
    torch.manual_seed(5)
    tokens = torch.randn(6, config.tokens, 2) + 3.0
    assert np.allclose(values, tokens[planted, config.past :].numpy())
    assert policy.verify_score == pytest.approx(0.0, abs=1e-12)
    assert policy.figures()["verify_ticks"] == 3 and policy.figures()["samples"] == 6


def test_only_what_was_executed_in_this_episode_is_compared(
    config, embodiment, recordings, monkeypatch
):
    policy = make_policy(config, embodiment, recordings, samples=4)
    policy.reset(episode())
    counts = []
    original = policy.model.sample

    def sample(frames, noise, clocks):
        counts.append(len(noise))
        return original(frames, noise, clocks)

    monkeypatch.setattr(policy.model, "sample", sample)
    seen = []
    for tick, row in enumerate(rows_of(recordings[0])):
        policy.observe(row)
        chunk = policy.act()
        seen.append(policy.figures()["verify_ticks"])
        if tick >= 2:  # the first two chunks never came through
            policy.executed(chunk)
        if tick == 9:
            break
    # the newest past token lies 3 ticks back; the first executed tick is 2
    assert counts == [1] * 5 + [4] * 5
    assert seen == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert policy.verify_score > 0
    policy.reset(episode())
    policy.observe(next(rows_of(recordings[0])))
    policy.act()
    assert counts[-1] == 1 and np.isnan(policy.verify_score)


def test_tokens_without_a_loss_do_not_count(config, embodiment, recordings):
    policy = make_policy(replace(config, supervised_past=2), embodiment, recordings, samples=2)
    policy.reset(episode())
    for tick, row in enumerate(rows_of(recordings[0])):
        policy.observe(row)
        if tick < 15:
            policy.executed(chunk_at(tick, np.zeros((1, 2))))
    policy.act()
    assert policy.figures()["verify_ticks"] == 2


def run(policy, recording, ticks=20):
    policy.reset(episode())
    chunks = []
    for tick, row in enumerate(rows_of(recording)):
        policy.observe(row)
        if tick % policy.spec.execute == 0:
            chunk = policy.act()
            chunks.append(chunk.values)
            policy.executed(ActionChunk(chunk.stamp_ns, PERIOD_NS, chunk.values * 0.9))
        if tick == ticks:
            break
    return np.array(chunks)


def test_one_sample_gives_the_same_commands_whether_or_not_it_is_told(
    config, embodiment, recordings
):
    """Hearing of executed commands changes nothing for a single candidate; the first candidate of
    several is the single one."""
    policy = make_policy(config, embodiment, recordings)
    told = run(policy, recordings[0])
    policy.executed = lambda chunk: None
    assert np.array_equal(told, run(policy, recordings[0]))
    several = make_policy(config, embodiment, recordings, samples=3)
    several._verify = lambda tokens, done, known: 0
    np.testing.assert_allclose(run(several, recordings[0]), told, atol=1e-5)


def test_memory_carries_what_was_executed(config, embodiment, recordings):
    policy, twin = (make_policy(config, embodiment, recordings, samples=3) for _ in range(2))
    run(policy, recordings[0], ticks=12)
    twin.load_memory(policy.save_memory())
    for row in list(rows_of(recordings[0]))[13:17]:
        for each in (policy, twin):
            each.observe(row)
        assert np.array_equal(policy.act().values, twin.act().values)
        assert policy.verify_score == twin.verify_score > 0
    single = make_policy(config, embodiment, recordings)
    single.load_memory(policy.save_memory())  # how many candidates is no part of the model


def test_an_act_over_its_budget_halves_the_candidates(config, embodiment, recordings):
    policy = make_policy(config, embodiment, recordings, samples=5, budget_s=0.0)
    run(policy, recordings[0], ticks=4)
    assert policy.figures()["samples"] == 1, "5, 2, 1"
    policy.reset(episode())
    assert policy.figures()["samples"] == 5
    patient = make_policy(config, embodiment, recordings, samples=5, budget_s=60.0)
    run(patient, recordings[0], ticks=8)
    assert patient.figures()["samples"] == 5


@pytest.mark.parametrize("samples", [0, -3])
def test_no_candidates_is_refused_with_both_values(config, embodiment, recordings, samples):
    with pytest.raises(UserError, match=f"samples: expected more than 0, saw {samples}"):
        make_policy(config, embodiment, recordings, samples=samples)


@pytest.mark.parametrize("changes", [{"supervised_past": 0}, {"past_tokens": False}])
def test_a_model_that_does_not_learn_its_past_cannot_be_verified(
    config, embodiment, recordings, changes
):
    other = replace(config, **changes)
    with pytest.raises(UserError, match="samples: expected 1, .* saw 4"):
        make_policy(other, embodiment, recordings, samples=4)
    make_policy(other, embodiment, recordings)
