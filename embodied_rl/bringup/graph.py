"""The one description of the ROS graphs: arguments, nodes, parameters, order.

``embodied_rl launch`` (:mod:`embodied_rl.bringup.runner`) and ``ros2 launch``
(:mod:`embodied_rl.bringup.ros_launch`) both run what :func:`build` returns, so they cannot differ.

The order of a start: all nodes of a stage start together; the next stage waits until every *gate*
of the stage has ended with exit code 0. In the simulator's graph::

    stage 0   sim_node   wait_for_clock (gate)        nobody meets a clock that is not there yet
    stage 1   command_gate_node   policy_node   recorder_node   activate_policy (gate)
    stage 2   episode_node (conductor)                its end is the end of the graph
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from embodied_rl.bringup.arguments import Value, parse
from embodied_rl.bringup.environment import defaults, models, share_file
from embodied_rl.bringup.graph_arguments import GRAPHS, GraphKind, kind_of
from embodied_rl.bringup.monitoring import monitor_parameters
from embodied_rl.bringup.names import (
    cameras_of,
    find_policy,
    find_spec,
    policy_options,
    shows_plan,
    sim_task,
)
from embodied_rl.bringup.spec import Graph, NodeSpec, Role
from embodied_rl.bringup.worlds import DEFAULT_POLICY, DEFAULT_SPEC, EXPERT, WORLD_EMBODIMENT
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError

__all__ = ["GRAPHS", "Graph", "GraphKind", "NodeSpec", "Role", "build", "kind_of"]


def build(name: str, given: Mapping[str, str]) -> Graph:
    """Returns the graph `name` for ``argument -> text``.

    Raises:
        UserError: unknown graph, argument, choice, model or file; names the valid ones.
    """
    kind = kind_of(name)
    return _BUILDERS[name](parse(name, kind.arguments, given))


# --- graphs --------------------------------------------------------------------------------------


def _sim(values: dict[str, Value]) -> Graph:
    out, world = _out_folder(values), str(values["world"])
    embodiment = str(values["embodiment"] or share_file(WORLD_EMBODIMENT[world]))
    robot = _load_embodiment(embodiment)
    values = values | {
        "task": sim_task(world, str(values["task"]), str(values["spec"])),
        "cameras": cameras_of(world, str(values["cameras"])),
        "policy": values["policy"] or DEFAULT_POLICY[world],
    }
    mode, record, episodes = values["mode"], values["record"], values["episodes"]
    timed: dict[str, Value] = {"use_sim_time": True}
    simulator = {k: values[k] for k in ("world", "task", "mode", "seed", "cameras", "visuals")}
    simulator |= {"embodiment": embodiment, "command_timeout_s": values["command_timeout_s"]}
    common = {"embodiment": embodiment, "mode": str(mode)} | timed
    policy = _policy(values, out, robot)
    pictures = bool(values["pictures"]) and shows_plan(str(policy["policy"]))
    remap = _clock_remap(values)
    task_of_logic = str(values["task"]) if world in DEFAULT_SPEC else ""
    watched = monitor_parameters(values, task_of_logic, robot, "episode")
    monitor = _monitor(watched, timed, remap)
    nodes = [
        NodeSpec("sim_node", "sim_node", 0, simulator, remap),
        _clock_gate(remap, timeout_s=0.0),
        *_policy_and_gate(policy | common, _watched_gate(common, monitor), remap),
    ]
    if record:
        nodes.append(_recorder(embodiment, out, "", 1, timed, remap))
    if pictures:
        nodes.append(_plan_view(embodiment, out, 1, timed, remap))
    conductor: dict[str, Value] = {
        "episodes": episodes,
        "mode": mode,
        "record": record,
        "pictures": pictures,
        "monitor": bool(monitor),
        "out": str(out),
    }
    nodes += [
        *monitor,
        _activation(1, timed, remap, timeout_s=0.0),
        NodeSpec(
            "episode_node",
            "episode_node",
            2,
            conductor | timed,
            remap,
            role=Role.CONDUCTOR,
            foreground=True,
        ),
    ]
    return Graph(
        "sim",
        tuple(nodes),
        str(values["namespace"]),
        defaults(local=not values["network"]),
        out / "launch.log",
        endless=episodes == 0,
    )


def _robot(values: dict[str, Value]) -> Graph:
    out, embodiment = _out_folder(values), str(values["embodiment"])
    robot = _load_embodiment(embodiment)
    if values["spec"]:
        if values["task"]:
            raise UserError("task, spec: expected one of them, saw both: a spec is the task")
        values = values | {"task": find_spec(str(values["spec"]))}
    if values["instruction"] and not values["record"]:
        raise UserError(
            "instruction:=... is written by the recorder: add record:=true, "
            "or publish the text on the topic 'instruction'"
        )
    simulated = bool(values["use_sim_time"])
    timed: dict[str, Value] = {"use_sim_time": simulated}
    common = {"embodiment": embodiment, "mode": "realtime"} | timed
    policy = _policy(values, out, robot)
    if policy["policy"] == EXPERT:
        known = ", ".join(models()) or "a folder made by embodied_rl train"
        raise UserError(
            f"policy:=expert exists in the simulator only; a robot needs a checkpoint: {known}"
        )
    remap = _clock_remap(values)
    # Nobody announces the episodes of a robot, but a policy with a plan says when it begins.
    anchor = "episode" if values["spec"] and not values["monitor"] else "start"
    task_of_logic = str(values["task"]) if values["spec"] else ""
    watched = monitor_parameters(values, task_of_logic, robot, anchor)
    monitor = _monitor(watched, timed, remap)
    # The gate starts first: whatever happens, somebody holds the robot.
    nodes = [_clock_gate(remap)] if simulated else []
    gate = _watched_gate(common, monitor) | _dry_run(values)
    nodes += _policy_and_gate(policy | common, gate, remap)
    if values["record"]:
        nodes.append(_recorder(embodiment, out, str(values["instruction"]), 1, timed, remap))
    if values["pictures"] and shows_plan(str(policy["policy"])):
        nodes.append(_plan_view(embodiment, out, 1, timed, remap))
    nodes += monitor
    nodes.append(_activation(1, timed, remap))
    return Graph(
        "robot",
        tuple(nodes),
        str(values["namespace"]),
        defaults(local=False),
        out / "launch.log" if values["record"] else None,
        settle_s=1.0,
    )


def _dry_run(values: dict[str, Value]) -> dict[str, Value]:
    """What the gate is told of a run without commands."""
    if not values["dry_run"]:
        return {}
    if values["record"]:
        raise UserError(
            "dry_run:=true record:=true: the bag would hold commands that no robot carried out; "
            "expected one of them"
        )
    return {"dry_run": True}


def _record(values: dict[str, Value]) -> Graph:
    out, embodiment = _out_folder(values), str(values["embodiment"])
    _load_embodiment(embodiment)
    timed: dict[str, Value] = {"use_sim_time": bool(values["use_sim_time"])}
    remap = _clock_remap(values)
    gates = [_clock_gate(remap)] if values["use_sim_time"] else []
    recorder = _recorder(embodiment, out, str(values["instruction"]), 1, timed, remap)
    return Graph(
        "record",
        (*gates, recorder),
        str(values["namespace"]),
        defaults(local=False),
        out / "launch.log",
    )


def _stand_in(values: dict[str, Value]) -> Graph:
    _load_embodiment(str(values["embodiment"]))
    keys = ("embodiment", "start", "faults", "split_joint_states")
    node = NodeSpec("stand_in_node", "stand_in_node", 0, {key: values[key] for key in keys})
    environment = defaults(local=not values["network"])
    return Graph("stand_in", (node,), str(values["namespace"]), environment)


def _policy(values: dict[str, Value], out: Path, robot: Embodiment) -> dict[str, Value]:
    """Parameters of the policy node that say which policy, and how it is run."""
    name = find_policy(str(values["policy"]), robot)
    policy: dict[str, Value] = {"policy": name, "task": values["task"]}
    policy["policy_options"] = policy_options(name, str(values["policy_options"]))
    # Robots side by side must not write over each other's memory.
    policy["memory_path"] = values["memory"] or str(out / "policy_memory.safetensors")
    return policy


def _policy_and_gate(
    policy: dict[str, Value], gate_parameters: dict[str, Value], remap: tuple[tuple[str, str], ...]
) -> list[NodeSpec]:
    """The gate starts first and is told to end right after the policy; it ends by itself when the
    robot stands, for which a base at full speed needs seconds."""
    return [
        NodeSpec(
            "command_gate_node",
            "command_gate_node",
            1,
            gate_parameters,
            remap,
            stops_first=True,
        ),
        NodeSpec("policy_node", "policy_node", 1, policy, remap, stops_first=True),
    ]


def _clock_remap(values: dict[str, Value]) -> tuple[tuple[str, str], ...]:
    """Where a graph finds the simulated time, the same for the simulator's and the robot's side.

    `/clock` is absolute; two simulators side by side need one each, below their namespaces.
    """
    topic = str(values["clock"]) or ("clock" if values["namespace"] else "/clock")
    return (("/clock", topic),) if topic != "/clock" else ()


def _clock_gate(remap: tuple[tuple[str, str], ...], timeout_s: float = 120.0) -> NodeSpec:
    parameters: dict[str, Value] = {"use_sim_time": True, "target": "", "timeout_s": timeout_s}
    return NodeSpec("wait_for_clock", "lifecycle_node", 0, parameters, remap, role=Role.GATE)


def _activation(
    stage: int,
    timed: dict[str, Value],
    remap: tuple[tuple[str, str], ...],
    timeout_s: float = 120.0,
) -> NodeSpec:
    parameters: dict[str, Value] = {"target": "policy_node", "timeout_s": timeout_s} | timed
    return NodeSpec("activate_policy", "lifecycle_node", stage, parameters, remap, role=Role.GATE)


def _recorder(
    embodiment: str,
    out: Path,
    instruction: str,
    stage: int,
    timed: dict[str, Value],
    remap: tuple[tuple[str, str], ...],
) -> NodeSpec:
    parameters: dict[str, Value] = {
        "embodiment": embodiment,
        "out": str(out),
        "instruction": instruction,
    } | timed
    # closing a bag of images on a slow disk takes longer than ending a node
    return NodeSpec("recorder_node", "recorder_node", stage, parameters, remap, stop_s=30.0)


def _watched_gate(common: dict[str, Value], monitor: list[NodeSpec]) -> dict[str, Value]:
    """Parameters of the command gate; a monitor that may stop the robot must be alive."""
    stops = any(node.parameters["on_violation"] == "stop" for node in monitor)
    return common | ({"required_alive": "stl_monitor_node/alive"} if stops else {})


def _monitor(
    parameters: dict[str, Value], timed: dict[str, Value], remap: tuple[tuple[str, str], ...]
) -> list[NodeSpec]:
    if not parameters:
        return []
    return [NodeSpec("stl_monitor_node", "stl_monitor_node", 1, parameters | timed, remap)]


def _out_folder(values: dict[str, Value]) -> Path:
    return Path(str(values["out"]).replace("<timestamp>", datetime.now().strftime("%Y%m%d-%H%M%S")))


def _plan_view(
    embodiment: str,
    out: Path,
    stage: int,
    timed: dict[str, Value],
    remap: tuple[tuple[str, str], ...],
) -> NodeSpec:
    parameters: dict[str, Value] = {"embodiment": embodiment, "out": str(out)} | timed
    return NodeSpec("plan_view_node", "plan_view_node", stage, parameters, remap)


def _load_embodiment(path: str) -> Embodiment:
    """A file with a mistake is refused here, not by the first of several nodes."""
    if not Path(path).is_file():
        raise UserError(f"embodiment:={path}: no such file")
    return Embodiment.load(path)


_BUILDERS: dict[str, Callable[[dict[str, Value]], Graph]] = {
    "sim": _sim,
    "robot": _robot,
    "record": _record,
    "stand_in": _stand_in,
}
