"""What the names of a launch stand for: worlds, tasks, cameras, specifications and policies."""

from __future__ import annotations

from pathlib import Path

from embodied_rl.bringup.arguments import suggestion
from embodied_rl.bringup.environment import models, share_folders
from embodied_rl.bringup.worlds import CAMERAS, DEFAULT_SPEC, EXPERT, TASKS
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.policies.method import parse_options, read_options
from embodied_rl.policies.registry import find_model, methods

SPEC_FOLDER = "sim_worlds/stl_tasks"


def sim_task(world: str, task: str, spec: str) -> str:
    """The simulator's task: the name of one, or the file of a specification."""
    if world in DEFAULT_SPEC:
        if task:
            raise UserError(f"task:={task}: world {world} takes spec:=..., saw a task of another")
        return find_spec(spec or DEFAULT_SPEC[world])
    if spec:
        able = ", ".join(DEFAULT_SPEC)
        raise UserError(f"spec:={spec}: world {world} takes task:=...; with a spec: {able}")
    valid = TASKS[world]
    if task and task not in valid:
        raise UserError(
            f"task:={task}: world {world} has {', '.join(valid)}{suggestion(task, valid)}"
        )
    return task or valid[0]


def cameras_of(world: str, cameras: str) -> str:
    """All of the world's cameras, those asked for, or none."""
    valid = CAMERAS[world]
    if cameras in ("", "none"):
        return cameras or ",".join(valid) or "none"
    for name in cameras.split(","):
        if name not in valid:
            raise UserError(f"cameras:={name}: world {world} has {', '.join(valid) or 'none'}")
    return cameras


def find_spec(text: str) -> str:
    """Returns the absolute path of a task file, given by path or by the name of a shipped one.

    Raises:
        UserError: neither; names the shipped ones.
    """
    path = Path(text).expanduser().absolute()
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return str(path)
        raise UserError(f"spec:={text}: no such file")
    shipped: dict[str, Path] = {}
    for root in share_folders():
        for file in sorted((root / SPEC_FOLDER).glob("*.yaml")):
            shipped.setdefault(file.stem, file)
    if text not in shipped:
        raise UserError(
            f"spec:={text}: no such specification{suggestion(text, shipped)}; there are "
            f"{', '.join(sorted(shipped))}, or give the file of one"
        )
    return str(shipped[text])


def find_policy(text: str, robot: Embodiment | None = None) -> str:
    """Returns ``expert`` or the absolute folder of a checkpoint, given by name or by path.

    The name of a method stands for its shipped model for ``robot``, where the method says which.

    Raises:
        UserError: neither a shipped model nor a folder with a config.yaml; names the valid models.
    """
    if text == EXPERT:
        return EXPERT
    shipped = models()
    method = methods().get(text)
    if method is not None and method.shipped_for is not None and robot is not None:
        name = method.shipped_for(robot)
        if name not in shipped:
            raise UserError(f"policy:={text}: expected a shipped model {name}, saw none; train one")
        text = name
    if text in shipped:
        return str(shipped[text])
    folder = Path(text).expanduser().absolute()
    if text and (folder / "config.yaml").is_file():
        return str(folder)
    names = [EXPERT, *shipped]
    raise UserError(
        f"policy:={text}: no such model{suggestion(text, names)}; there are {', '.join(names)}, "
        "or give a folder that holds config.yaml and weights.safetensors"
    )


def shows_plan(policy: str) -> bool:
    """Whether it is a policy with a plan over regions, of which pictures can be made."""
    return find_model(policy).method.shows_plan


def policy_options(policy: str, text: str) -> str:
    """The options of a policy, as the node takes them: checked, as YAML.

    Raises:
        UserError: no mapping, or an option that the policy's method has not.
    """
    given = parse_options(text, "policy_options")
    read_options(find_model(policy).method.options, given, "policy_options")
    return text
