"""Finds methods by folder and entry point, and policies by name, checkpoint folder or model."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import embodied_rl.policies as package
from embodied_rl.core.checkpoint import CONFIG
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Policy
from embodied_rl.core.schema import load_yaml_mapping
from embodied_rl.policies.method import Method, Model, Options, Setting, read_options

ENTRY_POINTS = "embodied_rl.methods"  # name -> object of type Method, in other packages
EXPERT = "expert"  # the method whose policies need no checkpoint
PACKAGE = "embodied_rl"


@cache
def methods() -> dict[str, Method]:
    """Name -> method: every folder of :mod:`embodied_rl.policies` with a module ``method``, and
    what other packages announce.

    Raises:
        UserError: two methods of one name, or an entry point that is no method; names it.
    """
    found = [
        importlib.import_module(f"{package.__name__}.{entry.name}.method").METHOD
        for entry in pkgutil.iter_modules(package.__path__)
        if entry.ispkg and _has_method(entry.name)
    ]
    for entry in entry_points(group=ENTRY_POINTS):
        method = entry.load()
        if not isinstance(method, Method):
            raise UserError(
                f"entry point {entry.name} = {entry.value}: expected a Method of "
                f"embodied_rl.policies.method, saw {type(method).__name__}"
            )
        found.append(method)
    by_name: dict[str, Method] = {}
    for method in sorted(found, key=lambda one: one.name):
        if method.name in by_name:
            raise UserError(f"method '{method.name}': expected one of that name, saw two")
        by_name[method.name] = method
    return by_name


def _has_method(folder: str) -> bool:
    return any((Path(place) / folder / "method.py").is_file() for place in package.__path__)


def models_folders() -> list[Path]:
    """Where shipped models may lie: the source tree, then the installed `share` folders."""
    folders = [Path(__file__).resolve().parents[2] / "models"]
    # set by a colcon workspace's setup script; empty with the ROS wheels
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders += [Path(p) / "share" / PACKAGE / "models" for p in (*prefixes, sys.prefix)]
    return [folder for folder in folders if folder.is_dir()]


def shipped_models() -> dict[str, Path]:
    """Name -> folder of every shipped checkpoint; the first place that has a name counts."""
    found: dict[str, Path] = {}
    for root in models_folders():
        for folder in sorted(root.iterdir()):
            if (folder / CONFIG).is_file():
                found.setdefault(folder.name, folder)
    return found


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint given by path or by the name of a shipped model.

    Raises:
        UserError: neither; lists the valid names.
    """
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    if folder.is_dir():
        raise UserError(f"{folder / CONFIG}: not there; a checkpoint folder needs it")
    names = [EXPERT, *sorted(shipped)]
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise UserError(f"unknown model '{name}'{hint}; valid: {', '.join(names)}, or a folder's path")


def find_model(name: str) -> Model:
    """A model with its method, by the name of a shipped one, a folder's path, or 'expert'.

    Raises:
        UserError: no such model, or a checkpoint of no known method.
    """
    known = methods()
    if name == EXPERT:
        return Model(name, None, known[EXPERT])
    folder = find_checkpoint(name)
    config = load_yaml_mapping(folder / CONFIG)
    kinds = sorted(set(known) - {EXPERT})
    if config.get("policy") not in kinds:
        raise UserError(
            f"{folder / CONFIG}: policy: expected one of {', '.join(kinds)}, saw "
            f"{config.get('policy')!r}"
        )
    task = config.get("task")
    return Model(name, folder, known[config["policy"]], task if isinstance(task, str) else None)


def load_policy(
    name: str,
    embodiment: Embodiment,
    task: str | None = None,
    *,
    budget_s: float | None = None,
    **options: Any,
) -> Policy:
    """A policy ready for `reset`.

    Args:
        name: 'expert', a checkpoint folder, or the name of a shipped model.
        task: for a policy whose plans differ by task, such as the expert's; others may be tried on
            any.
        budget_s: time after which a policy with several candidates makes do with fewer; None
            leaves them all, which a run that must be repeatable needs.
        options: of the method's ``options``.

    Raises:
        UserError: unknown name or option, or a checkpoint that does not fit the embodiment.
    """
    model = find_model(name)
    found = read_options(model.method.options, options, f"policy '{name}'")
    return load_model_policy(model, Setting(embodiment, task, budget_s), found)


def load_model_policy(model: Model, setting: Setting, options: Options) -> Policy:
    """As :func:`load_policy`, of a model that has been found."""
    return model.method.load(model.folder, setting, options)
