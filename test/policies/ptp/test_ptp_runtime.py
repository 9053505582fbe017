"""The live policy: equal to the offline windows, deterministic, with a memory that travels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ptp_cases import PERIOD_NS, episode, make_recording, rows_of

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import check_chunk
from embodied_rl.core.window import Observation
from embodied_rl.policies.ptp.data import PtpWindows
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.runtime import PtpPolicy

SHAPES = {"place": (2,), "thing": (3,)}


def make_policy(config, embodiment, recordings, seed=0, **options):
    torch.manual_seed(seed)
    model = PtpModel(config, SHAPES, 2)
    PtpWindows(recordings, config).fit_limits(model)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return PtpPolicy(model, embodiment, name="slide_ptp", **options)


def with_gap(rows=30):
    """Begins with a stream that is late and has gaps later on."""
    recording = make_recording(rows, seed=9)
    for i in (0, 1, 7, 8, 20):
        recording.valid["thing"][i] = False
        recording.values["thing"][i] = np.nan
    return recording


def test_live_chunks_equal_the_offline_windows(config, embodiment, recordings):
    recording = with_gap()
    policy = make_policy(config, embodiment, recordings)
    windows = PtpWindows([recording], config)
    policy.reset(episode(seed=7))
    noise = torch.Generator().manual_seed(7)
    acted = 0
    for tick, row in enumerate(rows_of(recording)):
        policy.observe(row)
        if row.missing:
            with pytest.raises(UserError, match="thing"):
                policy.act()
            continue
        chunk = policy.act()
        frames, _, _ = windows.batch(np.array([tick - 2]))  # offline it begins at the third row
        with torch.inference_mode():
            tokens = policy.model.sample(
                policy.model.encoder(frames),
                torch.randn(1, config.tokens, 2, generator=noise),
            )
        expected = tokens[0, config.past :].numpy()
        assert np.array_equal(chunk.values, expected.astype(np.float64))
        assert chunk.stamp_ns == tick * PERIOD_NS and chunk.values.dtype == np.float64
        check_chunk(chunk, policy.spec)
        acted += 1
    assert acted == 25 and policy.carried == {"thing": 3}


def test_same_seed_same_chunks_other_seed_others(config, embodiment, recordings):
    policy = make_policy(config, embodiment, recordings)

    def run(seed):
        policy.reset(episode(seed))
        chunks = []
        for row in rows_of(recordings[0]):
            policy.observe(row)
            chunks.append(policy.act().values)
        return np.array(chunks)

    first, other, again = run(1), run(2), run(1)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("moment", [0, 1, 3, 12, 25])
def test_memory_continues_identically(config, embodiment, recordings, moment):
    recording = with_gap()
    policy, twin = (make_policy(config, embodiment, recordings) for _ in range(2))
    policy.reset(episode())
    rows = list(rows_of(recording))

    def go_on(p, i):
        p.observe(rows[i])
        return None if rows[i].missing else p.act().values

    for i in range(moment):
        go_on(policy, i)
    twin.reset(episode(seed=99))
    twin.load_memory(policy.save_memory())
    for i in range(moment, len(rows)):
        ours, theirs = go_on(policy, i), go_on(twin, i)
        assert (ours is None and theirs is None) or np.array_equal(ours, theirs)
    assert policy.carried == twin.carried


def test_memory_of_another_model_is_refused(config, embodiment, recordings):
    policy = make_policy(config, embodiment, recordings)
    policy.reset(episode())
    policy.observe(next(rows_of(recordings[0])))
    blob = policy.save_memory()
    for other in (
        make_policy(config, embodiment, recordings, seed=1),
        make_policy(replace(config, stride=2), embodiment, recordings),
    ):
        with pytest.raises(UserError, match="slide_ptp"):
            other.load_memory(blob)
    with pytest.raises(UserError, match="damaged"):
        policy.load_memory(blob[:40])


def test_refuses_to_act_on_nothing_and_to_skip_ticks(config, embodiment, recordings):
    policy = make_policy(config, embodiment, recordings)
    policy.reset(episode())
    with pytest.raises(UserError, match="place"):
        policy.act()
    rows = list(rows_of(recordings[0]))
    policy.observe(rows[0])
    with pytest.raises(UserError, match=f"{PERIOD_NS} ns, saw {2 * PERIOD_NS}"):
        policy.observe(rows[2])
    policy.reset(episode())
    nan = {k: np.full_like(v, np.nan) for k, v in rows[0].values.items()}
    policy.observe(Observation(0, nan, dict.fromkeys(nan, False)))
    with pytest.raises(UserError, match="missing"):
        policy.act()


@pytest.mark.parametrize("gap", [1, 3, 1000])
def test_ticks_between_a_memory_and_the_next_row_are_missing_rows(
    config, embodiment, recordings, gap
):
    """The same as if the rows of the gap had come without their streams."""
    rows = list(rows_of(make_recording(12, seed=4)))
    saved, shown = (make_policy(config, embodiment, recordings) for _ in range(2))
    for policy in (saved, shown):
        policy.reset(episode(seed=3))
        for row in rows[:8]:
            policy.observe(row)
    blob = saved.save_memory()
    for row in rows[8:]:
        saved.observe(row)  # it went on before the memory is loaded
    saved.load_memory(blob)
    lost = dict.fromkeys(SHAPES, False)
    nothing = {key: np.full(shape, np.nan) for key, shape in SHAPES.items()}
    for back in range(gap):
        shown.observe(Observation((8 + back) * PERIOD_NS, nothing, lost))
    later = replace(rows[8], stamp_ns=(8 + gap) * PERIOD_NS)
    for policy in (saved, shown):
        policy.observe(later)
    a, b = saved._ring.window(), shown._ring.window()
    np.testing.assert_array_equal(a.values["frame"], b.values["frame"])
    np.testing.assert_array_equal(a.valid["frame"], b.valid["frame"])
    assert np.array_equal(saved.act().values, shown.act().values)
    with pytest.raises(UserError, match="every tick"):
        saved.observe(replace(later, stamp_ns=later.stamp_ns + 2 * PERIOD_NS))


def test_a_memory_of_another_run_of_the_clock_keeps_no_frames(config, embodiment, recordings):
    policy = make_policy(config, embodiment, recordings)
    policy.reset(episode(seed=3))
    rows = list(rows_of(make_recording(12, seed=4)))
    for row in rows:
        policy.observe(row)
    policy.load_memory(policy.save_memory())
    policy.observe(replace(rows[0], stamp_ns=2 * PERIOD_NS))
    assert len(policy._ring) == 1 and policy.act().stamp_ns == 2 * PERIOD_NS


def test_the_training_range_is_that_of_the_normalisers(config, embodiment, recordings):
    policy = make_policy(config, embodiment, recordings)
    low, high = policy.observed_range()["place"]
    seen = np.concatenate([r.values["place"] for r in recordings])
    np.testing.assert_allclose(low, seen.min(axis=0), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(high, seen.max(axis=0), rtol=1e-6, atol=1e-4)
