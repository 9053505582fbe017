"""SQLite bags of killed recorders and damaged media, against where each message lies in the file.

The reference knows nothing of SQLite's format: it looks up in the whole file on which pages the
random bytes of each message lie. A message must be found exactly if all of them are still there.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest

from embodied_rl.bags.read import Bag
from embodied_rl.bags.report import Report
from embodied_rl.bags.sqlite_reader import SqliteFile
from embodied_rl.bags.storage import Unreadable

SCHEMA = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL,
  metadata TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,
  encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
  timestamp INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema VALUES (4, 'jazzy');
INSERT INTO topics VALUES (1, '/a', 'std_msgs/msg/String', 'cdr', '', ''),
  (2, '/b', 'std_msgs/msg/String', 'cdr', '- depth: 10', 'RIHS01_0');
INSERT INTO message_definitions VALUES (1, 'std_msgs/msg/String', 'ros2msg', 'string data', '');
"""
INSERT = "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)"

Rows = list[tuple[str, int, bytes]]


def rows(count: int, largest: int = 9000, seed: int = 0) -> Rows:
    """Messages of very different sizes; random bytes, so that each can be found in the file."""
    noise = np.random.default_rng(seed)
    sizes = np.exp(noise.uniform(np.log(40), np.log(largest), count)).astype(int)
    return [
        ("/ab"[0] + "ab"[i % 2], 1000 + 10 * i, noise.bytes(int(size)))
        for i, size in enumerate(sizes)
    ]


def insert(base: sqlite3.Connection, messages: Rows) -> None:
    base.executemany(INSERT, [(1 + (name == "/b"), time, data) for name, time, data in messages])


def database(path: Path, messages: Rows, page_size: int = 1024) -> Path:
    base = sqlite3.connect(path)
    base.execute(f"PRAGMA page_size={page_size}")
    base.executescript(SCHEMA)
    insert(base, messages)
    base.commit()
    base.close()
    return path


def contents(path: Path) -> tuple[Rows, list[str]]:
    report = Report("bag")
    file = SqliteFile(path, report)
    try:
        found = [(m.topic, m.log_time_ns, bytes(m.data)) for m in file.messages(["/a", "/b"])]
    finally:
        file.close()
    return found, report.lines()


