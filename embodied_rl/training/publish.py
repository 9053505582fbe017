"""Writing a trained model as a checkpoint folder that says where it comes from."""

from __future__ import annotations

import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from embodied_rl.core.checkpoint import CARD, atomic_write, save_checkpoint
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError

LIBRARIES = ("embodied_rl", "torch", "numpy", "safetensors")
MEASURED = "## Measured"


def publish(
    folder: Path,
    *,
    policy: str,
    name: str,
    task: str,
    parts: Mapping[str, Any],
    model: nn.Module,
    seed: int,
    data: str,
    embodiment: Embodiment | None = None,
    streams: Sequence[str] = (),
) -> None:
    """Writes config, weights and card; `parts` are the policy's own sections of the config.

    Args:
        embodiment: of a policy that reads a robot's `streams`; None for one that acts on the state
            of a task's own dynamics.
    """
    config: dict[str, Any] = {"policy": policy, "name": name, "task": task}
    if embodiment is not None:
        config |= {
            "embodiment": embodiment.name,
            "embodiment_hash": embodiment.contract_hash(streams),
            "streams": {k: list(s.shape) for k, s in embodiment.require(streams).items()},
        }
    config |= {
        **parts,
        "seed": seed,
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), **library_versions()},
    }
    parameters = sum(p.numel() for p in model.parameters())
    on = "" if embodiment is None else f" on embodiment `{embodiment.name}`"
    card = "\n".join(
        [
            f"# {name}\n",
            f"{policy} policy for task `{task}`{on}, {parameters:,} parameters.\n",
            f"## Data\n\n{data}\n",
            f"## Command\n\n```\n{command_line()}\n```\n",
            f"{MEASURED}\n\nNot evaluated yet: `embodied_rl eval {name} --card`.\n",
        ]
    )
    tensors = {k: v.detach().cpu().numpy() for k, v in model.state_dict().items()}
    save_checkpoint(folder, config, tensors, card)


def record_measurement(folder: Path, text: str) -> None:
    """Puts `text` in place of the card's section on measured success."""
    path = folder / CARD
    try:
        card = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    section = f"{MEASURED}\n\n{text.strip()}\n"
    if MEASURED in card:
        # The section ends at the next heading of its level or with the file.
        card = re.sub(rf"{MEASURED}\n.*?(?=\n## |\Z)", lambda _: section, card, flags=re.DOTALL)
    else:
        card = f"{card.rstrip()}\n\n{section}"
    with atomic_write(path) as temporary:
        temporary.write_text(card, encoding="utf-8")


def command_line() -> str:
    """This process's command, without the path of the interpreter or of the script."""
    script = Path(sys.argv[0])
    # `python -m embodied_rl.cli.main` is the same verb without a script of its own
    inside = script.name in ("", "-c", "-m") or script.suffix == ".py"
    return " ".join(["embodied_rl" if inside else script.name, *map(shlex.quote, sys.argv[1:])])


def library_versions() -> dict[str, str]:
    """Versions of the libraries that weights and samples depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def git_commit() -> str:
    """Commit of the source tree, "-dirty" if it was changed; "unknown" outside a repository."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return result.stdout.strip()
