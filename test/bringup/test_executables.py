"""Every node can be run by name where the package is installed."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _installed() -> set[str]:
    for statement in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "NODES":
            return set(ast.literal_eval(statement.value))
    raise AssertionError("setup.py has no NODES")


def test_every_node_with_a_main_is_an_executable_of_the_package():
    nodes = (ROOT / "embodied_rl" / "nodes").glob("*_node.py")
    assert _installed() == {path.stem for path in nodes}