def pages_of(whole: bytes, data: bytes, page_size: int) -> list[int]:
    """Numbers, from 0, of the pages on which the bytes of a message lie, in their order."""
    found, at = [], 0
    while at < len(data):
        for length in range(min(12, len(data) - at), 0, -1):
            place = whole.find(data[at : at + length])
            if place >= 0 and place // page_size == (place + length - 1) // page_size:
                break
        page_end = (place // page_size + 1) * page_size
        end = min(len(data) - at, page_end - place)
        while whole[place : place + end] != data[at : at + end]:
            end -= 1
        found.append(place // page_size)
        at += end
    return found


@pytest.fixture(scope="module", params=[512, 1024, 4096])
def sound(request, tmp_path_factory) -> tuple[Path, Rows, list[list[int]], int]:
    messages = rows(120)
    path = database(tmp_path_factory.mktemp("sound") / "bag.db3", messages, request.param)
    whole = path.read_bytes()
    return path, messages, [pages_of(whole, m[2], request.param) for m in messages], request.param


def test_cut_anywhere(sound, tmp_path):
    """Exactly the messages whose pages are all there in full, whether a way leads there or not."""
    path, messages, places, page_size = sound
    whole, cut = path.read_bytes(), tmp_path / "bag.db3"
    for share in np.random.default_rng(1).uniform(0.3, 1.0, 40):
        size = int(share * (len(whole) - 1))
        cut.write_bytes(whole[:size])
        found, lines = contents(cut)
        there = [m for m, p in zip(messages, places) if (max(p) + 1) * page_size <= size]
        assert found == there
        assert any("the file is cut" in line for line in lines)
        if len(there) < len(messages):
            assert len(lines) <= 3


def test_zeroed_pages(sound, tmp_path):
    """What lies on other pages is found; a page of zeros is no message."""
    path, messages, places, page_size = sound
    whole, spoilt = path.read_bytes(), tmp_path / "bag.db3"
    pages = len(whole) // page_size
    for number in sorted({0, 1, 2, 3, 4, 5, *np.linspace(6, pages - 1, 30).astype(int)}):
        start = number * page_size
        spoilt.write_bytes(whole[:start] + bytes(page_size) + whole[start + page_size :])
        report = Report("bag")
        file = SqliteFile(spoilt, report)
        found = [
            (m.topic, m.log_time_ns, bytes(m.data))
            for m in file.messages([topic.name for topic in file.topics])
        ]
        if len(file.topics) < 2:  # the page of their names
            assert report.lines()
            continue
        file.close()
        untouched = [m for m, p in zip(messages, places) if number not in p]
        assert [m for m in found if m in messages] == untouched
        # the end of a record may lie on that page; without a check sum nothing tells
        ends = [m for m, p in zip(messages, places) if p[-1] == number and len(p) > 1]
        changed = [m for m in found if m not in messages]
        assert {m[1] for m in changed} <= {m[1] for m in ends}
        assert len(untouched) + len(changed) == len(messages) or report.lines()
        assert any("no check sums" in remark for remark in report.remarks)


def test_less_than_a_page(sound, tmp_path):
    path, _, _, page_size = sound
    for size in 1, 50, 99, 100, 150, page_size - 1, page_size:
        (tmp_path / "bag.db3").write_bytes(path.read_bytes()[:size])
        with pytest.raises(Unreadable):
            contents(tmp_path / "bag.db3")


def test_flipped_bytes_never_invent(sound, tmp_path):
    path, messages, _, _ = sound
    whole, spoilt = path.read_bytes(), tmp_path / "bag.db3"
    noise, times = np.random.default_rng(2), {m[1] for m in messages}
    for _ in range(60):
        data = bytearray(whole)
        for place in noise.integers(0, len(data), 5):
            data[place] ^= 1 << noise.integers(0, 8)
        spoilt.write_bytes(data)
        try:
            found, _ = contents(spoilt)
        except Unreadable as error:
            assert "topics" in str(error) or "messages" in str(error)
            continue
        assert len(found) <= len(messages)
        assert len([m for m in found if m[1] not in times]) <= 5


def test_write_ahead_log_of_a_killed_recorder(tmp_path):
    """All of it is read, and nothing is written beside it."""
    live = tmp_path / "live"
    live.mkdir()
    messages = rows(200)
    base = sqlite3.connect(live / "bag.db3")
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA wal_autocheckpoint=0")
    base.executescript(SCHEMA)
    insert(base, messages[:50])
    base.commit()
    base.execute("PRAGMA wal_checkpoint(PASSIVE)")
    insert(base, messages[50:])
    base.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in "bag.db3", "bag.db3-wal":
        shutil.copyfile(live / name, killed / name)
    killed.chmod(0o555)
    before = {file.name: file.read_bytes() for file in killed.iterdir()}
    found, lines = contents(killed / "bag.db3")
    killed.chmod(0o755)
    assert found == messages
    assert len(lines) == 1 and "log" in lines[0]
    assert {file.name: file.read_bytes() for file in killed.iterdir()} == before
    # the end of the log is torn: the rest is read, and the loss is said
    log = killed / "bag.db3-wal"
    insert(base, messages)
    base.commit()
    base.close()
    log.write_bytes(before["bag.db3-wal"][:-5000])
    found, lines = contents(killed / "bag.db3")
    assert found == messages[: len(found)] and len(found) >= 50
    assert any("never completed or damaged" in line for line in lines)
    # not a log at all
    log.write_bytes(b"x" * 5000)
    found, lines = contents(killed / "bag.db3")
    assert found == messages[: len(found)]
    assert any("damaged" in line for line in lines)


def test_wal_mode_without_a_log_writes_nothing(tmp_path):
    path = database(tmp_path / "bag.db3", rows(5))
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA journal_mode=WAL")
    base.close()
    assert contents(path) == (rows(5), [])
    assert [file.name for file in tmp_path.iterdir()] == ["bag.db3"]


def test_journal_of_a_killed_recorder(tmp_path):
    """A transaction that was half written is rolled back, on a copy."""
    messages = rows(200)
    path = database(tmp_path / "bag.db3", messages[:50])
    base = sqlite3.connect(path)
    base.execute("PRAGMA cache_size=2")
    insert(base, messages[50:])
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in "bag.db3", "bag.db3-journal":
        shutil.copyfile(tmp_path / name, killed / name)
    base.close()
    before = {file.name: file.read_bytes() for file in killed.iterdir()}
    found, lines = contents(killed / "bag.db3")
    assert found == messages[:50]
    assert len(lines) == 1 and "never finished" in lines[0]
    assert {file.name: file.read_bytes() for file in killed.iterdir()} == before


def test_values_of_other_kinds(tmp_path):
    path = database(tmp_path / "bag.db3", rows(3))
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA writable_schema=ON")
        base.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')")
    base.close()
    base = sqlite3.connect(path)
    for values in [
        (1, 5, None), (1, 6, "text"), (1, None, b"x"), (None, 5, b"x"), ("one", 7, b"x"),
        (1, "late", b"x"), (1, 1.5, b"x"), (b"\0", 8, b"x"), (1, 9, sqlite3.Binary(b"\xff")),
        (9, 10, b"x"),
    ]:  # fmt: skip
        base.execute(INSERT, values)
    base.execute("UPDATE topics SET name = NULL WHERE id = 2")
    base.commit()
    base.close()
    with Bag.open(path) as bag:
        found = [(m.topic, m.log_time_ns, bytes(m.data)) for m in bag.messages()]
        lines = bag.report.lines()
    assert found == [m for m in rows(3) if m[0] == "/a"] + [("/a", 9, b"\xff")]
    assert len(lines) == 3
    assert "8 with other values" in lines[0] and "topics with name" in lines[1], lines
    assert "2 messages of others" in lines[2], lines


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n",
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
        "data BLOB GENERATED ALWAYS AS (zeroblob(1000000000)))",
        "CREATE TABLE other(id INTEGER)",
    ],
)
def test_tables_that_compute_are_refused(tmp_path, statement):
    path = tmp_path / "bag.db3"
    base = sqlite3.connect(path)
    base.executescript(SCHEMA + "DROP TABLE messages;" + statement)
    base.close()
    with pytest.raises(Unreadable, match="a rosbag2 table 'messages'"):
        contents(path)


