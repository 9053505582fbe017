"""``embodied_rl launch``: help, dry run, bad usage."""

from __future__ import annotations

import pytest

import embodied_rl.cli.main as cli
from embodied_rl.bringup import check
from embodied_rl.bringup.graph import GRAPHS
from embodied_rl.cli import launch


@pytest.mark.parametrize("name", list(GRAPHS))
def test_every_argument_is_listed(name, capsys):
    assert cli.main(["launch", name, "--help"]) == 0
    text = capsys.readouterr().out
    for argument in GRAPHS[name].arguments:
        assert f"  {argument.name}:=" in text
        assert argument.description in text
    assert GRAPHS[name].example in text


@pytest.mark.parametrize(
    "words",
    [[], ["simulator"], ["sim", "taks:=replace_object"], ["sim", "mode:=fast"], ["sim", "mode"]],
)
def test_bad_usage_exits_with_2(words, capsys):
    assert cli.main(["launch", *words]) == 2


def test_a_dry_run_prints_the_commands_in_order(capsys):
    assert cli.main(["launch", "sim", "--dry-run", "cameras:=none", "namespace:=left"]) == 0
    text = capsys.readouterr().out
    order = [
        text.index(f"embodied_rl.nodes.{n}") for n in ("sim_node", "policy_node", "episode_node")
    ]
    assert order == sorted(order)
    assert "FASTRTPS_DEFAULT_PROFILES_FILE=" in text or "profile" not in text
    assert "__ns:=/left" in text


def test_missing_gl_is_one_line_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr(launch, "require_ros", lambda: None)
    monkeypatch.setattr(check, "missing_gl", lambda: "no GL: sudo apt install libegl1")
    assert cli.main(["launch", "sim"]) == 1
    error = capsys.readouterr().err
    assert error == "error: no GL: sudo apt install libegl1, or run without images: cameras:=none\n"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "require_ros", lambda: None)
    (tmp_path / "file").write_text("no folder")
    words = ["launch", "sim", "cameras:=none", f"out:={tmp_path / 'file' / 'run'}"]
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'file' / 'run'}: expected a folder")
    assert error.count("\n") == 1


def test_missing_ros_is_one_line_before_anything_starts(monkeypatch, tmp_path, capsys):
    (tmp_path / "rclpy.py").write_text("raise ImportError('built for another Python')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert cli.main(["launch", "sim", "cameras:=none", f"out:={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ROS 2 does not work here: import rclpy: ImportError: built")
    assert "make setup" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
