"""``embodied_rl bench NAME [NAME ...] [--json F]``: runs scripts of ``benchmarks/``.

A benchmark is a file ``benchmarks/<name>.py`` with ``main(argv) -> int``: it prints its figures
beside their targets and returns 1 if one is missed. Options after the names go to it as they are;
of several benchmarks each writes NAME.json, and its picture, to the folder that ``--json`` names.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from embodied_rl.bringup.arguments import suggestion
from embodied_rl.cli import UsageError
from embodied_rl.core.errors import UserError


def benchmarks() -> dict[str, Path]:
    """Returns name -> script. They live in the source tree only: they are not installed."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    found = sorted(folder.glob("*.py"))
    return {path.stem: path for path in found if not path.stem.startswith("_")}


def main(argv: list[str]) -> int:
    """Runs the named benchmarks one after the other; returns 1 if one missed a target."""
    known = benchmarks()
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(known))
        return 0 if argv else 2
    count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, options = argv[:count], argv[count:]
    if not names:
        raise UsageError(f"name a benchmark before its options; there are {_listed(known)}")
    for name in names:
        if name not in known:
            near = suggestion(name, known)
            raise UsageError(f"unknown benchmark '{name}'{near}; there are {_listed(known)}")
    if len(names) == 1:
        return int(_load(known[names[0]]).main(options))
    return _several([known[name] for name in names], options)


def _several(scripts: list[Path], options: list[str]) -> int:
    """Runs several scripts; the results of each go to the folder ``--json``, if one is named."""
    folder, rest = _take_json(options)
    if folder and (folder.endswith(".json") or Path(folder).is_file()):
        raise UsageError(
            f"--json: expected a folder for the results of {len(scripts)} benchmarks, saw the "
            f"file '{folder}'"
        )
    code = 0
    for script in scripts:
        result = ["--json", str(Path(folder) / f"{script.stem}.json")] if folder else []
        code = max(code, int(_load(script).main([*rest, *result])))
    return code


def _take_json(options: list[str]) -> tuple[str, list[str]]:
    """Returns the value of ``--json`` and the other options."""
    rest, target, words = [], "", iter(options)
    for word in words:
        if word == "--json":
            target = next(words, "")
            if not target:
                raise UsageError("--json needs a name")
        elif word.startswith("--json="):
            target = word.removeprefix("--json=")
        else:
            rest.append(word)
    return target, rest


def _load(path: Path) -> ModuleType:
    """Imports a script by path; its folder is importable meanwhile, for helpers beside it."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and worker processes look modules up by name
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    if not hasattr(module, "main"):
        raise UserError(f"{path}: a benchmark needs main(argv) -> int")
    return module


def _listed(known: dict[str, Path]) -> str:
    return ", ".join(known) or "none here: they are part of the source tree, not of the package"


def _overview(known: dict[str, Path]) -> str:
    return "\n".join(
        [
            "usage: embodied_rl bench NAME [NAME ...] [--json F] [options of the benchmark]",
            "",
            f"benchmarks: {_listed(known)}",
            "",
            "example: embodied_rl bench transport --json transport.json",
        ]
    )
