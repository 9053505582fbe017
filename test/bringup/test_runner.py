"""The runner against real processes: order, ends, signals, leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embodied_rl.bringup.runner import without_interrupts

SCRIPT = Path(__file__).with_name("run_fake_graph.py")


class Run:
    """One runner process and the journal its nodes write."""

    def __init__(self, journal: Path, *words: str) -> None:
        self.journal = journal
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(journal), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self) -> list[tuple[str, str, int]]:
        if not self.journal.exists():
            return []
        rows = [line.split() for line in self.journal.read_text().splitlines()]
        return [(event, name, int(pid)) for event, name, pid in rows]

    def names(self, event: str) -> list[str]:
        return [name for kind, name, _ in self.events() if kind == event]

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def run(tmp_path):
    runs: list[Run] = []

    def start(*words: str) -> Run:
        runs.append(Run(tmp_path / "journal", *words))
        return runs[-1]

    yield start
    for one in runs:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """True while the process runs; a zombie that waits for init does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_stages_wait_for_their_gates_and_the_conductor_ends_the_graph(run):
    one = run(
        "sim:live:60:0:required",
        "clock:exit0:sim:0:gate",
        "policy:live:60:1:required",
        "activate:exit0:policy:1:gate",
        "episodes:exit0:0.2:2:conductor",
        "--finite",
    )
    code, out, err = one.finish()
    assert code == 0, err
    events = [(kind, name) for kind, name, _ in one.events()]
    assert events.index(("end", "clock")) < events.index(("start", "policy"))
    assert events.index(("end", "activate")) < events.index(("start", "episodes"))
    # the rest is stopped in the reverse order of the start
    assert events[-2:] == [("end", "policy"), ("end", "sim")]
    # logs carry their node's name on stderr; what the foreground node writes is passed on as it is
    assert "[sim     ] sim says hello" in err
    assert out == "episodes says hello\n"


def test_interrupt_ends_every_process_in_reverse_order(run):
    one = run("a:live:60:0:required", "b:live:60:0:required", "c:live:60:1:required")
    wait_for(lambda: len(one.names("start")) == 3, "three nodes started")
    one.process.send_signal(signal.SIGINT)
    code, _, err = one.finish()
    assert code == 0, err
    assert one.names("end") == ["c", "b", "a"]


def test_interrupt_before_the_last_episode_is_not_success(run):
    one = run("a:live:60:0:required", "episodes:live:60:1:conductor", "--finite")
    wait_for(lambda: len(one.names("start")) == 2, "both nodes started")
    one.process.send_signal(signal.SIGTERM)
    code, _, err = one.finish()
    assert code == 1
    assert "interrupted" in err
    assert one.names("end") == ["episodes", "a"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("exit3", "required node b ended with exit code 3"),
        ("exit0", "required node b ended with exit code 0"),
        ("crash", "required node b ended with signal SIGKILL"),
    ],
)
def test_a_dead_required_node_ends_the_graph_with_its_name_and_code(run, behaviour, words):
    one = run("a:live:60:0:required", f"b:{behaviour}:a:0:required")
    code, _, err = one.finish()
    assert code == 1
    assert f"error: {words}" in err
    assert one.names("end")[-1] == "a"


def test_the_others_run_on_for_a_moment_after_a_death(run):
    # the command gate needs it to see its commands go stale and to hold the robot
    one = run("gate:live:60:0:required", "policy:crash:gate:0:required", "--settle")
    wait_for(lambda: len(one.names("start")) == 2, "both nodes started")
    policy = next(pid for _, name, pid in one.events() if name == "policy")
    wait_for(lambda: not alive(policy), "the policy died")
    died_s = time.monotonic()
    wait_for(lambda: one.names("end") == ["gate"], "the gate was stopped")
    assert time.monotonic() - died_s > 1.0
    assert one.finish()[0] == 1


def test_a_failed_gate_keeps_the_next_stage_from_starting(run):
    one = run("sim:live:60:0:required", "clock:exit1:0.1:0:gate", "policy:live:60:1:required")
    code, _, err = one.finish()
    assert code == 1
    assert "error: clock ended with exit code 1" in err
    assert "policy" not in one.names("start")


def test_a_failed_conductor_fails_the_graph(run):
    code, _, err = run("sim:live:60:0:required", "episodes:exit1:0.1:1:conductor").finish()
    assert code == 1
    assert "error: episodes ended with exit code 1" in err


def test_a_node_that_fails_while_stopping_fails_the_run(run):
    # a recorder that cannot close its bag must not look like success
    one = run("recorder:fails_to_close:60:0:required", "episodes:exit0:recorder:1:conductor")
    code, _, err = one.finish()
    assert code == 1
    assert "error: recorder ended with exit code 7 while stopping" in err


def test_signals_escalate(run):
    one = run("a:deaf_to_int:60:0:required", "b:stubborn:60:0:required")
    wait_for(lambda: len(one.names("start")) == 2, "both nodes started")
    one.process.send_signal(signal.SIGINT)
    code, _, err = one.finish()
    assert one.names("end") == ["a"]
    assert code == 1
    assert "b did not end on SIGINT or SIGTERM and was killed" in err
    assert not any(alive(pid) for _, _, pid in one.events())


def test_the_traceback_of_our_own_interrupt_is_not_shown():
    ours = ["Traceback (most recent call last):", '  File "x.py", line 1', "KeyboardInterrupt"]
    real = [*ours[:2], "ValueError: no"]
    assert without_interrupts(["a", *ours, "b"]) == ["a", "b"]
    assert without_interrupts(["a", *real, *ours]) == ["a", *real]


def test_grandchildren_do_not_survive(run):
    one = run("a:parent:60:0:required")
    wait_for(lambda: one.names("start") == ["a"], "the node started")
    one.process.send_signal(signal.SIGINT)
    assert one.finish()[0] == 0
    wait_for(lambda: not any(alive(pid) for _, _, pid in one.events()), "no process left")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent-death signal")
def test_nodes_end_when_the_runner_is_killed(run):
    one = run("a:live:60:0:required", "b:live:60:0:required")
    wait_for(lambda: len(one.names("start")) == 2, "both nodes started")
    os.kill(one.process.pid, signal.SIGKILL)
    assert one.finish()[0] == -signal.SIGKILL
    wait_for(lambda: not any(alive(pid) for _, _, pid in one.events()), "no orphan left")


def test_a_gate_leads_the_robot_to_a_stop_while_the_rest_still_runs(run):
    """The policy is told first and the gate at once after it, not after the others have ended."""
    one = run(
        "driver:live:60:0:required",
        "gate:ramp:60:1:required:first",
        "policy:live:60:1:required:first",
        "recorder:live:60:1:required",
    )
    wait_for(lambda: len(one.names("start")) == 4, "all nodes run")
    one.process.send_signal(signal.SIGINT)
    code, _, _ = one.finish()
    assert code == 0
    ended = [(event, name) for event, name, _ in one.events() if event != "start"]
    assert sorted(ended[:2]) == [("end", "policy"), ("told", "gate")]
    assert ended[2:] == [("end", "gate"), ("end", "recorder"), ("end", "driver")]
