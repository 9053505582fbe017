"""One bad stream is the one that is blamed: dead, stale, of another clock, late in the file."""

from __future__ import annotations

from dataclasses import replace

import bag_maker as maker
import numpy as np
import pytest
from bag_maker import MS, START_NS, Entry

from embodied_rl.bags.episode import Episode, read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.bags.rows import EpisodeReader

CAMERA = "/camera/image_raw"


def record(folder, script: maker.Script, **options) -> Episode:
    with Bag.open(maker.write(folder / "bag", script)) as bag:
        return read_episode(bag, maker.robot(), **options)


def foreign(seconds: float) -> maker.Script:
    return maker.episode(seconds, executed=False, own=False)


def others_are_whole(episode: Episode, seconds: float) -> None:
    assert len(episode) == round(seconds * 10) + 1
    for key in ("position", "velocity", "tool"):
        assert episode.valid[key].all(), key
    ticks = START_NS + 100 * MS * np.arange(len(episode))
    np.testing.assert_array_equal(episode.stamps_ns, ticks)
    wanted = [maker.wave(int(tick)) for tick in ticks]
    np.testing.assert_array_equal(episode.values["position"][:, 0], wanted)


@pytest.mark.parametrize("fault", ["encoding", "size", "dies"])
def test_a_camera_that_gives_nothing_sound(tmp_path, fault):
    def edit(number: int, entry: Entry) -> Entry | None:
        if fault == "dies":
            return entry if number == 0 else None
        message = entry.message
        if fault == "encoding":
            return replace(entry, message=replace(message, encoding="yuv422"))
        return replace(entry, message=replace(message, height=3))

    episode = record(tmp_path, foreign(30.0).change(CAMERA, edit))
    others_are_whole(episode, 30.0)
    assert episode.valid["camera"].sum() == (3 if fault == "dies" else 0)
    assert all(CAMERA in line for line in episode.report.lines())


@pytest.mark.parametrize("fault", ["encoding", "dies"])
def test_memory_stays_bounded_beside_a_bad_camera(tmp_path, fault):
    """What the row builder holds is a few seconds, however long the bag."""

    def edit(number: int, entry: Entry) -> Entry | None:
        if fault == "dies":
            return entry if number == 0 else None
        return replace(entry, message=replace(entry.message, encoding="yuv422"))

    most = 0
    with Bag.open(maker.write(tmp_path / "bag", foreign(40.0).change(CAMERA, edit))) as bag:
        reader = EpisodeReader(bag, maker.robot())
        for _ in reader.rows():
            held = reader._builder._buffers["position"].stamps
            most = max(most, held[-1] - held[0])
    assert most <= 11_000 * MS


@pytest.mark.parametrize("age_s", [5, 60, 4000])
@pytest.mark.parametrize("first", [True, False])
def test_a_latched_stream_that_is_old(tmp_path, age_s, first):
    """A pose that was latched before the recording began, as the first message or a later one."""
    script = foreign(12.0).without("/tool/pose")
    old = START_NS - age_s * 1000 * MS
    if old <= 0:
        old = 1
    place = 0 if first else 40
    log = START_NS if first else script.entries[place].log_ns
    script.entries.insert(place, Entry(log, "/tool/pose", maker.pose(old, 1.0)))
    episode = record(tmp_path, script)
    assert len(episode) == 121
    assert episode.valid["position"].all() and episode.valid["camera"].all()
    assert not episode.valid["tool"].any()
    assert all("/tool/pose" in line for line in episode.report.lines())


def test_a_latched_stream_counts_while_it_may(tmp_path):
    text = maker.ROBOT.replace("rate_hz: 20\n    max_age_s: 0.2", "rate_hz: 20\n    max_age_s: 100")
    script = foreign(3.0).without("/tool/pose")
    old = maker.pose(START_NS - 4000 * MS, 1.0)
    script.entries.insert(0, Entry(START_NS, "/tool/pose", old))
    with Bag.open(maker.write(tmp_path / "bag", script)) as bag:
        episode = read_episode(bag, maker.robot(text))
    assert len(episode) == 31
    assert episode.valid["tool"].all() and (episode.values["tool"][:, 1] == 2.0).all()


def test_one_stream_whose_clock_is_set_while_the_others_run_on(tmp_path):
    def edit(number: int, entry: Entry) -> Entry:
        if number < 100:
            return entry
        stamp = START_NS + number * 50 * MS + 60_000 * MS
        return replace(entry, message=replace(entry.message, header=maker.header(stamp)))

    episode = record(tmp_path, foreign(12.0).change("/tool/pose", edit))
    assert len(episode) == 121
    assert episode.valid["position"].all() and episode.valid["camera"].all()
    assert not episode.valid["tool"][55:].any() and episode.valid["tool"][:49].all()
    assert all("/tool/pose" in line for line in episode.report.lines())


@pytest.mark.parametrize("storage", [maker.StoragePlugin.MCAP, maker.StoragePlugin.SQLITE3])
def test_a_bag_written_topic_by_topic(tmp_path, storage):
    sound = record(tmp_path, foreign(30.0))
    script = foreign(30.0)
    topics = ["/tool/pose", CAMERA, "/grip/commands", "/joint_states", "/arm/joint_trajectory"]
    script.entries.sort(key=lambda entry: (topics.index(entry.topic), entry.log_ns))
    with Bag.open(maker.write(tmp_path / "by_topic", script, storage)) as bag:
        episode = read_episode(bag, maker.robot())
    others_are_whole(episode, 30.0)
    assert episode.valid["camera"].all()
    np.testing.assert_array_equal(episode.values["camera"], sound.values["camera"])
    np.testing.assert_array_equal(episode.actions, sound.actions)
    (line,) = episode.report.lines()
    assert "late in the file; sorted" in line
    assert not episode.report.damaged


def test_one_topic_late_in_the_file(tmp_path):
    script = foreign(40.0)
    late = [entry for entry in script.entries if entry.topic == "/tool/pose"]
    rest = [entry for entry in script.entries if entry.topic != "/tool/pose"]
    mixed = sorted(
        [(entry.log_ns, 0, entry) for entry in rest]
        + [(entry.log_ns + 15_000 * MS, 1, entry) for entry in late],
        key=lambda item: item[:2],
    )
    episode = record(tmp_path, maker.Script([entry for *_, entry in mixed]))
    others_are_whole(episode, 40.0)
    assert not episode.report.damaged


def test_a_lone_stamp_ahead_does_not_stretch_an_episode(tmp_path):
    script = foreign(3.0)
    last = START_NS + 3000 * MS
    script.add(last + 10 * MS, "/joint_states", maker.joint_state(last + 6000 * MS, 0.0))
    assert len(record(tmp_path, script)) == 31


def test_topics_without_a_leading_slash(tmp_path):
    sound = record(tmp_path, foreign(2.0))
    bare = maker.Script([replace(e, topic=e.topic[1:]) for e in foreign(2.0).entries])
    with Bag.open(maker.write(tmp_path / "bare", bare)) as bag:
        episode = read_episode(bag, maker.robot())
    np.testing.assert_array_equal(episode.values["camera"], sound.values["camera"])
    np.testing.assert_array_equal(episode.actions, sound.actions)
    assert episode.report.lines() == []
