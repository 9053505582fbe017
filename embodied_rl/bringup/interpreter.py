"""Which interpreter the nodes of `ros2 launch` run in, and the graph as that interpreter builds it.

`ros2` is a script of the system's Python, and colcon writes the system's Python into what it
installs. Our dependencies (torch, mujoco, safetensors) often live in a virtual environment, so the
files of ``launch/`` import the standard library and PyYAML only and leave the rest to an
interpreter that has what a graph needs. Looked for in this order:

1. ``EMBODIED_RL_PYTHON``: this one or none
2. the activated virtual environment (``VIRTUAL_ENV``)
3. a ``.venv`` beside the sources, or in the colcon workspace they are installed in
4. the interpreter of `ros2` itself
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_rl.bringup.environment import child_environment, share_folders
from embodied_rl.bringup.spec import Graph, from_plain
from embodied_rl.core.errors import UserError

VARIABLE = "EMBODIED_RL_PYTHON"
ANSWER_S = 120.0  # a cold disk and a busy machine; the answer takes a second or two


@dataclass(frozen=True)
class Interpreter:
    """A Python program and where we know it from."""

    path: str
    source: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process that runs in it finds: our own package too, where it is not installed."""
        root = Path(__file__).resolve().parents[2]
        extra = {}
        if (root / "setup.py").is_file():  # a source tree; an installed package is found anyway
            paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
            extra["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(root), *paths]))
        return child_environment(extra, Path(self.path).parent.parent)


def candidates() -> Iterator[Interpreter]:
    """The interpreters that exist, best first.

    Raises:
        UserError: ``EMBODIED_RL_PYTHON`` is set to something that cannot be run.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise UserError(f"{VARIABLE}={named}: expected a Python interpreter, saw none there")
        yield Interpreter(str(path), VARIABLE)
        return
    found = set()
    for folder, source in _environments():
        path = folder / "bin" / "python"
        if path not in found and os.access(path, os.X_OK):
            found.add(path)
            yield Interpreter(str(path), source)
    if Path(sys.executable) not in found:
        yield Interpreter(sys.executable, "the interpreter of ros2")


def _environments() -> Iterator[tuple[Path, str]]:
    active = os.environ.get("VIRTUAL_ENV")
    if active:
        yield Path(active).absolute(), "VIRTUAL_ENV"
    # <sources>/, or <workspace>/install/[embodied_rl/]share/embodied_rl/ as colcon lays it out
    for folder in share_folders():
        for above in (folder, *list(folder.parents)[2:5]):
            yield above / ".venv", f"{above}/.venv"


def graph_of(name: str, given: Mapping[str, str]) -> tuple[Graph, Interpreter]:
    """Returns graph `name` for ``argument -> text``, and the interpreter that can run it.

    Raises:
        UserError: an argument is wrong, or no interpreter has what the graph needs; says which were
            asked and how to mend it.
    """
    lacking = []
    for one in candidates():
        reply = _ask(one, name, given)
        if "error" in reply:
            raise UserError(str(reply["error"]))
        if "graph" in reply:
            return from_plain(reply["graph"]), one
        lacking.append(f"{one.path} ({one.source}) lacks {reply['missing']}")
    raise UserError(
        f"graph '{name}': no interpreter has what its nodes need: {'; '.join(lacking)}; "
        "python3 -m venv --system-site-packages .venv && .venv/bin/pip install '.[all]' in the "
        f"sources of embodied_rl makes one; activate it, or set {VARIABLE}"
    )


def run_command(words: list[str]) -> int:
    """Runs ``embodied_rl`` with `words` in the first interpreter that has what every verb needs:
    in this one, or in its place.

    Returns:
        The exit code; 1 where there is no such interpreter, after one line that says so.
    """
    try:
        for one in candidates():
            if not _has_basics(one):
                continue
            if one.path == sys.executable:
                from embodied_rl.cli.main import main

                return main(words)
            command = [one.path, "-m", "embodied_rl.cli.main", *words]
            os.execve(one.path, command, one.environment)
        raise UserError(
            "no interpreter with numpy and safetensors; in the sources of embodied_rl: "
            "python3 -m venv --system-site-packages .venv && .venv/bin/pip install '.[all]'; "
            f"activate it, or set {VARIABLE}"
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _has_basics(one: Interpreter) -> bool:
    command = [one.path, "-c", "import numpy, yaml, safetensors, embodied_rl"]
    return subprocess.run(command, env=one.environment, capture_output=True).returncode == 0


def _ask(one: Interpreter, name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Returns ``{graph}``, ``{error}`` or ``{missing}``."""
    command = [one.path, "-m", "embodied_rl.bringup.describe", name]
    try:
        done = subprocess.run(
            command,
            env=one.environment,
            input=json.dumps(dict(given)),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=ANSWER_S,
        )
    except subprocess.TimeoutExpired:
        return {"missing": f"an answer within {ANSWER_S:g} s"}
    except OSError as error:
        return {"missing": f"a working interpreter: {error.strerror}"}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):  # it died before it could answer
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"missing": f"a working embodied_rl: {last}"}
