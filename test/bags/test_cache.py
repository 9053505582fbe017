"""The dataset cache: equal to the episodes in memory, resumable, and refused where it must be."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import bag_maker as maker
import numpy as np
import pytest

from embodied_rl.bags import convert as convert_module
from embodied_rl.bags.arrays import ArrayWriter
from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.core.errors import UserError
from embodied_rl.core.window import history_indices


@pytest.fixture
def bags(tmp_path) -> Path:
    root = tmp_path / "bags"
    for number, seconds in enumerate((1.0, 2.0, 0.5)):
        maker.write(root / f"episode_{number:06d}", maker.episode(seconds))
    return root


def test_cache_equals_the_episodes(bags, tmp_path):
    summary = convert(bags, tmp_path / "cache", workers=1)
    assert [result.rows for result in summary.results] == [11, 21, 6]
    cache = EpisodeCache(tmp_path / "cache")
    assert len(cache) == 3
    assert cache.keys == ("camera", "position", "tool", "velocity")
    cache.require(maker.robot())
    for cached in cache:
        with Bag.open(bags / cached.name) as bag:
            episode = read_episode(bag)
        assert len(cached) == len(episode)
        assert (cached.info, cached.outcome) == (episode.info, episode.outcome)
        assert cached.instruction == "lift the cube"
        assert cached.report == []
        np.testing.assert_array_equal(cached.stamps_ns, episode.stamps_ns)
        np.testing.assert_array_equal(cached.actions, episode.actions)
        np.testing.assert_array_equal(cached.action_valid, episode.action_valid)
        for key in cache.keys:
            assert cached.values(key).dtype == episode.values[key].dtype
            np.testing.assert_array_equal(cached.values(key), episode.values[key])
            np.testing.assert_array_equal(cached.valid(key), episode.valid[key])
    index, inside = history_indices(3, 4, 2)
    assert cache[1].values("camera")[index].shape == (4, 6, 8, 3)
    assert inside.tolist() == [False, False, True, True]


def test_processes_give_the_same(bags, tmp_path):
    seen = []
    convert(bags, tmp_path / "one", workers=1)
    convert(bags, tmp_path / "two", workers=2, progress=lambda done, total: seen.append(done))
    assert seen == [0, 1, 2, 3]
    for path in (tmp_path / "one").rglob("*.*"):
        if path.is_file():
            other = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == other.read_bytes(), path


def test_large_arrays_are_mapped(tmp_path):
    text = maker.ROBOT.replace("[6, 8, 3]", "[120, 160, 3]")
    script = maker.Script()
    for i in range(30):
        now = 10**9 + i * 10**8
        pixels = np.full((120, 160, 3), i, np.uint8)
        script.add(now, "/camera/image_raw", maker.image(now, pixels))
    maker.write(tmp_path / "bag", script)
    robot = maker.robot(text)
    convert(tmp_path / "bag", tmp_path / "cache", embodiment=robot, keys=["camera"], workers=1)
    (episode,) = EpisodeCache(tmp_path / "cache")
    values = episode.values("camera")
    assert isinstance(values, np.memmap)
    assert values[:, 0, 0, 0].tolist() == list(range(30))


def test_resumes_and_redoes_only_what_changed(bags, tmp_path, monkeypatch):
    out, done = tmp_path / "cache", []
    real = convert_module.convert_bag

    def counting(job):
        if len(done) == 1 and stop:
            raise KeyboardInterrupt
        done.append(job.bag.name)
        return real(job)

    monkeypatch.setattr(convert_module, "convert_bag", counting)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        convert(bags, out, workers=1)
    with pytest.raises(UserError, match="interrupted conversion"):
        EpisodeCache(out)
    stop = False
    summary = convert(bags, out, workers=1)
    assert done == ["episode_000000", "episode_000001", "episode_000002"]
    assert [result.reused for result in summary.results] == [True, False, False]
    assert len(EpisodeCache(out)) == 3

    done.clear()
    convert(bags, out, workers=1)
    assert done == []
    shutil.rmtree(bags / "episode_000001")
    maker.write(bags / "episode_000001", maker.episode(1.5))
    os.truncate(out / "episode_000002" / "actions.npy", 100)  # as after a power cut
    convert(bags, out, workers=1)
    assert done == ["episode_000001", "episode_000002"]
    assert [len(episode) for episode in EpisodeCache(out)] == [11, 16, 6]


def test_other_streams_or_another_robot_are_refused(bags, tmp_path):
    out = tmp_path / "cache"
    convert(bags, out, keys=["tool", "position"], workers=1)
    with pytest.raises(UserError, match=r"\['camera'\], saw \['position', 'tool'\]"):
        convert(bags, out, keys=["camera"], workers=1)
    with pytest.raises(UserError, match="expected stream 'camera'"):
        EpisodeCache(out, ["camera"])
    with pytest.raises(UserError, match="no stream 'nose'"):
        convert(bags, tmp_path / "other", keys=["nose"], workers=1)
    robot = maker.robot(maker.ROBOT.replace("unit: m\n", "unit: ''\n"))
    mine = maker.robot().contract_hash(["position", "tool"])
    with pytest.raises(UserError, match=rf"{robot.contract_hash(['position', 'tool'])}.*{mine}"):
        convert(bags, out, embodiment=robot, keys=["tool", "position"], workers=1)
    with pytest.raises(UserError, match=mine):
        EpisodeCache(out).require(robot)


def test_a_bag_of_another_robot_is_left_out(bags, tmp_path):
    other = maker.ROBOT.replace("unit: m\n", "unit: ''\n")
    script = maker.episode(1.0)
    script.entries[0] = maker.Entry(maker.START_NS, "/embodiment", maker.string(other))
    maker.write(bags / "episode_000003", script)
    summary = convert(bags, tmp_path / "cache", workers=1)
    assert [result.rows for result in summary.results] == [11, 21, 6, 0]
    (line,) = [line for line in summary.results[3].lines if "check sums" not in line]
    assert line.startswith("episode_000003: expected embodiment testbot (")
    assert len(EpisodeCache(tmp_path / "cache")) == 3


def test_unsound_bags_are_used_and_reported(bags, tmp_path):
    maker.write(bags / "episode_000003", maker.episode(1.0).without("/camera/image_raw"))
    (bags / "episode_000004").mkdir()
    (bags / "episode_000004" / "x.mcap").write_bytes(b"nothing")
    old = maker.episode(1.0, start_ns=500 * 10**9, own=False)  # the clock is set back in it
    new = maker.episode(2.0)
    maker.write(bags / "episode_000005", maker.Script([*old.entries, *new.entries]))
    summary = convert(bags, tmp_path / "cache", workers=1)
    assert [result.rows for result in summary.results] == [11, 21, 6, 11, 0, 21]
    cache = EpisodeCache(tmp_path / "cache")
    assert [episode.name[-1] for episode in cache] == ["0", "1", "2", "3", "5"]
    assert not cache[3].valid("camera").any()
    assert "/camera/image_raw" in cache[3].report[0]
    np.testing.assert_array_equal(cache[4].stamps_ns, cache[1].stamps_ns)
    np.testing.assert_array_equal(cache[4].values("camera"), cache[1].values("camera"))


def test_no_second_conversion_at_the_same_time(bags, tmp_path):
    with (
        convert_module._claimed(tmp_path / "cache"),
        pytest.raises(UserError, match="another conversion"),
    ):
        convert(bags, tmp_path / "cache", workers=1)


def test_leftovers_of_a_killed_conversion_are_removed(bags, tmp_path):
    """Also those that a worker writes which outlived it: its process is in their name."""
    out = tmp_path / "cache"
    (out / ".episode_000001.4194305.tmp").mkdir(parents=True)
    (out / ".episode_000001.4194305.tmp" / "values.npy").write_bytes(b"half")
    (out / ".index.yaml.0badcafe.tmp").write_text("half")
    convert(bags, out, workers=1)
    assert not list(out.glob(".*.tmp"))
    assert len(EpisodeCache(out)) == 3


def test_full_disk_for_the_index(bags, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("embodied_rl.core.checkpoint.os.replace", full)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        convert(bags, tmp_path / "cache", workers=1)


def test_missing_or_strange_caches(tmp_path):
    with pytest.raises(UserError, match="index.yaml"):
        EpisodeCache(tmp_path)
    (tmp_path / "index.yaml").write_text("format: 9")
    with pytest.raises(UserError, match="expected format 2, saw 9"):
        EpisodeCache(tmp_path)


@pytest.mark.parametrize("shape", [(), (3,), (100, 700)])
def test_array_writer(tmp_path, shape):
    rows = np.random.default_rng(0).normal(size=(17, *shape)).astype("float32")
    with ArrayWriter(tmp_path / "a.npy", shape, "float32") as writer:
        for row in rows:
            writer.append(row)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)
    with pytest.raises(ValueError, match="expected rows"):
        ArrayWriter(tmp_path / "b.npy", (2,), "float32").append(np.zeros(3))
