"""Bags written by ``rosbags`` read back, whole and damaged."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path

import bag_maker as maker
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2.enums import CompressionMode

from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.core.errors import UserError

MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3
WAYS = [
    (MCAP, None),
    (MCAP, CompressionMode.STORAGE),
    (MCAP, CompressionMode.FILE),
    (SQLITE, None),
    (SQLITE, CompressionMode.MESSAGE),
    (SQLITE, CompressionMode.FILE),
]


def contents(path: Path) -> tuple[list[tuple[str, int, bytes]], list[str]]:
    with Bag.open(path) as bag:
        found = [(m.topic, m.log_time_ns, bytes(m.data)) for m in bag.messages()]
        return found, bag.report.lines()


def expected(script: maker.Script) -> list[tuple[str, int, bytes]]:
    return [(entry.topic, entry.log_ns, entry.raw()) for entry in script.entries]


@pytest.mark.parametrize(("storage", "compression"), WAYS)
def test_every_storage_and_compression(tmp_path, storage, compression):
    script = maker.episode(1.0)
    path = maker.write(tmp_path / "bag", script, storage, compression)
    found, lines = contents(path)
    assert lines == []
    assert found == expected(script)
    with Bag.open(path) as bag:
        assert bag.topics["/joint_states"].type == "sensor_msgs/msg/JointState"
        assert bag.topics["/joint_states"].count == 51
        times = [entry.log_ns for entry in script.entries]
        assert bag.span_ns == (min(times), max(times))
        chosen = [message.topic for message in bag.messages(["/tool/pose"])]
    assert chosen == ["/tool/pose"] * 21


@pytest.mark.parametrize(("storage", "compression"), WAYS)
def test_without_metadata_yaml(tmp_path, storage, compression):
    script = maker.episode(1.0)
    path = maker.write(tmp_path / "bag", script, storage, compression)
    (path / "metadata.yaml").unlink()
    found, lines = contents(path)
    assert found == expected(script)
    assert len(lines) == 1 and "metadata.yaml" in lines[0]


@pytest.mark.parametrize("storage", [MCAP, SQLITE])
def test_split_recording(tmp_path, storage):
    """``ros2 bag record -b`` leaves several files in one folder."""
    script = maker.episode(1.0)
    half = len(script.entries) // 2
    parts = [maker.Script(script.entries[:half]), maker.Script(script.entries[half:])]
    suffix = "mcap" if storage is MCAP else "db3"
    split = tmp_path / "split"
    split.mkdir()
    for number, part in enumerate(parts):
        path = maker.write(tmp_path / f"part{number}", part, storage)
        shutil.move(path / f"part{number}.{suffix}", split / f"split_{number}.{suffix}")
        shutil.move(path / "metadata.yaml", split / "metadata.yaml")
        shutil.rmtree(path)
    text = (split / "metadata.yaml").read_text()
    files = f"- split_0.{suffix}\n  - split_1.{suffix}"
    (split / "metadata.yaml").write_text(text.replace(f"- part1.{suffix}", files))
    found, lines = contents(split)
    assert found == expected(script)
    assert lines == []
    (split / "metadata.yaml").unlink()
    assert contents(split)[0] == expected(script)
    (split / f"split_1.{suffix}").unlink()
    (split / "metadata.yaml").write_text(text.replace(f"- part1.{suffix}", files))
    found, lines = contents(split)
    assert found == expected(parts[0])
    assert len(lines) == 2 and f"split_1.{suffix}" in lines[0] and "as declared" in lines[1]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> tuple[Path, maker.Script]:
    """A bag of several chunks."""
    script = maker.Script()
    for i in range(40):
        pixels = maker.np.full((120, 160, 3), i, maker.np.uint8)
        script.add(i * 10**8, "/camera/image_raw", maker.image(i * 10**8 + 1, pixels))
        script.add(i * 10**8, "/joint_states", maker.joint_state(i * 10**8 + 1, 0.5))
    return maker.write(tmp_path_factory.mktemp("sound") / "bag", script), script


@given(share=st.floats(0.0, 1.0))
def test_truncated_anywhere_gives_what_is_whole(sound, tmp_path_factory, share):
    path, script = sound
    whole = (path / "bag.mcap").read_bytes()
    cut = tmp_path_factory.mktemp("cut") / "bag.mcap"
    size = int(share * (len(whole) - 1))
    cut.write_bytes(whole[:size])
    found, lines = contents(cut)
    assert found == expected(script)[: len(found)]
    assert lines
    # a message is lost only if its bytes are
    lost = sum(len(entry.raw()) for entry in script.entries[len(found) :])
    assert lost <= len(whole) - size + 40_000 + 64 * len(script.entries) * 3
    assert all(line.startswith("bag.mcap: expected ") for line in lines)


def test_truncated_compressed_chunk(tmp_path):
    script, noise = maker.Script(), maker.np.random.default_rng(0)
    for i in range(20):
        pixels = noise.integers(0, 255, (60, 160, 3), dtype=maker.np.uint8)
        script.add(i * 10**8, "/camera/image_raw", maker.image(i * 10**8 + 1, pixels))
    path = maker.write(tmp_path / "bag", script, MCAP, CompressionMode.STORAGE)
    file = path / "bag.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 3 // 4])
    found, lines = contents(path)
    assert 0 < len(found) < len(script.entries)
    assert found == expected(script)[: len(found)]
    assert len(lines) == 3  # no footer, where it is cut, and how many are missing


def test_a_flipped_bit_costs_one_chunk_and_is_said(tmp_path):
    from embodied_rl.bags.write import BagWriter

    script = maker.episode(2.0)
    writer = BagWriter(tmp_path / "bag", chunk_bytes=4096)
    for topic, kind in {entry.topic: entry.kind for entry in script.entries}.items():
        writer.add_topic(topic, kind)
    for entry in script.entries:
        writer.write(entry.topic, entry.log_ns, entry.raw())
    path = writer.close()
    file = path / "bag_0.mcap"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    found, lines = contents(path)
    missing = [entry for entry in expected(script) if entry not in found]
    assert 0 < len(missing) < 40
    assert len(lines) == 2 and "checksum" in lines[0] and "as declared" in lines[1]


@pytest.mark.parametrize("keep", [0, 1, 5, 1000])
def test_memory_is_used_again_only_when_nobody_looks_at_it(tmp_path, keep):
    """A large file is read ahead by a thread, into memory that is recycled."""
    script, noise = maker.Script(), maker.np.random.default_rng(0)
    for i in range(24):
        pixels = noise.integers(0, 255, (500, 600, 3), dtype=maker.np.uint8)
        script.add(i * 10**8, "/camera/image_raw", maker.image(i * 10**8 + 1, pixels))
    path = maker.write(tmp_path / "bag", script)
    wanted, held = [entry.raw() for entry in script.entries], []
    with Bag.open(path) as bag:
        for number, message in enumerate(bag.messages()):
            assert message.data == wanted[number]
            held.append((number, message.data))
            held = held[max(len(held) - keep, 0) :]
            for earlier, data in held:
                assert data == wanted[earlier]
    assert len(held) == min(keep, 24)


def test_damaged_sqlite(tmp_path):
    script = maker.episode(4.0)
    path = maker.write(tmp_path / "bag", script, SQLITE)
    file = path / "bag.db3"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])
    found, lines = contents(path)
    assert found == expected(script)[: len(found)]
    assert len(lines) == 2 and "SQLite" in lines[0] and "as declared" in lines[1]


def test_files_that_are_no_bags(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"")
    (tmp_path / "b.mcap").write_bytes(b"something else entirely")
    (tmp_path / "c.db3").write_bytes(b"something else entirely")
    sqlite3.connect(tmp_path / "d.db3").execute("CREATE TABLE other (id INTEGER)")
    for name in "a.mcap", "b.mcap", "c.db3", "d.db3":
        found, lines = contents(tmp_path / name)
        assert found == []
        assert len(lines) == 1 and name in lines[0], lines


def test_metadata_that_is_damaged_is_not_needed(tmp_path):
    script = maker.episode(0.5)
    path = maker.write(tmp_path / "bag", script)
    for text in "", "[1, 2", "rosbag2_bagfile_information: {}", "just text":
        (path / "metadata.yaml").write_text(text)
        found, lines = contents(path)
        assert found == expected(script)
        assert len(lines) == 1 and "metadata.yaml" in lines[0], lines


def test_find_bags(tmp_path):
    for name in "episode_10", "episode_2", "deep/er/one":
        maker.write(tmp_path / name, maker.episode(0.1))
    found = find_bags(tmp_path)
    assert [bag.name for bag in found] == ["deep/er/one", "episode_2", "episode_10"]
    assert [bag.name for bag in find_bags(tmp_path / "episode_2")] == ["episode_2"]
    with pytest.raises(UserError, match="no such file"):
        find_bags(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="saw none"):
        find_bags(tmp_path / "empty")
    with pytest.raises(UserError, match="expected one bag, saw 3"):
        Bag.open(tmp_path)


def test_two_copies_of_a_file_count_once(tmp_path):
    script = maker.episode(0.5)
    path = maker.write(tmp_path / "bag", script, MCAP, CompressionMode.FILE)
    packed = path / "bag.mcap.zstd"
    with open(packed, "rb") as source, open(path / "bag.mcap", "wb") as sink:
        zstandard.ZstdDecompressor().copy_stream(source, sink)
    found, lines = contents(path)
    assert found == expected(script)
    assert len(lines) == 1 and "bag.mcap.zstd beside bag.mcap" in lines[0]
    packed.unlink()  # metadata.yaml names this one
    assert contents(path) == (expected(script), [])


def test_a_file_that_a_split_recording_lacks(tmp_path):
    (tmp_path / "bag").mkdir()
    for number in 0, 1, 4:
        part = maker.write(tmp_path / f"part{number}", maker.episode(0.2))
        shutil.move(part / f"part{number}.mcap", tmp_path / "bag" / f"bag_{number}.mcap")
    _, lines = contents(tmp_path / "bag")
    assert any("number 4 after 1; 2 are missing" in line for line in lines)


def test_a_medium_that_fails(tmp_path, monkeypatch):
    """The chunk that cannot be read is left out; a traceback would take the other bags along."""
    script = maker.episode(1.0)
    path = maker.write(tmp_path / "bag", script)

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fails)
    found, lines = contents(path)
    assert found == []
    assert len(lines) == 2 and "Input/output error" in lines[0] and "as declared" in lines[1]


def test_messages_of_a_topic_that_metadata_promises(tmp_path):
    script = maker.episode(0.5)
    path = maker.write(tmp_path / "bag", script)
    text = (path / "metadata.yaml").read_text()
    count = sum(entry.topic == "/joint_states" for entry in script.entries)
    assert f"message_count: {count}" in text
    (path / "metadata.yaml").write_text(
        text.replace(f"message_count: {count}", "message_count: 99")
    )
    found, lines = contents(path)
    assert found == expected(script)
    assert len(lines) == 1 and f"{count} of 99 of /joint_states" in lines[0], lines


def test_what_a_bag_says_stays_on_its_line(tmp_path):
    script = maker.Script()
    script.add(1, "/a\n\x1b[31m[red]" + "x" * 5000, maker.string("x"))
    path = maker.write(tmp_path / "bag", script)
    file = path / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-60])
    with Bag.open(path) as bag:
        bag.report.add(next(iter(bag.topics)), "a sound name", "this")
        assert all(line.isprintable() and len(line) <= 2000 for line in bag.report.lines())
    from embodied_rl.cli.bags import main

    assert main(["info", str(path)]) == 0
