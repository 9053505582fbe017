"""What we write, read by other people's code, and on a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import bag_maker as maker
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader

from embodied_rl.bags import mcap_writer
from embodied_rl.bags.metadata import Qos
from embodied_rl.bags.read import Bag
from embodied_rl.bags.write import BagFull, BagWriter
from embodied_rl.core.errors import UserError


def fill(writer: BagWriter, script: maker.Script) -> None:
    for topic, kind in {entry.topic: entry.kind for entry in script.entries}.items():
        writer.add_topic(topic, kind, [Qos(7, "reliable", "transient_local")])
    for entry in script.entries:
        writer.write(entry.topic, entry.log_ns, entry.raw())


@pytest.fixture
def bag(tmp_path) -> tuple[Path, maker.Script]:
    script = maker.episode(2.0)
    script.entries.sort(key=lambda entry: entry.log_ns)
    writer = BagWriter(tmp_path / "bag", chunk_bytes=8192)
    fill(writer, script)
    assert (tmp_path / "bag.partial").exists() and not (tmp_path / "bag").exists()
    assert writer.close() == tmp_path / "bag"
    return tmp_path / "bag", script


def test_rosbags_reads_it(bag):
    path, script = bag
    with Reader(path) as reader:
        seen = [(c.topic, t, bytes(data)) for c, t, data in reader.messages()]
        qos = reader.topics["/joint_states"].connections[0].ext.offered_qos_profiles[0]
        times = [entry.log_ns for entry in script.entries]
        assert (reader.start_time, reader.end_time) == (min(times), max(times) + 1)
        assert reader.message_count == len(script.entries)
    assert seen == [(entry.topic, entry.log_ns, entry.raw()) for entry in script.entries]
    assert qos.depth == 7
    assert qos.reliability is QosReliability.RELIABLE
    assert qos.durability is QosDurability.TRANSIENT_LOCAL
    with AnyReader([path]) as reader:  # uses the definitions in the bag
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)


def test_mcap_package_reads_it(bag):
    path, script = bag
    with open(path / "bag_0.mcap", "rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == len(script.entries)
        assert len(summary.chunk_indexes) > 3
        seen = [(c.topic, m.log_time, m.data) for _, c, m in reader.iter_messages()]
        (metadata,) = reader.iter_metadata()
        schema = next(s for s in summary.schemas.values() if s.name == "std_msgs/msg/String")
    assert seen == [(entry.topic, entry.log_ns, entry.raw()) for entry in script.entries]
    assert schema.encoding == "ros2msg" and schema.data.decode().strip() == "string data"
    inner = yaml.safe_load(metadata.metadata["serialized_metadata"])
    outer = yaml.safe_load((path / "metadata.yaml").read_text())
    assert inner == outer["rosbag2_bagfile_information"]


def test_metadata_has_what_rosbag2_reads(bag):
    """The keys and types that ``rosbag2_storage/yaml.hpp`` decodes without a default, version 8."""
    path, script = bag
    data = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    for key, kind in {
        "version": int, "storage_identifier": str, "duration": dict, "starting_time": dict,
        "message_count": int, "topics_with_message_count": list, "relative_file_paths": list,
        "compression_format": str, "compression_mode": str, "files": list, "custom_data": dict,
        "ros_distro": str,
    }.items():  # fmt: skip
        assert isinstance(data[key], kind), key
    assert data["version"] == 8
    assert data["relative_file_paths"] == ["bag_0.mcap"]
    times = [entry.log_ns for entry in script.entries]
    assert data["starting_time"] == {"nanoseconds_since_epoch": min(times)}
    assert data["duration"] == {"nanoseconds": max(times) - min(times)}
    (file,) = data["files"]
    assert set(file) == {"path", "starting_time", "duration", "message_count"}
    for row in data["topics_with_message_count"]:
        topic = row["topic_metadata"]
        assert topic["serialization_format"] == "cdr"
        assert topic["type_description_hash"].startswith("RIHS01_")
        (qos,) = yaml.safe_load(topic["offered_qos_profiles"])  # text in version 8
        assert qos["durability"] == 1 and qos["deadline"]["sec"] == 9223372036
    assert "&" not in (path / "metadata.yaml").read_text()  # no YAML anchors


def test_without_messages(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/a", "std_msgs/msg/String")
    path = writer.close()
    with Reader(path) as reader:
        assert reader.message_count == 0
    with Bag.open(path) as bag:
        assert list(bag.messages()) == [] and bag.report.lines() == []


def test_what_cannot_be_recorded(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(UserError, match="exists already"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(UserError, match="'acme/msg/X' is not a standard"):
        BagWriter(tmp_path / "other").add_topic("/x", "acme/msg/X")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        BagWriter(tmp_path / "file" / "bag")


class Disk:
    """Stands in for ``os`` in the writer: a disk with so much room, as ``os.write`` sees it."""

    def __init__(self, room: int, code: int):
        self.room, self.code = room, code

    def __getattr__(self, name: str):
        return getattr(os, name)

    def write(self, file: int, data) -> int:
        size = min(len(data), self.room)
        if size == 0:
            raise OSError(self.code, os.strerror(self.code))
        self.room -= size
        return os.write(file, data[:size])

    def ftruncate(self, file: int, size: int) -> None:
        self.room += os.fstat(file).st_size - size
        os.ftruncate(file, size)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
@pytest.mark.parametrize("room", range(12_000, 60_000, 6_000))
def test_full_disk_closes_as_far_as_written(tmp_path, monkeypatch, code, room):
    """With ENOSPC the reserve makes room again; a limit on the file's size (EFBIG) does not care
    for it, and the last chunks give way to the summary."""
    script = maker.episode(6.0)
    disk = Disk(room, code)
    monkeypatch.setattr(mcap_writer, "os", disk)
    writer = BagWriter(tmp_path / "bag", chunk_bytes=4096, ballast_bytes=50_000)
    release = writer._mcap._make_room

    def make_room() -> None:
        release()
        disk.room += 50_000 if code == errno.ENOSPC else 0

    writer._mcap._make_room = make_room
    with pytest.raises(BagFull, match="disk full"):
        fill(writer, script)
    assert writer.full
    try:
        path = writer.close()
    except UserError as error:  # hardly more room than the summary alone takes
        assert code == errno.EFBIG and room < 30_000
        assert "could not be closed" in str(error)
        path = tmp_path / "bag.partial"
    found = []
    with Bag.open(path) as bag:
        found = [(m.topic, m.log_time_ns, bytes(m.data)) for m in bag.messages()]
        assert bool(bag.report.lines()) == (path.suffix == ".partial")
    assert found == [(e.topic, e.log_ns, e.raw()) for e in script.entries][: len(found)]
    assert found
    if path.suffix == ".partial":
        return
    with Reader(path) as reader:
        assert reader.message_count == len(found)
    if code == errno.ENOSPC and room > 20_000:
        assert sum(len(data) for _, _, data in found) > 0.4 * room
