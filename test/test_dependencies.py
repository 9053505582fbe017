"""What the code imports is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# distribution -> what it is imported as, where the two differ
IMPORTED_AS = {"PyYAML": "yaml", "opencv-python-headless": "cv2", "pillow": "PIL"}
# distribution -> why nobody imports it
NEVER_IMPORTED = {"ogbench": "its robot models are read"}
BROUGHT_BY = {"mcap": {"lz4", "zstandard"}}  # requirements of a requirement, which it cannot lack


def declared() -> dict[str, list[str]]:
    """``BASE`` and ``EXTRAS`` of setup.py, which must not be run here."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "BASE":
            found["base"] = ast.literal_eval(node.value)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXTRAS":
            assert isinstance(node.value, ast.Dict)
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(value, ast.List):
                    found[ast.literal_eval(key)] = ast.literal_eval(value)
    return {k: [re.split(r"[;=<>\[ ]", one)[0] for one in names] for k, names in found.items()}


def imports() -> dict[str, set[str]]:
    """Top-level name of another package -> our modules that import it, wherever in the module."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "embodied_rl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top != "embodied_rl":
                    found.setdefault(top, set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.fixture(scope="module")
def ros() -> set[str]:
    tree = ElementTree.parse(ROOT / "package.xml")
    return {entry.text or "" for entry in tree.iter("exec_depend")}


def test_the_documented_install_has_all_that_the_code_imports(ros):
    """``pip install -e ".[all]"`` with ROS beside it; development tools are in neither."""
    extras = declared()
    names = extras["base"] + extras["sim"] + extras["torch"] + extras["plot"]
    here = {IMPORTED_AS.get(name, name) for name in names}
    for name in names:
        here |= BROUGHT_BY.get(name, set())
    missing = {name: sorted(where) for name, where in imports().items() if name not in here | ros}
    assert missing == {}


def test_nothing_is_declared_that_nobody_imports():
    extras, used = declared(), imports()
    for extra in ("base", "sim", "torch", "plot"):
        for name in extras[extra]:
            assert name in NEVER_IMPORTED or IMPORTED_AS.get(name, name) in used, name
