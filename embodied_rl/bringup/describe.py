"""Builds a graph for another interpreter: ``python -m embodied_rl.bringup.describe sim``.

Reads ``{argument: text}`` as JSON from its input and prints one line of JSON: ``{"graph": ...}``,
``{"error": "one line"}``, or ``{"missing": "what this interpreter lacks"}``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from embodied_rl.bringup import graph_arguments
from embodied_rl.bringup.arguments import parse
from embodied_rl.bringup.spec import Graph, to_plain
from embodied_rl.bringup.worlds import EXPERT
from embodied_rl.core.errors import UserError

# What building a graph imports, and what its nodes import beyond that.
_ALWAYS = ("numpy", "yaml", "safetensors")
_OF_NODE = {
    "sim_node": ("mujoco", "ogbench"),
    "episode_node": ("rich", "rosbags"),
    "recorder_node": ("rosbags", "mcap"),
}


def describe(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The answer for graph `name` and its arguments as text."""
    try:
        parse(name, graph_arguments.kind_of(name).arguments, given)
    except UserError as error:
        return {"error": str(error)}
    missing = _absent(_ALWAYS)
    if missing:
        return {"missing": missing}
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        return {"missing": f"ROS 2 (import rclpy: {str(error).splitlines()[0]})"}
    from embodied_rl.bringup.check import check_machine
    from embodied_rl.bringup.graph import build

    try:
        graph = build(name, given)
        missing = _absent(sorted(_needed(graph)))
        if missing:
            return {"missing": missing}
        check_machine(graph)
    except UserError as error:
        return {"error": str(error)}
    return {"graph": to_plain(graph)}


def _absent(modules: Iterable[str]) -> str:
    return ", ".join(name for name in modules if importlib.util.find_spec(name) is None)


def _needed(graph: Graph) -> set[str]:
    """Top-level modules that the nodes of `graph` import."""
    found = {module for node in graph.nodes for module in _OF_NODE.get(node.module, ())}
    if any(node.parameters.get("policy", EXPERT) != EXPERT for node in graph.nodes):
        found.add("torch")
    return found


def main() -> int:
    answer = describe(sys.argv[1], json.load(sys.stdin))
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
