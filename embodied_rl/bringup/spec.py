"""What a graph consists of: nodes, roles, environment; and its way from one interpreter to another.

Only the standard library is imported here, because files of ``launch/`` are read by the interpreter
of `ros2`, which need not be the one that has our dependencies.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embodied_rl.bringup.arguments import Value


class Role(enum.Enum):
    """What the end of a process means for the graph."""

    REQUIRED = "required"  # must live as long as the graph; its end is a failure
    GATE = "gate"  # must end with 0 before the next stage starts
    CONDUCTOR = "conductor"  # its end with 0 ends the graph in order


@dataclass(frozen=True)
class NodeSpec:
    """One process: ``python -m embodied_rl.nodes.<module>`` under a node name."""

    name: str
    module: str
    stage: int
    parameters: dict[str, Value] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    role: Role = Role.REQUIRED
    foreground: bool = False  # owns the terminal: its output passes through untouched
    stop_s: float = 8.0  # time it gets to end after SIGINT
    # Told to end before all others, and at once: a policy, so that its silence is noticed, and the
    # gate, which then leads the robot to a stop while the rest still runs.
    stops_first: bool = False


@dataclass(frozen=True)
class Graph:
    """Nodes in the order they start; they stop in the reverse order."""

    name: str
    nodes: tuple[NodeSpec, ...]
    namespace: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    log_file: Path | None = None
    endless: bool = True  # Ctrl-C is the usual end, not an interruption
    # After the death of a required node the others run on for this long, so that the command gate
    # sees its commands go stale and brings the robot to a hold before it is stopped itself.
    settle_s: float = 0.0


def to_plain(graph: Graph) -> dict[str, Any]:
    """Returns the graph as what JSON holds; :func:`from_plain` is the way back."""
    plain = asdict(graph)
    plain["log_file"] = None if graph.log_file is None else str(graph.log_file)
    for node, spec in zip(plain["nodes"], graph.nodes, strict=True):
        node["role"] = spec.role.value
    return plain


def from_plain(plain: Mapping[str, Any]) -> Graph:
    """Returns the graph that :func:`to_plain` was given."""
    nodes = tuple(
        NodeSpec(
            **{
                **node,
                "role": Role(node["role"]),
                "remappings": tuple((source, target) for source, target in node["remappings"]),
            }
        )
        for node in plain["nodes"]
    )
    log_file = plain["log_file"]
    return Graph(**{**plain, "nodes": nodes, "log_file": Path(log_file) if log_file else None})
