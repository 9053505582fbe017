"""Runs a fake graph in a process of its own, so that tests can interrupt or kill the runner.

Usage: run_fake_graph.py JOURNAL NAME:BEHAVIOUR:MOMENT:STAGE:ROLE[:first] ...
The exit code is the runner's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from embodied_rl.bringup.graph import Graph, NodeSpec, Role
from embodied_rl.bringup.runner import Runner

FAKE = Path(__file__).with_name("fake_node.py")


def main() -> int:
    journal, *words = sys.argv[1:]
    endless = "--finite" not in words
    specs, behaviours = [], {}
    for word in words:
        if word.startswith("--"):
            continue
        name, behaviour, moment, stage, role, *first = word.split(":")
        behaviours[name] = (behaviour, moment)
        foreground = role == "conductor"
        specs.append(
            NodeSpec(
                name,
                name,
                int(stage),
                role=Role(role),
                foreground=foreground,
                stop_s=1.0,
                stops_first=bool(first),
            )
        )
    settle_s = 2.0 if "--settle" in words else 0.0
    graph = Graph("fake", tuple(specs), endless=endless, settle_s=settle_s)

    def command(node: NodeSpec, namespace: str) -> list[str]:
        return [sys.executable, "-S", str(FAKE), node.name, journal, *behaviours[node.name]]

    return Runner(graph, command=command, terminate_s=0.5).run()


if __name__ == "__main__":
    sys.exit(main())
