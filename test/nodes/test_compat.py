"""Which rclpy the nodes run with: the names they import, and what one distribution lacks."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from embodied_rl.nodes.compat import matched_publishers  # noqa: E402

NODES = Path(__file__).resolve().parents[2] / "embodied_rl" / "nodes"
# A checkout of rclpy of another distribution (its folder `rclpy/`), to hold the names against.
SOURCES = os.environ.get("RCLPY_SOURCES", "")


def imported() -> set[tuple[str, str]]:
    """(module, name) of every import from rclpy outside compat.py."""
    found = set()
    for path in NODES.glob("*.py"):
        if path.name == "compat.py":
            continue
        for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = getattr(statement, "module", None) or ""
            if isinstance(statement, ast.ImportFrom) and module.split(".")[0] == "rclpy":
                found |= {(module, alias.name) for alias in statement.names}
    return found


def test_every_name_is_in_the_rclpy_that_is_installed():
    names = imported()
    assert ("rclpy.node", "Node") in names
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.skipif(not SOURCES, reason="RCLPY_SOURCES names no checkout of rclpy")
def test_every_name_is_in_the_sources_of_another_distribution():
    for module, name in imported():
        path = Path(SOURCES).joinpath(*module.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert path.is_file(), f"{module}: not there"
        assert name in path.read_text(encoding="utf-8"), f"{module}.{name}"


class Handle(contextlib.nullcontext):
    """Of a subscription in Humble: it does not know its publishers."""


def test_where_the_matched_are_not_counted_the_discovered_are():
    handle = Handle()
    assert matched_publishers(SimpleNamespace(handle=handle), 2) == 2
    handle.get_publisher_count = lambda: 1
    assert matched_publishers(SimpleNamespace(handle=handle), 2) == 1
