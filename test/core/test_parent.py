"""Children that must not outlive whoever started them, tried with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from embodied_rl.core.parent import PARENT_VARIABLE, alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own service")

POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from embodied_rl.core.parent import start_worker

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, get_context("spawn"), start_worker)
    work = [pool.submit(time.sleep, 600) for _ in range(2)]
    print(*pool._processes, flush=True)
    work[0].result()
"""
CHILD = """
import subprocess, sys
from embodied_rl.core.parent import die_with_starter

child = subprocess.Popen(["sleep", "600"], preexec_fn=die_with_starter())
print(child.pid, flush=True)
child.wait()
"""
LAUNCHER = """
import os, subprocess, sys

code = "from embodied_rl.core.parent import die_with_launcher as d; d(); print(0, flush=True); "
code += "import time; time.sleep(600)"
environment = {**os.environ, sys.argv[1]: str(os.getpid())}
command = [sys.executable, "-c", code]
child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def gone(pid: int) -> bool:
    """Whether it has ended; an orphan may stay a zombie where nobody adopts it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("script", [POOL, CHILD, LAUNCHER], ids=["pool", "child", "launcher"])
def test_children_end_with_their_killed_parent(script, number, tmp_path):
    file = tmp_path / "parent.py"
    file.write_text(script)
    command = [sys.executable, str(file), PARENT_VARIABLE]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    children = [int(word) for word in parent.stdout.readline().split()]
    assert children and not any(gone(pid) for pid in children)
    parent.send_signal(number)
    parent.wait(timeout=10)
    deadline_s = time.monotonic() + 20
    while not all(gone(pid) for pid in children):
        assert time.monotonic() < deadline_s, "orphans"
        time.sleep(0.02)


def test_a_parent_that_is_gone_already_is_noticed():
    short = subprocess.Popen(["true"])
    short.wait()
    code = "from embodied_rl.core.parent import die_with_launcher as d; d(); print('lives on')"
    environment = {**os.environ, PARENT_VARIABLE: str(short.pid)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and not done.stdout
    environment[PARENT_VARIABLE] = str(os.getpid())
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "lives on\n"


def test_alive_knows_other_peoples_processes():
    assert alive(1) and alive(os.getpid())
