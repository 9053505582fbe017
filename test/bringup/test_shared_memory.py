"""What killed processes leave in shared memory is removed, and nothing else is."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embodied_rl.bringup.shared_memory import remove_stale

DEAD, ALIVE, YOUNG, BARE = (f"fastrtps_{letter * 16}" for letter in "abcd")


def make(folder: Path, name: str, age_s: float = 3600.0, lock: bool = True) -> None:
    (folder / name).write_bytes(bytes(1000))
    if lock:
        path = folder / f"{name}_el"
        path.touch()
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)


@pytest.fixture
def folder(tmp_path):
    make(tmp_path, DEAD)
    make(tmp_path, ALIVE)
    make(tmp_path, YOUNG, age_s=1.0)
    make(tmp_path, BARE, lock=False)
    make(tmp_path, "fastrtps_port7400")
    make(tmp_path, "somebody_elses")
    with open(tmp_path / f"{ALIVE}_el") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path


def test_only_what_nobody_holds_is_removed(folder):
    before = {path.name for path in folder.iterdir()}
    line = remove_stale(folder)
    assert "1 killed processes" in line
    assert before - {path.name for path in folder.iterdir()} == {DEAD, f"{DEAD}_el"}
    assert remove_stale(folder) == ""


def test_the_memory_of_a_killed_participant(domain_environment, tmp_path):
    """Of the real middleware: kept while the process lives, free after it was killed."""
    code = "import rclpy, time; rclpy.init(); n = rclpy.create_node('a'); print(flush=True); "
    process = subprocess.Popen(
        [sys.executable, "-c", code + "time.sleep(60)"],
        env=domain_environment,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    maps = Path(f"/proc/{process.pid}/maps").read_text().split()
    locks = {
        Path(f"{word}_el") for word in maps if re.search(r"shm/fast[a-z]+_[0-9a-f]{16}$", word)
    }
    try:
        assert locks
        for lock in locks:
            with open(lock) as file, pytest.raises(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        process.kill()
        process.wait()
    for lock in locks:
        os.utime(lock, (lock.stat().st_mtime - 3600.0,) * 2)
        assert lock.with_name(lock.name.removesuffix("_el")).exists()
    remove_stale()
    assert not any(lock.exists() for lock in locks)


@pytest.fixture
def domain_environment():
    pytest.importorskip("rclpy")
    from embodied_rl.bringup.environment import child_environment, defaults, private_domain

    return child_environment(defaults(local=True) | {"ROS_DOMAIN_ID": str(private_domain())})
