"""Finds a policy by name: the expert, a checkpoint folder, or a model that ships with us."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embodied_rl.core.checkpoint import CONFIG
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Policy
from embodied_rl.core.schema import load_yaml_mapping

EXPERT = "expert"
PACKAGE = "embodied_rl"


def _load_ptp(folder: Path, embodiment: Embodiment, task: str | None, **options: Any) -> Policy:
    from embodied_rl.policies.ptp.runtime import load_ptp

    return load_ptp(folder, embodiment, **options)  # one model may be tried on any task


def _load_relic(folder: Path, embodiment: Embodiment, task: str | None, **options: Any) -> Policy:
    from embodied_rl.policies.relic.controller import load_controller

    del options["budget_s"]  # one step takes milliseconds, and nothing of it can be left out
    return load_controller(folder, embodiment, **options)


def _load_tgpo(folder: Path, embodiment: Embodiment, task: str | None, **options: Any) -> Policy:
    from embodied_rl.policies.tgpo.controller import load_controller

    return load_controller(folder, embodiment, task, **options)


# "policy" key of a checkpoint's config -> its loader; each imports its own package when asked for
LOADERS: dict[str, Callable[..., Policy]] = {
    "ptp": _load_ptp,
    "relic": _load_relic,
    "tgpo": _load_tgpo,
}
IN_CONTEXT = ("relic",)  # policies that keep a context over episodes


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


def model_policy(name: str) -> str | None:
    """Which policy a checkpoint is of; None for the expert."""
    if name == EXPERT:
        return None
    policy = load_yaml_mapping(find_checkpoint(name) / CONFIG).get("policy")
    return policy if isinstance(policy, str) else None


def model_task(name: str) -> str | None:
    """The task that a checkpoint was trained for; None for the expert, who knows several."""
    if name == EXPERT:
        return None
    task = load_yaml_mapping(find_checkpoint(name) / CONFIG).get("task")
    return task if isinstance(task, str) else None


def load_policy(
    name: str,
    embodiment: Embodiment,
    task: str | None = None,
    *,
    samples: int | None = None,
    budget_s: float | None = None,
    context_steps: int | None = None,
    device: str = "auto",
) -> Policy:
    """A policy ready for `reset`.

    Args:
        name: 'expert', a checkpoint folder, or the name of a shipped model.
        task: for the expert, whose plans differ by task, and for tgpo, whose task is a formula: the
            name of a stored task or a task file. A checkpoint of ptp may be tried on any.
        samples: candidates that each plan is chosen from; None takes the model's own number.
        budget_s: time after which a policy with several candidates makes do with fewer; None
            leaves them all, which a run that must be repeatable needs.
        context_steps: most steps that a policy keeps in its context; only of one that learns in
            context.
        device: where its networks are computed: auto (a GPU if there is one), cpu, cuda, cuda:N.

    Raises:
        UserError: unknown name, a checkpoint that does not fit the embodiment, or `samples` that
            the policy cannot draw, or a context or device that it cannot have.
    """
    if context_steps is not None and model_policy(name) not in IN_CONTEXT:
        raise UserError(
            f"context_steps: expected none for '{name}', which keeps no context over episodes, saw "
            f"{context_steps}"
        )
    if name == EXPERT:
        if samples not in (None, 1):
            raise UserError(f"samples: expected 1 for the expert, which plans once, saw {samples}")
        from embodied_rl.sim.tasks.expert import EXPERTS, make_expert

        if task is None:
            raise UserError(f"the expert needs a task; valid: {', '.join(sorted(EXPERTS))}")
        return make_expert(task, embodiment)
    folder = find_checkpoint(name)
    policy = load_yaml_mapping(folder / CONFIG).get("policy")
    if policy not in LOADERS:
        known = ", ".join(sorted(LOADERS))
        raise UserError(f"{folder / CONFIG}: policy: expected one of {known}, saw {policy!r}")
    options: dict[str, Any] = {"samples": samples, "budget_s": budget_s, "device": device}
    if context_steps is not None:
        options["context_steps"] = context_steps
    return LOADERS[policy](folder, embodiment, task, **options)
