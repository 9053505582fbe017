"""Windows against a brute-force reading of the layout, tick by tick."""

from dataclasses import replace

import numpy as np
import pytest
from ptp_cases import make_recording

from embodied_rl.policies.ptp.data import PtpWindows, prepare
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.rows import RowCarrier


def brute_force(recording, tick, config):
    """One window straight from the words: frames `stride` apart, clamped at both ends."""
    last = len(recording.actions) - 1
    past = [max(tick - config.stride * k, 0) for k in range(config.history - 1, 0, -1)]
    future = [min(tick + k, last) for k in range(config.chunk)]
    frames = {k: v[[*past, tick]] for k, v in recording.values.items()}
    tokens = (past if config.past_tokens else []) + future
    return frames, recording.actions[tokens], recording.known[tokens]


@pytest.mark.parametrize("changes", [{}, {"history": 2}, {"past_tokens": False}, {"stride": 1}])
def test_windows_equal_brute_force(recordings, config, changes):
    config = replace(config, **changes)
    windows = PtpWindows(recordings, config)
    assert windows.rows.size == 61
    frames, actions, known = windows.batch(windows.rows)
    row = 0
    for recording in recordings:
        for tick in range(len(recording.actions)):
            one, act, kn = brute_force(recording, tick, config)
            for key in config.streams:
                np.testing.assert_array_equal(frames[key][row].numpy(), one[key].astype(np.float32))
            np.testing.assert_array_equal(actions[row].numpy(), act.astype(np.float32))
            np.testing.assert_array_equal(known[row].numpy(), kn)
            row += 1


def test_missing_streams_and_unknown_actions(config):
    recording = make_recording(12)
    recording.valid["thing"][[0, 1, 6]] = False
    recording.values["thing"][[0, 1, 6]] = np.nan
    recording.known[9] = False
    recording.actions[9] = np.nan
    prepared = prepare(recording, config.streams)
    # the episode begins at the first complete row, and a gap repeats the last valid value
    assert len(prepared.actions) == 10
    np.testing.assert_array_equal(prepared.rows("place"), recording.values["place"][2:])
    np.testing.assert_array_equal(prepared.rows("thing")[4], recording.values["thing"][5])
    windows = PtpWindows([recording], config)
    assert windows.rows.tolist() == [0, 1, 2, 3, 5, 6, 8, 9]  # no window ends at a gap
    frames, actions, known = windows.batch(windows.rows)
    assert all(v.isfinite().all() for v in frames.values()) and actions.isfinite().all()
    assert (~known).any()
    model = PtpModel(config, {"place": (2,), "thing": (3,)}, 2)
    windows.fit_limits(model)
    known_actions = recording.actions[2:][recording.known[2:]]
    np.testing.assert_allclose(model.actions.low.numpy(), known_actions.min(0), rtol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_preparing_equals_the_live_policys_carrier(config, seed):
    recording = make_recording(15, seed)
    rng = np.random.default_rng(seed)
    for key in config.streams:
        recording.valid[key][:] = rng.random(15) < 0.5
    carrier, rows, complete = RowCarrier(config.streams), [], []
    for i in range(15):
        row = carrier.push(
            {k: v[i] for k, v in recording.values.items()},
            {k: bool(v[i]) for k, v in recording.valid.items()},
        )
        if row is not None:
            rows.append(row)
            complete.append(not carrier.missing)
    prepared = prepare(recording, config.streams)
    assert len(prepared) == len(rows) > 0 and prepared.complete.tolist() == complete
    for key in config.streams:
        np.testing.assert_array_equal(prepared.rows(key), np.stack([row[key] for row in rows]))
        np.testing.assert_array_equal(prepared.rows(key, slice(1, 3)), prepared.rows(key)[1:3])
    np.testing.assert_array_equal(prepared.actions, recording.actions[-len(rows) :])


def test_recordings_without_a_complete_row(config):
    recording = make_recording(5)
    recording.valid["place"][:] = False
    assert prepare(recording, config.streams) is None
    with pytest.raises(ValueError, match="no recording"):
        PtpWindows([recording], config)


def test_split_is_by_episode(recordings, config):
    windows = PtpWindows(recordings, config)
    training, validation = windows.split(0.3, seed=0)
    assert sorted([*training, *validation]) == windows.rows.tolist()
    held = set(windows.episode[validation])
    assert len(held) == 1 and not held & set(windows.episode[training])
    assert windows.split(0.0, seed=0)[1].size == 0
    assert np.array_equal(windows.split(0.3, seed=0)[0], training)
