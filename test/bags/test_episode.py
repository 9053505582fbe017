"""Rows and actions of an episode, against plain recomputation and against the live builder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bag_maker as maker
import numpy as np
import pytest
from bag_maker import MS, START_NS, Entry

from embodied_rl.bags.episode import Episode, read_episode
from embodied_rl.bags.options import Options
from embodied_rl.bags.read import Bag
from embodied_rl.core.decode import decode
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.core.window import History, RowBuilder, history_indices

TICKS = START_NS + 100 * MS * np.arange(21)


def read(path: Path, embodiment: Embodiment | None = None, keys=None) -> Episode:
    with Bag.open(path) as bag:
        return read_episode(bag, embodiment, keys)


def record(folder: Path, script: maker.Script, embodiment=None, keys=None) -> Episode:
    return read(maker.write(folder / "bag", script), embodiment, keys)


def only_line(episode: Episode, *parts: str) -> None:
    lines = episode.report.lines()
    assert len(lines) == 1, lines
    for part in ("bag: ", "expected ", ", saw ", *parts):
        assert part in lines[0], (part, lines[0])


def moved(entry: Entry, stamp_ns: int) -> Entry:
    """The same message with another stamp."""
    return replace(entry, message=replace(entry.message, header=maker.header(stamp_ns)))


def test_a_sound_episode(tmp_path):
    episode = record(tmp_path, maker.episode(2.0))
    assert episode.report.lines() == []
    assert episode.info == EpisodeInfo(3, 42, "test", "lift the cube", START_NS)
    assert episode.outcome == Outcome(True, True, "placed", 1.0)
    assert episode.instruction == "lift the cube"
    np.testing.assert_array_equal(episode.stamps_ns, TICKS)
    for tick, position, velocity, tool, camera in zip(
        TICKS, *(episode.values[key] for key in ("position", "velocity", "tool", "camera"))
    ):
        value = maker.wave(int(tick))  # every stream has a sample at each tick
        assert position.tolist() == [value, -value]
        assert velocity.tolist() == [10 * value, -10 * value]
        assert tool.tolist() == [value, 2 * value, 3 * value]
        np.testing.assert_array_equal(camera, maker.pixels(int(tick) // (100 * MS)))
    assert all(valid.all() for valid in episode.valid.values())
    assert episode.values["camera"].dtype == np.uint8
    assert episode.actions.dtype == np.float64


def test_windows_equal_the_live_ones_bit_for_bit(tmp_path):
    """Messages with delays, a dropped camera frame and one out of order; the live builder takes
    them as they arrive and builds a row when nothing is owed."""
    rng = np.random.default_rng(1)
    script = maker.episode(3.0)
    script = script.change("/camera/image_raw", lambda i, e: None if i in (7, 15, 16, 17) else e)
    script = maker.Script(
        sorted(
            (replace(e, log_ns=e.log_ns + int(rng.integers(0, 15)) * MS) for e in script.entries),
            key=lambda e: e.log_ns,
        )
    )
    episode = record(tmp_path, script)
    robot = maker.robot()
    builder, history = RowBuilder(robot, robot.streams), History(4, 2)
    builder.reset(START_NS)
    topics = {f"/{topic}": streams for topic, streams in robot.topics().items()}
    tick, count = START_NS, 0

    def compare() -> None:
        nonlocal tick, count
        history.push(builder.row(tick))
        live = history.window()
        index, inside = history_indices(count, 4, 2)
        np.testing.assert_array_equal(inside, live.inside)
        for key in robot.streams:
            stored = episode.values[key][index]
            assert stored.tobytes() == live.values[key].tobytes()
            assert stored.dtype == live.values[key].dtype
            np.testing.assert_array_equal(episode.valid[key][index] & inside, live.valid[key])
        tick += 100 * MS
        count += 1

    for entry in script.entries:
        for stream in topics.get(entry.topic, ()):
            builder.add(stream.key, decode(stream, entry.message))
        # the dead camera frames never come: after a while the live node goes on without them
        while count < len(episode) and (builder.complete(tick) or entry.log_ns > tick + 150 * MS):
            compare()
    assert count >= len(episode) - 2
    assert not episode.valid["camera"].all()


@pytest.mark.parametrize("executed", [True, False])
def test_actions_are_the_targets_of_the_next_tick(tmp_path, executed):
    episode = record(tmp_path, maker.episode(2.0, executed=executed))
    due = (TICKS + 100 * MS) / 1e9
    wanted = np.stack([np.sin(due), np.cos(due), np.sin(due)], axis=1)
    np.testing.assert_allclose(episode.actions, wanted, atol=1e-12)
    assert episode.action_valid.all()
    assert episode.report.lines() == []


def test_a_later_chunk_takes_over_from_its_stamp_on(tmp_path):
    script = maker.episode(2.0)

    def edit(number: int, entry: Entry) -> Entry | None:
        if number == 2:  # stamp 0.4 s: its third target lies at 0.7 s, after the next chunk's stamp
            return replace(
                entry, message=maker.trajectory(START_NS + 400 * MS, "abg", np.full((5, 3), 9.0))
            )
        return None if number in (3, 4, 5, 6) else entry  # the next one comes at 1.4 s

    episode = record(tmp_path, script.change("/command/executed", edit))
    np.testing.assert_array_equal(episode.actions[4:9], np.full((5, 3), 9.0))
    np.testing.assert_array_equal(episode.actions[9:14], np.full((5, 3), 9.0))  # held meanwhile
    np.testing.assert_allclose(episode.actions[14], maker.targets(int(TICKS[14]))[0])
    # the same number of targets, but the chunk at 0.6 s is there: it rules from its stamp on
    kept = maker.write(
        tmp_path / "kept",
        script.change("/command/executed", lambda i, e: edit(i, e) if i == 2 else e),
    )
    np.testing.assert_allclose(read(kept).actions[6], maker.targets(int(TICKS[6]))[0])


@pytest.mark.parametrize(("rate_hz", "ahead_ms"), [(40, 25), (10, 90), (4, 60), (25, 1)])
def test_streamed_points_hold_until_the_next_one(tmp_path, rate_hz, ahead_ms):
    """A teleoperation: trajectories of one point that end before the next tick, or the next one."""
    script = maker.episode(2.0, executed=False).without("/arm/joint_trajectory")
    period = round(1000 / rate_hz) * MS
    sent = list(range(START_NS + 13 * MS, START_NS + 1600 * MS, period))
    for stamp in sent:
        value = [[stamp / 1e9, -stamp / 1e9]]
        message = maker.trajectory(stamp, "ab", value, period_ns=ahead_ms * MS)
        script.add(stamp + MS, "/arm/joint_trajectory", message)
    script.entries.sort(key=lambda entry: entry.log_ns)
    episode = record(tmp_path, script)
    assert not episode.action_valid[0]  # nothing had been sent yet
    assert episode.action_valid[1:].all()  # also after the last one, to the end of the episode
    for tick, action in zip(episode.stamps_ns[1:], episode.actions[1:]):
        newest = max(stamp for stamp in sent if stamp <= tick)
        np.testing.assert_allclose(action[0], newest / 1e9, atol=1e-9)


def test_commands_of_the_episode_before_do_not_count(tmp_path):
    script = maker.episode(2.0).change("/command/executed", lambda i, e: None if i == 0 else e)
    old = maker.trajectory(START_NS - 100 * MS, "abg", np.full((8, 3), 5.0))
    script.entries.insert(0, Entry(START_NS - 90 * MS, "/command/executed", old))
    episode = record(tmp_path, script)
    assert not episode.action_valid[:2].any()
    assert episode.action_valid[2:].all()


def test_foreign_bag_begins_with_its_first_full_row(tmp_path):
    """No episode/start, no embodiment inside, a namespace, a camera that starts late, commands on
    the actuator topics, logged by the wall clock."""
    script = maker.episode(2.0, executed=False, own=False)
    script = script.change("/camera/image_raw", lambda i, e: None if i < 4 else e)
    offset = 1_700_000_000 * 10**9
    script = maker.Script(
        [replace(e, topic=f"/robot1{e.topic}", log_ns=e.log_ns + offset) for e in script.entries]
    )
    with pytest.raises(UserError, match="--embodiment"):
        record(tmp_path, script)
    episode = read(tmp_path / "bag", maker.robot())
    np.testing.assert_array_equal(episode.stamps_ns, TICKS[4:])
    assert episode.info is None and episode.outcome is None
    assert all(valid.all() for valid in episode.valid.values())
    due = (TICKS[4:] + 100 * MS) / 1e9
    np.testing.assert_allclose(episode.actions[:, 2], np.sin(due), atol=1e-12)
    assert episode.report.lines() == []


def test_two_robots_in_a_bag_need_a_choice(tmp_path):
    script = maker.episode(0.5, own=False)
    both = [
        replace(e, topic=f"/{name}{e.topic}") for e in script.entries for name in ("one", "two")
    ]
    path = maker.write(tmp_path / "bag", maker.Script(both))
    with pytest.raises(UserError, match="/one.*/two.*--namespace"):
        read(path, maker.robot())
    with Bag.open(path) as bag:
        assert len(read_episode(bag, maker.robot(), options=Options(namespace="/two"))) == 6


def test_missing_stream(tmp_path):
    script = maker.episode(2.0).without("/camera/image_raw")
    path = maker.write(tmp_path / "bag", script)
    episode = read(path, keys=["position", "camera"])
    only_line(episode, "/camera/image_raw", "no such topic")
    assert len(episode) == 21
    assert not episode.valid["camera"].any()
    assert not episode.values["camera"].any()
    assert episode.valid["position"].all()
    # whoever does not ask for it has a sound episode
    rest = read(path, keys=["position", "tool"])
    assert rest.report.lines() == []
    assert list(rest.values) == ["position", "tool"]
    # and whoever asks for nothing in particular gets what was recorded, with a remark
    whole = read(path)
    only_line(whole, "bag", "not recorded: camera")
    assert not whole.report.damaged
    assert "camera" not in whole.values


def test_gap_in_a_stream(tmp_path):
    script = maker.episode(5.0).change("/tool/pose", lambda i, e: None if 20 < i < 70 else e)
    episode = record(tmp_path, script)
    ticks = START_NS + 100 * MS * np.arange(51)
    last = START_NS + 20 * 50 * MS
    back = START_NS + 70 * 50 * MS
    valid = (ticks <= last + 200 * MS) | (ticks >= back)
    np.testing.assert_array_equal(episode.valid["tool"], valid)
    assert np.isnan(episode.values["tool"][~valid]).all()
    only_line(episode, "/tool/pose", f"none at {np.count_nonzero(~valid)} of 51 ticks")


def test_wrong_type(tmp_path):
    script = maker.episode(1.0).change(
        "/tool/pose", lambda i, e: replace(e, message=maker.array([1.0]))
    )
    episode = record(tmp_path, script)
    only_line(
        episode, "/tool/pose", "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64MultiArray"
    )
    assert not episode.valid["tool"].any()
    assert episode.valid["position"].all()


def test_wrong_encoding_is_one_line(tmp_path):
    def edit(number: int, entry: Entry) -> Entry:
        return replace(entry, message=replace(entry.message, encoding="bgr8"))

    episode = record(tmp_path, maker.episode(1.0).change("/camera/image_raw", edit))
    lines = episode.report.lines()
    assert "expected encoding rgb8, saw 'bgr8'" in lines[0] and lines[0].endswith("(11 times)")
    assert not episode.valid["camera"].any()


def test_bytes_that_are_no_message(tmp_path):
    path = maker.write(tmp_path / "bag", maker.episode(1.0))
    file = path / "bag.mcap"
    data = bytearray(file.read_bytes())
    place = data.find(b"extra")  # a joint's name in the first message
    data[place - 8 : place - 4] = (10**6).to_bytes(4, "little")
    file.write_bytes(data)
    episode = read(path)
    assert any("/joint_states" in line for line in episode.report.lines())
    assert np.count_nonzero(~episode.valid["position"]) <= 1


def test_nan_in_a_message(tmp_path):
    def edit(number: int, entry: Entry) -> Entry:
        if number != 25:
            return entry
        return replace(entry, message=maker.joint_state(START_NS + 500 * MS, float("nan")))

    episode = record(tmp_path, maker.episode(1.0).change("/joint_states", edit))
    assert episode.valid["position"].all()  # the sample of 20 ms before stands in
    assert episode.values["position"][5, 0] == maker.wave(START_NS + 480 * MS)
    assert len(episode.report.lines()) == 1
    assert "finite" in episode.report.lines()[0]


def test_out_of_order_and_duplicate_stamps(tmp_path):
    sound = record(tmp_path, maker.episode(2.0))
    script = maker.episode(2.0)
    joints = [i for i, e in enumerate(script.entries) if e.topic == "/joint_states"]
    a, b = joints[40], joints[41]
    script.entries[a], script.entries[b] = script.entries[b], script.entries[a]
    script.entries.insert(b, replace(script.entries[b]))
    swapped = read(maker.write(tmp_path / "swapped", script))
    for key in sound.values:
        np.testing.assert_array_equal(swapped.values[key], sound.values[key])
        assert swapped.valid[key].all()
    lines = swapped.report.lines()
    assert len(lines) == 1 and "/joint_states" in lines[0] and "rising stamps" in lines[0]


@pytest.mark.parametrize("leap_s", [-4.0, 100.0])
def test_a_lone_spoilt_stamp(tmp_path, leap_s):
    def edit(number: int, entry: Entry) -> Entry:
        return moved(entry, START_NS + 2000 * MS + round(leap_s * 1e9)) if number == 30 else entry

    episode = record(tmp_path, maker.episode(2.0).change("/tool/pose", edit), maker.robot())
    np.testing.assert_array_equal(episode.stamps_ns, TICKS)
    assert episode.valid["tool"].all()
    assert any("a lone" in line and "/tool/pose" in line for line in episode.report.lines())


def test_clock_set_back(tmp_path):
    """The simulator began anew while the recorder ran: the run with the start is the episode."""
    old = maker.episode(1.0, start_ns=500 * 10**9, own=False)
    new = maker.episode(2.0)
    script = maker.Script([*old.entries, *new.entries])
    episode = record(tmp_path, script)
    np.testing.assert_array_equal(episode.stamps_ns, TICKS)
    assert episode.info is not None
    assert all(valid.all() for valid in episode.valid.values())
    np.testing.assert_allclose(episode.actions[0], maker.targets(START_NS)[0])
    lines = episode.report.lines()
    assert any("a clock that runs on" in line for line in lines)
    # without a start the longer run is used
    rest = maker.episode(2.0, own=False)
    path = maker.write(tmp_path / "rest", maker.Script([*old.entries, *rest.entries]))
    np.testing.assert_array_equal(read(path, maker.robot()).stamps_ns, TICKS)
    path = maker.write(tmp_path / "tser", maker.Script([*rest.entries, *old.entries]))
    np.testing.assert_array_equal(read(path, maker.robot()).stamps_ns, TICKS)


def test_a_stream_of_another_clock(tmp_path):
    def edit(number: int, entry: Entry) -> Entry:
        return moved(entry, entry.message.header.stamp.sec * 10**9 + 1_700_000_000 * 10**9)

    episode = record(tmp_path, maker.episode(1.0).change("/camera/image_raw", edit))
    assert len(episode) == 11
    assert not episode.valid["camera"].any()
    assert any("within 10 s of the other streams" in line for line in episode.report.lines())


def test_truncated_last_chunk(tmp_path):
    path = maker.write(tmp_path / "bag", maker.episode(2.0))
    file = path / "bag.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: data.find(b"\x06", 100) + int(len(data) * 0.4)])
    (path / "metadata.yaml").unlink()
    episode = read(path)
    assert 0 < len(episode) < 21
    assert episode.valid["position"].all()
    assert episode.action_valid[:-2].all()
    assert len(episode.report.lines()) >= 2


@pytest.mark.parametrize(("start_s", "rows"), [(-1000, 11), (1000, 0)])
def test_start_that_is_far_from_the_streams(tmp_path, start_s, rows):
    script = maker.episode(1.0, 5_000 * 10**9)
    info = EpisodeInfo(0, 0, "t", "i", (5_000 + start_s) * 10**9)
    script = script.change(
        "/episode/start", lambda i, e: replace(e, message=maker.string(info.to_yaml()))
    )
    episode = record(tmp_path, script)
    assert "bag: /episode/start: expected streams from start_ns" in episode.report.lines()[0]
    assert len(episode) == rows


def test_rows_end_with_the_outcome(tmp_path):
    """What is recorded after it is not of the episode, but for messages that were overtaken."""
    script = maker.episode(1.0)
    after = maker.episode(3.0, START_NS + 1000 * MS, own=False)
    script.entries += after.entries[8:]
    assert len(record(tmp_path, script)) == 11 + 5


def test_nothing_usable(tmp_path):
    script = maker.Script([e for e in maker.episode(1.0).entries if "/camera" not in e.topic])
    episode = record(tmp_path, script, keys=["camera"])
    assert len(episode) == 0
    assert episode.values["camera"].shape == (0, 6, 8, 3)
    assert any("no usable row" in line for line in episode.report.lines())
