"""Machines that are not like ours: one line before the work, and no traceback after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tyro")


def run(*words: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "embodied_rl.cli.main", *words],
        env={**os.environ, **variables},
        capture_output=True,
        encoding="ascii",
        errors="strict",
    )


def refused(*words: str, **variables: str) -> str:
    done = run(*words, **variables)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("domain", ["abc", "-1", "233", "7 8"])
def test_a_domain_that_is_none(domain):
    pytest.importorskip("rclpy")
    line = refused("launch", "sim", "cameras:=none", ROS_DOMAIN_ID=domain)
    assert line.startswith(f"error: ROS_DOMAIN_ID='{domain}': expected a whole number")


def test_a_window_system_without_a_display():
    pytest.importorskip("rclpy")
    away = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    assert "MUJOCO_GL=glfw needs a display" in refused("launch", "sim", MUJOCO_GL="glfw", **away)


@pytest.fixture
def unwritable(tmp_path) -> Path:
    """Nobody, root neither, makes a folder below a file."""
    (tmp_path / "file").write_text("no folder")
    return tmp_path / "file" / "folder"


def test_results_that_could_not_be_written_are_refused_before_the_work(unwritable):
    file = str(unwritable / "eval.json")
    line = refused("eval", "expert", "--task", "pick_place", "--episodes", "1", "--json", file)
    assert str(unwritable) in line and "--json" in line
    line = refused("train", "tgpo", "--out", str(unwritable / "model"))
    assert str(unwritable) in line and "--out" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_noticed_although_an_empty_file_can_be_made(monkeypatch, tmp_path):
    from embodied_rl.bringup import check
    from embodied_rl.core.errors import UserError

    def full(**_: object):
        return open("/dev/full", "wb", buffering=0)  # noqa: SIM115

    monkeypatch.setattr(check.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(UserError, match="No space left on device; give another one with --out"):
        check.check_folder(tmp_path, "--out")


def test_an_ascii_terminal_shows_what_it_can(tmp_path):
    done = run(
        "eval", "expert", "--task", "pick_place", "--episodes", "1", PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