def test_a_page_that_is_its_own_neighbour(tmp_path):
    """A directory that leads to one page again and again: its messages are told once."""
    messages = rows(400, largest=60)
    path = database(tmp_path / "bag.db3", messages, 1024)
    data = bytearray(path.read_bytes())
    with sqlite3.connect(path) as base:
        (root,) = base.execute(
            "SELECT rootpage FROM sqlite_master WHERE name='messages'"
        ).fetchone()
    base.close()
    start = (root - 1) * 1024
    assert data[start] == 5  # an interior page
    (count,) = struct.unpack_from(">H", data, start + 3)
    cells = struct.unpack_from(f">{count}H", data, start + 12)
    child = data[start + cells[0] : start + cells[0] + 4]
    for cell in cells:
        data[start + cell : start + cell + 4] = child
    path.write_bytes(data)
    found, lines = contents(path)
    assert found == messages  # the others are found without a way to them
    assert any("out of order" in line for line in lines)


def test_names_that_are_no_text(tmp_path):
    """SQLite puts the spoilt name of a table into its message, where Python cannot decode it."""
    messages = rows(20)
    path = database(tmp_path / "bag.db3", messages)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"CREATE TABLE topics(", b"CREATE TABL\xf9 topi\xff\xfe("))
    found, lines = contents(path)
    assert found == messages and lines


def test_each_byte_of_the_header(sound, tmp_path):
    """What it says of the layout is held against the pages; no message hangs on it."""
    path, messages, _, _ = sound
    whole = path.read_bytes()
    for place in range(100):
        for bit in 0, 3, 7:
            data = bytearray(whole)
            data[place] ^= 1 << bit
            (tmp_path / "bag.db3").write_bytes(data)
            assert contents(tmp_path / "bag.db3")[0] == messages, place
