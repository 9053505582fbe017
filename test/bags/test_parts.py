"""Every episode is found: several in a bag, single files in a folder, equal names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import bag_maker as maker
import numpy as np
import pytest
from bag_maker import MS, START_NS

from embodied_rl.bags import cache
from embodied_rl.bags import metadata as meta
from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.bags.check import check
from embodied_rl.bags.convert import convert
from embodied_rl.bags.copies import PROVENANCE
from embodied_rl.bags.cut import cut
from embodied_rl.bags.merge import merge
from embodied_rl.bags.options import Options
from embodied_rl.bags.parts import Cuts
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.core.errors import UserError

S = 1000 * MS


def demonstrations(starts_s, seconds=3.0, own=True) -> maker.Script:
    """Several one after the other; ``own`` ones declare start and outcome."""
    script = maker.Script()
    for start in starts_s:
        script.entries += maker.episode(seconds, START_NS + start * S, own=own).entries
    return script


def lengths(folder: Path) -> list[int]:
    return [len(episode) for episode in EpisodeCache(folder)]


def test_declared_episodes_of_one_bag(tmp_path):
    maker.write(tmp_path / "day", demonstrations([0, 4, 8, 12, 16]))
    summary = convert(tmp_path / "day", tmp_path / "out", workers=1)
    assert lengths(tmp_path / "out") == [31] * 5
    for number, episode in enumerate(EpisodeCache(tmp_path / "out")):
        start = START_NS + 4 * number * S
        assert episode.stamps_ns[0] == start and episode.info.start_ns == start
        assert episode.outcome is not None and episode.action_valid.all()
        wanted = [maker.wave(int(tick)) for tick in episode.stamps_ns]
        np.testing.assert_array_equal(episode.values("position")[:, 0], wanted)
    (result,) = summary.results
    assert len(result.folders) == 5 and result.rows == 155
    again = convert(tmp_path / "day", tmp_path / "out", workers=1)
    assert again.results[0].reused and lengths(tmp_path / "out") == [31] * 5
    shutil.rmtree(tmp_path / "out" / "day.003")
    assert not convert(tmp_path / "day", tmp_path / "out", workers=1).results[0].reused
    assert lengths(tmp_path / "out") == [31] * 5


@pytest.mark.parametrize(
    ("cuts", "wanted"),
    [
        (Cuts(), [31, 31, 31]),  # silences of 17 s
        (Cuts(gap_s=20), [431]),
        (Cuts(at_s=(15.0,)), [31, 31, 31]),
    ],
)
def test_silences(tmp_path, cuts, wanted):
    maker.write(tmp_path / "day", demonstrations([0, 20, 40], own=False))
    convert(tmp_path / "day", tmp_path / "out", embodiment=maker.robot(), workers=1,
            options=Options(cuts=cuts))  # fmt: skip
    assert lengths(tmp_path / "out") == wanted


def test_cuts_and_marks(tmp_path):
    script = maker.episode(12.0, own=False)
    for second in (1, 5, 9):
        script.add(START_NS + second * S, "/button", maker.make("std_msgs/msg/Empty"))
    script.entries.sort(key=lambda entry: entry.log_ns)
    maker.write(tmp_path / "day", script)
    robot = maker.robot()
    for name, cuts, wanted in (
        ("cut", Cuts(at_s=(4.0, 8.0)), [40, 40, 41]),
        ("marks", Cuts(marks="/button"), [40, 40, 31]),
    ):
        options = Options(cuts=cuts)
        convert(tmp_path / "day", tmp_path / name, embodiment=robot, workers=1, options=options)
        found = lengths(tmp_path / name)
        assert len(found) == 3 and np.abs(np.subtract(found, wanted)).max() <= 1
    with pytest.raises(UserError, match="marks"), Bag.open(tmp_path / "day") as bag:
        cut(bag, tmp_path / "none", Options(cuts=Cuts(marks="/no")))
    (place,) = find_bags(tmp_path / "day")
    result = check(place, robot, options=Options(cuts=Cuts(at_s=(4.0, 99.0))))
    assert result.damaged and "--cut" in result.lines[0]


def test_half_a_demonstration(tmp_path):
    script = maker.episode(2.0)
    maker.write(tmp_path / "half", script.without("/episode/outcome"))
    maker.write(tmp_path / "whole", script)
    (half, whole) = (check(place) for place in find_bags(tmp_path))
    assert half.unfinished == 1 and whole.unfinished == 0
    assert any("no outcome" in line for line in half.lines) and not half.damaged
    summary = convert(tmp_path, tmp_path / "out", workers=1)
    assert [result.unfinished for result in summary.results] == [1, 0]
    assert [e.record.unfinished for e in EpisodeCache(tmp_path / "out")] == [True, False]


def single(folder: Path, name: str, script: maker.Script, storage=maker.StoragePlugin.MCAP) -> None:
    """One data file without its metadata."""
    path = maker.write(folder / "tmp", script, storage)
    (file,) = [file for file in path.iterdir() if file.name != "metadata.yaml"]
    shutil.move(file, folder / (name + file.suffix))
    shutil.rmtree(path)


def test_a_folder_of_single_files(tmp_path):
    folder = tmp_path / "demos"
    folder.mkdir()
    for number in range(4):
        script = maker.episode(2.0 + number, START_NS + 30 * number * S)
        kind = maker.StoragePlugin.SQLITE3 if number == 2 else maker.StoragePlugin.MCAP
        single(folder, f"demo_{number}", script, kind)
    assert len(find_bags(folder)) == 4
    convert(folder, tmp_path / "out", workers=1)
    assert lengths(tmp_path / "out") == [21, 31, 41, 51]


def test_split_and_per_topic_files(tmp_path):
    script = maker.episode(6.0, own=False)
    third = len(script.entries) // 3
    split = tmp_path / "split"
    split.mkdir()
    for number in (2, 0, 1):
        part = maker.Script(script.entries[number * third : (number + 1) * third or None])
        if number == 2:
            part = maker.Script(script.entries[2 * third :])
        single(split, f"run_{number}", part)
    topics = tmp_path / "topics"
    topics.mkdir()
    for number, topic in enumerate(sorted({entry.topic for entry in script.entries})):
        single(
            topics, f"file{number}", maker.Script([e for e in script.entries if e.topic == topic])
        )
    maker.write(tmp_path / "whole", script)
    names = [bag.name for bag in find_bags(tmp_path)]
    assert names == ["split", "topics", "whole"]
    convert(tmp_path, tmp_path / "out", embodiment=maker.robot(), workers=1)
    first, second, third_ = EpisodeCache(tmp_path / "out")
    for key in ("position", "camera", "tool"):
        np.testing.assert_array_equal(first.values(key), third_.values(key))
        np.testing.assert_array_equal(second.values(key), third_.values(key))
    np.testing.assert_array_equal(second.actions, third_.actions)


def test_names_in_the_cache_never_collide(tmp_path):
    bags = ["episode_000000", "episode_000000.partial", "a/b", "a__b", "a.000", "b c", "b_c",
            "a_/b", "a/_b", "x/y__z", "x__y/z"]  # fmt: skip
    for number, name in enumerate(bags):
        maker.write(tmp_path / "bags" / name, maker.episode(1.0 + number / 10))
    convert(tmp_path / "bags", tmp_path / "out", workers=1)
    found = {e.record.bag: len(e) for e in EpisodeCache(tmp_path / "out")}
    assert found == {name: 11 + number for number, name in enumerate(bags)}
    names = {cache.folder_name(bag, i, n) for bag in bags for n in (1, 3) for i in range(n)}
    assert len(names) == 4 * len(bags)


def test_cut_and_merge(tmp_path):
    script = demonstrations([0, 5, 10])
    with Bag.open(maker.write(tmp_path / "day", script)) as bag:
        written = cut(bag, tmp_path / "parts")
        fingerprint = bag.place.fingerprint()
    assert [made.name for made in written] == ["parts_000", "parts_001", "parts_002"]
    convert(tmp_path / "parts", tmp_path / "cache", workers=1)
    assert lengths(tmp_path / "cache") == [31, 31, 31]
    described = meta.parse((tmp_path / "parts/parts_001/metadata.yaml").read_text(), tmp_path)
    note = json.loads(described.custom[PROVENANCE])
    assert note["source"] == "day" and note["fingerprint"] == fingerprint
    with Bag.open(tmp_path / "parts/parts_001") as bag:
        assert bag.topics["/embodiment"].count >= 1  # latched, said before the cut
    with Bag.open(tmp_path / "day") as bag, pytest.raises(UserError, match="exists"):
        cut(bag, tmp_path / "parts")

    whole = maker.episode(3.0)
    camera = maker.Script([e for e in whole.entries if "camera" in e.topic])
    maker.write(tmp_path / "two" / "camera", camera)
    maker.write(tmp_path / "two" / "rest", whole.without("/camera/image_raw"))
    made, lines = merge(find_bags(tmp_path / "two"), tmp_path / "merged")
    assert lines == [] and made.messages == len(whole.entries)
    with Bag.open(tmp_path / "merged") as bag:
        logs = [message.log_time_ns for message in bag.messages()]
        assert logs == sorted(entry.log_ns for entry in whole.entries)
        assert bag.report.lines() == []
    convert(tmp_path / "merged", tmp_path / "one", workers=1)
    assert lengths(tmp_path / "one") == [31]
    other = maker.episode(1.0).change(
        "/tool/pose", lambda i, e: replace(e, message=maker.array([1.0]))
    )
    maker.write(tmp_path / "two" / "other", other)
    with pytest.raises(UserError, match="/tool/pose: expected"):
        merge(find_bags(tmp_path / "two"), tmp_path / "again")
    assert not (tmp_path / "again").exists()
