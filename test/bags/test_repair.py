"""Damaged bags made proper again; the new ones are read by ``rosbags``."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import bag_maker as maker
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.rosbag2.enums import CompressionMode

from embodied_rl.bags.mcap_writer import McapWriter
from embodied_rl.bags.read import Bag
from embodied_rl.bags.repair import repair
from embodied_rl.cli.bags import main
from embodied_rl.core.errors import UserError

MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3


def killed(folder: Path, storage: StoragePlugin, compression=None) -> tuple[Path, maker.Script]:
    """A bag of a recorder that was killed: no metadata, the end of the file missing."""
    script = maker.episode(2.0)
    path = maker.write(folder, script, storage, compression)
    (path / "metadata.yaml").unlink()
    (file,) = path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 3 // 4])
    return path, script


def read_with_rosbags(path: Path) -> list[tuple[str, int, bytes]]:
    with Reader(path) as reader:
        return [(c.topic, time_ns, bytes(data)) for c, time_ns, data in reader.messages()]


@pytest.mark.parametrize(
    ("storage", "compression"),
    [(MCAP, None), (MCAP, CompressionMode.STORAGE), (SQLITE, None),
     (SQLITE, CompressionMode.MESSAGE)],
)  # fmt: skip
def test_killed_recorders(tmp_path, storage, compression):
    path, script = killed(tmp_path / "killed", storage, compression)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with Bag.open(path) as bag:
        found = sorted((m.log_time_ns, m.topic, bytes(m.data)) for m in bag.messages())
        topics = dict(bag.topics)
    steps: list[tuple[int, int]] = []
    result = repair(path, tmp_path / "out", lambda done, total: steps.append((done, total)))
    again = read_with_rosbags(tmp_path / "out")
    assert sorted((time, topic, data) for topic, time, data in again) == found
    assert len(found) == result.recovered > 0
    assert steps[-1] == (len(found), len(found))
    sound = {(entry.log_ns, entry.topic, entry.raw()) for entry in script.entries}
    assert set(found) <= sound
    with Bag.open(tmp_path / "out") as bag:
        assert bag.report.lines() == []
        for name, topic in bag.topics.items():
            assert (topic.type, topic.qos) == (topics[name].type, topics[name].qos)
            assert topic.definition
    report = json.loads((tmp_path / "out" / "repair.json").read_text())
    assert report["recovered"] == len(found) and report["lines"]
    assert report["storage"] == ("mcap" if storage is MCAP else "sqlite3")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["killed", "out"]


def test_losses_are_counted_where_they_are_known(tmp_path):
    script = maker.episode(1.0)
    path = maker.write(tmp_path / "bag", script, SQLITE)
    file = path / "bag.db3"
    file.write_bytes(file.read_bytes()[:-16384])
    result = repair(path, tmp_path / "out")
    assert result.lost == len(script.entries) - result.recovered > 0


def test_what_is_refused(tmp_path):
    path, _ = killed(tmp_path / "killed", MCAP)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        repair(path, tmp_path / "there")
    (tmp_path / "no.mcap").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="nothing to recover"):
        repair(tmp_path / "no.mcap", tmp_path / "out")
    with pytest.raises(UserError, match="expected one bag, saw 2"):
        repair(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_full_disk_and_leftovers(tmp_path, monkeypatch):
    path, _ = killed(tmp_path / "killed", MCAP)
    (tmp_path / ".out.4194305.tmp").mkdir()  # of a process that cannot exist
    (tmp_path / f".out.{os.getppid()}.tmp").mkdir()  # of one that lives

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(McapWriter, "flush", full)
    with pytest.raises(UserError, match="out: cannot be written: No space left"):
        repair(path, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [f".out.{os.getppid()}.tmp", "killed"]


def test_command_line(tmp_path, capsys):
    path, _ = killed(tmp_path / "killed", MCAP)
    assert (
        main(["repair", str(path), str(tmp_path / "out"), "--json", str(tmp_path / "f.json")]) == 0
    )
    printed = capsys.readouterr().out
    assert "messages recovered" in printed and "/joint_states" in printed
    assert json.loads((tmp_path / "f.json").read_text())["recovered"] > 0
