"""docs/your_robot.md, word by word: its own commands, in its own order, against the stand-in."""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.bringup.environment import child_environment
from embodied_rl.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "your_robot.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LABEL = re.compile(r"# terminal (\d)(?:, ready when it says: (.*))?\n")
PATIENCE_S = 300.0
# shorter, for a test: fewer demonstrations, and training that only has to run
SHORTER = (
    (" 1 2 3 4 5 6 7 8;", " 1 2 3;"),
    ("embodied_rl train ptp", "embodied_rl train ptp --steps 30"),
)


@dataclass(frozen=True)
class Step:
    terminal: int
    ready: str | None  # what a graph says once it runs; None of a command that ends by itself
    command: str


def steps() -> list[Step]:
    """The commands of the document, but for the first block, which prepares a terminal."""
    found = []
    for text in BLOCK.findall(DOC.read_text()):
        if label := LABEL.match(text):
            command = text[label.end() :]
            for long, short in SHORTER:
                command = command.replace(long, short)
            command = re.sub(r"(--steps 30 .*) --steps \d+", r"\1", command)
            found.append(Step(int(label[1]), label[2], command))
    return found


class Terminals:
    """Runs steps as a user with three terminals does; the next graph of one ends the one before."""

    def __init__(self, folder: Path, domain: int):
        self.folder, self._running = folder, {}
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "bin").mkdir()
        for name, words in (("python", []), ("embodied_rl", ["-m", "embodied_rl.cli.main"])):
            script = folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n')
            script.chmod(0o755)
        self.environment = child_environment(
            {
                "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "ROS_DOMAIN_ID": str(domain),
                "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
                "COLUMNS": "160",
            }
        )

    def run(self, step: Step) -> str:
        """What it printed, up to its end or up to the line that says that it is ready."""
        return self.wait(step, self.begin(step))

    def begin(self, step: Step) -> subprocess.Popen:
        if step.ready is None:
            return subprocess.Popen(
                ["bash", "-euc", step.command], cwd=self.folder, env=self.environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        self.end(step.terminal)
        with open(self._log(step.terminal), "w") as file:
            self._running[step.terminal] = subprocess.Popen(
                shlex.split(step.command), cwd=self.folder, env=self.environment,
                stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self._running[step.terminal]

    def wait(self, step: Step, process: subprocess.Popen) -> str:
        if step.ready is None:
            text, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, f"{step.command}\n{text}"
            return text
        log, deadline_s = self._log(step.terminal), time.monotonic() + PATIENCE_S
        while step.ready not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.1)
        return log.read_text()

    def here(self, step: Step, monkeypatch) -> None:
        """In this process: importing what trains and evaluates takes longer than the work."""
        words = shlex.split(step.command)
        assert words[0] == "embodied_rl"
        with monkeypatch.context() as patch:
            patch.chdir(self.folder)
            assert main(words[1:]) == 0, step.command

    def _log(self, terminal: int) -> Path:
        return self.folder / f"terminal_{terminal}.log"

    def end(self, terminal: int) -> None:
        process = self._running.pop(terminal, None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)

    def keys(self, presses: list[tuple[str, bytes]]) -> str:
        """``record keys`` in a terminal of its own; each key is pressed once its text is seen."""
        child, descriptor = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            words = ["embodied_rl", "record", "keys"]
            os.execvpe(str(self.folder / "bin" / "embodied_rl"), words, self.environment)
        seen, shown, deadline_s = b"", 0, time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if presses and presses[0][0].encode() in seen[shown:]:
                shown = len(seen)
                os.write(descriptor, presses.pop(0)[1])
            if select.select([descriptor], [], [], 0.2)[0]:
                try:
                    seen += os.read(descriptor, 4096)
                except OSError:  # how a terminal says that its last process has ended
                    break
        os.close(descriptor)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen.decode()
        return seen.decode()

    def close(self) -> None:
        for terminal in sorted(self._running, reverse=True):
            self.end(terminal)


@pytest.fixture
def terminals(tmp_path, domain):
    made = Terminals(tmp_path, domain)
    yield made
    made.close()


class Watch:
    """What the probe sees of the stand-in: commands on its topics, its joints, its report."""

    def __init__(self, probe):
        self.probe = probe
        self.commands = probe.collect(
            JointTrajectory, "joint_trajectory_controller/joint_trajectory"
        )
        self.grips = probe.collect(Float64MultiArray, "gripper_controller/commands")
        self.truth = probe.collect(JointState, "stand_in/truth")

    def clear(self) -> None:
        self.commands.clear()
        self.grips.clear()

    def joints(self) -> np.ndarray:
        count = len(self.truth)
        self.probe.until(lambda: len(self.truth) > count, "joints of the stand-in")
        return np.array(self.truth[-1][1].position)

    def report(self) -> dict:
        return yaml.safe_load(self.probe.call(Trigger, "stand_in_node/report").message)


def test_the_file_in_the_document_is_the_one_that_ships():
    shown = re.search(r"^```yaml\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
    assert shown and shown[1] == (ROOT / "examples/your_robot/arm.yaml").read_text()


@pytest.mark.skipif(
    os.environ.get("EMBODIED_RL_LONG") != "1",
    reason="takes minutes of two idle processor cores: EMBODIED_RL_LONG=1 runs it",
)
def test_every_command_of_the_document_in_order(terminals, probe, monkeypatch, capsys):
    plan = steps()
    kinds = [(s.terminal, s.ready is not None) for s in plan]
    assert kinds.count((2, True)) == 3 and kinds[0] == (1, True) and len(plan) == 13
    start, record, look, demonstrate, check, train, replay, dry, look_dry, live, *rest = plan
    stop, release, tune = rest
    terminals.run(start)
    watch = Watch(probe)
    terminals.run(record)
    assert "recorder_node: ok, not recording" in terminals.run(look)

    demonstrating = terminals.begin(demonstrate)
    importlib.import_module("embodied_rl.policies.ptp.train")  # takes seconds: meanwhile
    said = terminals.wait(demonstrate, demonstrating)
    assert said.count("recording: ") == said.count("complete: ") == said.count("demonstrated") == 3
    assert said.count(" 0 lost)") == 3
    shown = terminals.keys(
        [("idle: joint_states ", b" "), ("recording: ", b"d"), ("discarded: ", b"q")]
    )
    assert "d: discard it" in shown and " Hz" in shown
    terminals.here(check, monkeypatch)
    text = capsys.readouterr().out
    assert len(list((terminals.folder / "runs/demos").glob("episode_*"))) == 3
    for rows, actions in re.findall(r"sound \S+: (\d+) control .* (\d+) with an action", text):
        assert int(actions) >= 45 and int(rows) >= int(actions)

    terminals.here(train, monkeypatch)
    before = watch.report()
    watch.joints()
    watch.clear()
    starting = terminals.begin(dry)
    terminals.here(replay, monkeypatch)
    terminals.here(tune, monkeypatch)
    assert (terminals.folder / "runs/models/small_arm_2/weights.safetensors").is_file()
    figures = json.loads((terminals.folder / "runs/open_loop.json").read_text())
    assert figures["episodes"] == 3 and figures["horizons"] == [1, 6, 12]
    names = [part["name"] for part in figures["dimensions"]]
    assert names == ["shoulder", "elbow", "wrist", "finger"]

    terminals.wait(dry, starting)
    assert "command_gate_node: " in (text := terminals.run(look_dry)) and "dry run" in text
    watch.joints()
    assert not watch.commands and not watch.grips
    assert watch.report()["accepted"] == before["accepted"]

    terminals.run(live)
    watch.clear()
    probe.until(lambda: len(watch.commands) > 5 and len(watch.grips) > 5, "commands of the policy")
    assert "emergency stop" in terminals.run(stop)
    rest_s = time.monotonic() + 1.0
    probe.until(lambda: time.monotonic() > rest_s, "rest")
    at = watch.joints()
    rest_s = time.monotonic() + 1.0
    probe.until(lambda: time.monotonic() > rest_s, "rest")
    np.testing.assert_allclose(watch.joints(), at, atol=2e-3)
    assert "released" in terminals.run(release)
    after = watch.report()
    assert after["refused"] == {}
    assert all(after["accepted"][key] > before["accepted"][key] for key in ("arm", "gripper"))


def test_the_lines_in_the_table_are_said_somewhere():
    """What a node says and what the table explains must not drift apart."""
    files = [path for room in ("core", "nodes", "policies") for path in
             sorted((ROOT / "embodied_rl" / room).rglob("*.py"))]  # fmt: skip
    sources = "\n".join(path.read_text() for path in files)
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # a line that is broken in two
    table = DOC.read_text().split("| line | cause | do |")[1]
    lines = [
        line for row in table.splitlines()[2:] for line in re.findall("`(.*?)`", row.split("|")[1])
    ]
    assert len(lines) > 18
    for line in lines:
        parts = [
            part.strip() for part in re.split(r"\.\.\.|'|\(?\bN\b|[\d.]+ ?[a-zA-Z%]*\b|%", line)
        ]
        for part in parts:
            assert len(part) < 6 or part in sources, f"{line}: nobody says '{part}'"
