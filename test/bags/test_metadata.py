"""``metadata.yaml`` of others: hostile ones cost one line, little time and little memory."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import bag_maker as maker
import pytest
from rosbags.rosbag2 import StoragePlugin

from embodied_rl.bags import metadata
from embodied_rl.bags.read import Bag
from embodied_rl.core.schema import parse_yaml

NAMES = "bcdefghij"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("a" + NAMES, NAMES, strict=False)
)
MERGED = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 10)}]}}\n"
    for before, name in zip("a" + NAMES, NAMES, strict=False)
)
INFORMATION = "rosbag2_bagfile_information: "


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB + INFORMATION + "{storage_identifier: *j}", "aliases that make more than"),
        (MERGED, "aliases that make more than"),
        ("[" * 100_000, "levels of nesting"),
        (INFORMATION + "{storage_identifier: " + "9" * 100_000 + "}", "a number of 100000"),
        ("&a [*a]", "another form"),
        (INFORMATION + "{storage_identifier: x, relative_file_paths: [], "
         "starting_time: {nanoseconds_since_epoch: .inf}}", "infinity"),
        ("- !!python/object/apply:os.getcwd []", "not YAML"),
        ("\0", "not YAML"),
    ],
)  # fmt: skip
def test_hostile_texts(tmp_path, text, why):
    with pytest.raises(ValueError, match=why) as error:
        metadata.parse(text, Path("x"))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    script = maker.episode(0.2)
    bag = maker.write(tmp_path / "bag", script)
    (bag / "metadata.yaml").write_text(text)
    with Bag.open(bag) as opened:
        assert len(list(opened.messages())) == len(script.entries)
        assert len(opened.report.lines()) == 1


def test_aliases_that_a_writer_means(tmp_path):
    """Some Python writers let two equal mappings share an anchor."""
    bag = maker.write(tmp_path / "bag", maker.episode(0.2))
    text = (bag / "metadata.yaml").read_text()
    start = text.index("starting_time:")
    end = text.index("\n", text.index("nanoseconds_since_epoch", start))
    shared = text[start:end].replace("starting_time:", "starting_time: &t")
    text = text[:start] + shared + text[end:] + "\n  again: *t\n"
    assert metadata.parse(text, Path("x")).count > 0


def test_a_file_of_terabytes(tmp_path):
    bag = maker.write(tmp_path / "bag", maker.episode(0.2))
    with open(bag / "metadata.yaml", "wb") as file:
        file.truncate(1 << 40)
    with Bag.open(bag) as opened:
        assert "more than" in opened.report.lines()[0]


def test_embodiment_files_are_held_to_the_same():
    from embodied_rl.core.errors import UserError

    with pytest.raises(UserError, match="robot.yaml: not valid YAML: aliases"):
        parse_yaml(BOMB, "robot.yaml")


def test_version_1_of_crystal(tmp_path):
    """Topics stand under another key, and the files carry the folder in their names."""
    script = maker.episode(0.2)
    bag = maker.write(tmp_path / "bag", script, StoragePlugin.SQLITE3)
    base = sqlite3.connect(bag / "bag.db3")
    base.executescript(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL);"
        "INSERT INTO t SELECT id, name, type FROM topics; DROP TABLE topics; DROP TABLE schema;"
        "DROP TABLE message_definitions; ALTER TABLE t RENAME TO topics;"
    )
    base.close()
    names = sorted({entry.topic for entry in script.entries})
    topics = [
        {
            "topic_and_type": {"name": name, "type": "x"},
            "message_count": sum(entry.topic == name for entry in script.entries) + 1,
        }
        for name in names
    ]
    information = {
        "version": 1, "storage_identifier": "sqlite3", "relative_file_paths": ["bag/bag.db3"],
        "duration": {"nanoseconds": 1}, "starting_time": {"nanoseconds_since_epoch": 0},
        "message_count": 1, "topics_with_message_count": topics,
    }  # fmt: skip
    (bag / "metadata.yaml").write_text(metadata.dump({INFORMATION[:-2]: information}))
    with Bag.open(bag) as opened:
        assert len(list(opened.messages())) == len(script.entries)
        assert opened.topics["/joint_states"].serialization == "cdr"
        (line,) = opened.report.lines()
        assert "as declared" in line and f"{len(names)} topics" not in line
