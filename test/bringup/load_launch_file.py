"""Does with a launch file what `ros2 launch FILE name:=value...` does up to the first process, and
prints what came of it as JSON. Run as a process of its own, because it forbids most imports::

    python load_launch_file.py FILE [name:=value ...] [--included]
"""

from __future__ import annotations

import importlib.abc
import json
import runpy
import sys

OURS = {"embodied_rl", "launch", "launch_ros", "yaml", "_yaml"}


class Refuse(importlib.abc.MetaPathFinder):
    """A system's interpreter that has ROS and nothing else."""

    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in OURS and root not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named '{root}'", name=root)


def visit(entity, context, found) -> None:
    found.append(entity)
    for child in getattr(entity, "entities", ()):
        visit(child, context, found)
    if hasattr(entity, "execute"):
        for child in entity.execute(context) or ():
            visit(child, context, found)


def main() -> None:
    file, *words = sys.argv[1:]
    included = "--included" in words
    words = [word for word in words if word != "--included"]
    sys.argv = ["ros2", "launch", "other.launch.py" if included else file, *words]
    sys.meta_path.insert(0, Refuse())
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, LogInfo
    from launch_ros.actions import Node

    context = LaunchContext(argv=words)
    context.launch_configurations.update(word.split(":=", 1) for word in words)
    found: list = []
    try:
        visit(runpy.run_path(file)["generate_launch_description"](), context, found)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return
    declared = {e.name: e.description for e in found if isinstance(e, DeclareLaunchArgument)}
    nodes = {
        e.name: {"command": e.command, "parameters": e.parameters, "env": e.env}
        for e in found
        if isinstance(e, Node)
    }
    said = [e.msg for e in found if isinstance(e, LogInfo)]
    print(json.dumps({"declared": declared, "nodes": nodes, "said": said}))


if __name__ == "__main__":
    main()
