"""``embodied_rl doctor``: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from embodied_rl.bringup.environment import child_environment, defaults, private_domain

LIMIT_S = 60.0


@dataclass(frozen=True)
class Question:
    """One line of the report; what is not `needed` does not decide the exit code."""

    check: str
    title: str
    needed: bool = True


QUESTIONS = (
    Question("python", "Python"),
    Question("ros", "ROS 2"),
    Question("ros_node", "ROS node"),
    Question("ros_roundtrip", "ROS between processes"),
    Question("gl", "off-screen GL"),
    Question("mujoco", "MuJoCo"),
    Question("ogbench", "robot models (ogbench)"),
    Question("torch", "PyTorch"),
    Question("bags", "bag readers"),
    Question("models", "trained models", needed=False),
    Question("disk", "disk"),
    Question("shared_memory", "shared memory", needed=False),
    Question("launch", "ros2 launch", needed=False),
)


@dataclass(frozen=True)
class Finding:
    """The answer to one question."""

    check: str
    title: str
    needed: bool
    ok: bool
    seen: str
    advice: str


@dataclass
class Options:
    """Check this machine: ROS, GL, simulator, torch, models, disk; say what to do about the rest.

    Exit code 0 if everything that is needed works, 1 otherwise.
    Example: embodied_rl doctor --json doctor.json
    """

    json: Path | None = None
    """also write the findings to this file"""


def main(argv: list[str]) -> int:
    """Prints the report; returns 0 if all that is needed works."""
    import tyro

    options = tyro.cli(Options, args=argv, prog="embodied_rl doctor")
    findings = examine()
    _print(findings)
    good = all(f.ok for f in findings if f.needed)
    if options.json is not None:
        from embodied_rl.core.checkpoint import atomic_write

        machine = {"platform": platform.platform(), "cores": os.cpu_count()}
        report = {"ok": good, "machine": machine, "findings": [asdict(f) for f in findings]}
        with atomic_write(options.json) as path:
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if good else 1


def examine() -> list[Finding]:
    """Asks every question in a process of its own, two at a time."""
    wanted = defaults(local=True)
    wanted.pop("OMP_NUM_THREADS", None)  # report the threads torch takes when nobody limits it
    # A domain of its own: the round trip must not meet a robot or another doctor.
    domain = str(private_domain())
    environment = child_environment(wanted | {"ROS_DOMAIN_ID": domain, "EGL_LOG_LEVEL": "fatal"})
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda q: _ask(q, environment), QUESTIONS))


def _ask(question: Question, environment: dict[str, str]) -> Finding:
    command = [sys.executable, "-m", "embodied_rl.cli.checks", question.check]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
        reply = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        reply = {"ok": False, "seen": f"no answer within {LIMIT_S:g} s", "advice": "see the others"}
    except (IndexError, json.JSONDecodeError):  # it died before it could answer
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        seen = f"the check died (exit code {done.returncode}): {last}"
        reply = {"ok": False, "seen": seen, "advice": "make setup"}
    return Finding(question.check, question.title, question.needed, **reply)


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="embodied_rl doctor", title_justify="left", show_lines=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in findings:
        mark = "[green]ok" if finding.ok else ("[red]FAIL" if finding.needed else "[yellow]note")
        seen = escape(finding.seen)
        if not finding.ok:
            seen += f"\n[bold]-> {escape(finding.advice)}"
        table.add_row(finding.title, mark, seen)
    console = Console()
    console.print(table)
    failed = [f.title for f in findings if f.needed and not f.ok]
    if failed:
        console.print(f"not working: {', '.join(failed)}", style="red", highlight=False)
    else:
        console.print("everything that is needed works here", style="green", highlight=False)
