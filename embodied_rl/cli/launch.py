"""``embodied_rl launch GRAPH [name:=value ...]``: a ROS graph without `ros2`."""

from __future__ import annotations

import shlex
import sys

from embodied_rl.bringup import arguments, graph
from embodied_rl.bringup.check import check_machine
from embodied_rl.bringup.claims import claim
from embodied_rl.bringup.environment import require_ros
from embodied_rl.bringup.shared_memory import remove_stale
from embodied_rl.cli import UsageError
from embodied_rl.core.errors import UserError


def main(argv: list[str]) -> int:
    """Runs one graph to its end; returns its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    name, words = argv[0], argv[1:]
    try:
        kind = graph.kind_of(name)
        if {"-h", "--help", "--show-args", "-s"} & set(words):
            print(describe(kind))
            return 0
        dry = "--dry-run" in words
        given = arguments.split(w for w in words if w != "--dry-run")
        built = graph.build(name, given)
    except UserError as error:
        raise UsageError(str(error)) from None
    from embodied_rl.bringup.runner import Runner, command_of

    if dry:
        for key, value in built.environment.items():
            print(f"{key}={shlex.quote(value)}")
        for node in built.nodes:
            print(f"# stage {node.stage}, {node.role.value}")
            print(shlex.join(command_of(node, built.namespace)))
        return 0
    require_ros()
    check_machine(built)
    release = claim(built)
    freed = remove_stale()
    if freed:
        print(freed, file=sys.stderr)
    try:
        return Runner(built).run()
    finally:
        release()


def _overview() -> str:
    lines = ["usage: embodied_rl launch <graph> [name:=value ...] [--dry-run]", "", "graphs:"]
    lines += [f"  {kind.name:<9} {kind.summary}" for kind in graph.GRAPHS.values()]
    lines += ["", "examples:"] + [f"  {kind.example}" for kind in graph.GRAPHS.values()]
    return "\n".join([*lines, "", "embodied_rl launch <graph> --help lists its arguments."])


def describe(kind: graph.GraphKind) -> str:
    """Returns the arguments of one graph as a table, with its example."""
    lines = [f"embodied_rl launch {kind.name}: {kind.summary}", "", "arguments:"]
    for argument in kind.arguments:
        default = "(required)" if argument.default is None else argument.default or "''"
        choices = f" [{', '.join(argument.choices)}]" if argument.choices else ""
        lines.append(f"  {argument.name + ':=' + default:<34}{argument.description}{choices}")
    return "\n".join([*lines, "", f"example: {kind.example}"])
