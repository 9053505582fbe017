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

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from embodied_rl.bringup.arguments import Argument, Value, parse, suggestion
from embodied_rl.bringup.environment import defaults, models, share_file
from embodied_rl.bringup.monitoring import MONITOR_ARGUMENTS, monitor_parameters
from embodied_rl.bringup.names import (
    CAMERAS,
    DEFAULT_POLICY,
    DEFAULT_SPEC,
    EXPERT,
    TASKS,
    WORLD_EMBODIMENT,
    cameras_of,
    find_policy,
    find_spec,
    is_tgpo,
    sim_task,
)
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError


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


@dataclass(frozen=True)
class GraphKind:
    """A graph before its arguments are known."""

    name: str
    summary: str
    example: str
    arguments: tuple[Argument, ...]
    build: Callable[[dict[str, Value]], Graph]


def build(name: str, given: Mapping[str, str]) -> Graph:
    """Returns the graph `name` for ``argument -> text``.

    Raises:
        UserError: unknown graph, argument, choice, model or file; names the valid ones.
    """
    kind = kind_of(name)
    return kind.build(parse(name, kind.arguments, given))


def kind_of(name: str) -> GraphKind:
    """Returns the graph kind, or raises UserError with the valid names."""
    if name not in GRAPHS:
        raise UserError(
            f"unknown graph '{name}'{suggestion(name, GRAPHS)}; there are {', '.join(GRAPHS)}"
        )
    return GRAPHS[name]


# --- arguments -----------------------------------------------------------------------------------

_SHIPPED_RULE = (
    "tgpo and relic stand for the shipped model of the robot: tgpo_<dynamics>, relic_<world>"
)
_POLICY = Argument(
    "policy",
    "",
    f"expert, a model of models/, or a checkpoint folder; {_SHIPPED_RULE}; empty: "
    + ", ".join(f"{policy} in {world}" for world, policy in DEFAULT_POLICY.items()),
)
_SPEC = Argument(
    "spec",
    "",
    "task in temporal logic: a name in sim_worlds/stl_tasks, or a task file",
)
_SAMPLES = Argument(
    "samples",
    "",
    "candidates a plan is chosen from; empty takes the model's own number",
    "int",
    minimum=1,
    optional=True,
)
_CONTEXT_STEPS = Argument(
    "context_steps",
    "",
    "of a policy that learns in context: most steps that it keeps, the oldest episodes go first; "
    "empty takes the policy's own number",
    "int",
    minimum=1,
    optional=True,
)
_DEVICE = Argument(
    "device", "auto", "where the policy is computed: auto (a GPU if there is one), cpu, cuda:N"
)
_MEMORY = Argument(
    "memory", "", "file of policy_node/save_memory and load_memory; empty: in out", "path"
)
_NAMESPACE = Argument(
    "namespace", "", "namespace of every node, for robots side by side", "namespace"
)
_CLOCK = Argument(
    "clock",
    "",
    "topic of the simulated time; empty: /clock, and in a namespace one of its own",
    "topic",
    optional=True,
)
_SIM_TIME = Argument(
    "use_sim_time", "false", "take the time from a simulator's clock (see clock)", "bool"
)
_PICTURES = Argument(
    "pictures", "true", "of a policy with a plan: a picture of each episode in out", "bool"
)
_RECORD = Argument("record", "false", "write one bag an episode", "bool")
_OUT = Argument("out", "runs/<timestamp>", "folder for bags, logs and results", "path")
_INSTRUCTION = Argument("instruction", "", "the task in words; stored in the bags")
_EMBODIMENT = Argument("embodiment", None, "embodiment file (YAML) of the robot", "path")

SIM_ARGUMENTS = (
    Argument("world", "tabletop", "world", choices=tuple(WORLD_EMBODIMENT)),
    Argument(
        "task",
        "",
        "task of world "
        + ", ".join(f"{world} (empty: {tasks[0]})" for world, tasks in TASKS.items()),
        choices=tuple(name for tasks in TASKS.values() for name in tasks),
        optional=True,
    ),
    _SPEC,
    *MONITOR_ARGUMENTS,
    _POLICY,
    _SAMPLES,
    _CONTEXT_STEPS,
    _DEVICE,
    Argument("mode", "lockstep", "which clock paces the run", choices=("lockstep", "realtime")),
    Argument(
        "episodes",
        "0",
        "episodes to run, of the apartment 8 a trial; 0 means until Ctrl-C",
        "int",
        minimum=0,
    ),
    Argument("seed", "0", "seed of the first episode", "int", minimum=0),
    Argument(
        "cameras",
        "",
        "cameras to render, or none; empty: all of the world",
        choices=tuple(name for names in CAMERAS.values() for name in names),
        several=True,
        optional=True,
    ),
    Argument("visuals", "primitives", "what the cameras see", choices=("primitives", "mesh")),
    _PICTURES,
    _RECORD,
    _OUT,
    _MEMORY,
    _NAMESPACE,
    _CLOCK,
    Argument("embodiment", "", "embodiment file to use instead of the world's own", "path"),
    Argument(
        "command_timeout_s", "10", "lockstep: wait for a command before holding", "float", minimum=0
    ),
)
ROBOT_ARGUMENTS = (
    _EMBODIMENT,
    Argument("policy", None, f"a model of models/, or a checkpoint folder; {_SHIPPED_RULE}"),
    _SAMPLES,
    _CONTEXT_STEPS,
    _DEVICE,
    Argument("task", "", "name of the task, told to the policy"),
    _SPEC,
    *MONITOR_ARGUMENTS,
    _INSTRUCTION,
    _PICTURES,
    _RECORD,
    _OUT,
    _MEMORY,
    _NAMESPACE,
    _SIM_TIME,
    _CLOCK,
)
RECORD_ARGUMENTS = (
    _EMBODIMENT,
    _INSTRUCTION,
    _OUT,
    _NAMESPACE,
    _SIM_TIME,
    _CLOCK,
)


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
    pictures = is_tgpo(policy) and bool(values["pictures"])
    remap = _clock_remap(values)
    nodes = [
        NodeSpec("sim_node", "sim_node", 0, simulator, remap),
        _clock_gate(remap),
        NodeSpec("command_gate_node", "command_gate_node", 1, common, remap),
        NodeSpec("policy_node", "policy_node", 1, policy | common, remap),
    ]
    if record:
        nodes.append(_recorder(embodiment, out, "", 1, timed, remap))
    if pictures:
        nodes.append(_plan_view(embodiment, out, 1, timed, remap))
    task_of_logic = str(values["task"]) if world in DEFAULT_SPEC else ""
    watched = monitor_parameters(values, task_of_logic, robot, "episode")
    monitor = _monitor(watched, timed, remap)
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
        _activation(1, timed, remap),
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
        defaults(local=True),
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
    # The gate starts first and stops last: whatever happens, somebody holds the robot.
    nodes = [_clock_gate(remap)] if simulated else []
    nodes += [
        NodeSpec("command_gate_node", "command_gate_node", 1, common, remap),
        NodeSpec("policy_node", "policy_node", 1, policy | common, remap),
    ]
    if values["record"]:
        nodes.append(_recorder(embodiment, out, str(values["instruction"]), 1, timed, remap))
    if is_tgpo(policy) and values["pictures"]:
        nodes.append(_plan_view(embodiment, out, 1, timed, remap))
    # Nobody announces the episodes of a robot, but a policy with a plan says when it begins.
    anchor = "episode" if values["spec"] and not values["monitor"] else "start"
    task_of_logic = str(values["task"]) if values["spec"] else ""
    watched = monitor_parameters(values, task_of_logic, robot, anchor)
    nodes += _monitor(watched, timed, remap)
    nodes.append(_activation(1, timed, remap))
    return Graph(
        "robot",
        tuple(nodes),
        str(values["namespace"]),
        defaults(local=False),
        out / "launch.log" if values["record"] else None,
        settle_s=1.0,
    )


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


def _policy(values: dict[str, Value], out: Path, robot: Embodiment) -> dict[str, Value]:
    """Parameters of the policy node that say which policy, and how it is run."""
    policy = {"policy": find_policy(str(values["policy"]), robot), "task": values["task"]}
    policy["device"] = values["device"]
    # Robots side by side must not write over each other's memory.
    policy["memory_path"] = values["memory"] or str(out / "policy_memory.safetensors")
    return policy | {key: values[key] for key in ("samples", "context_steps") if values[key] != ""}


def _clock_remap(values: dict[str, Value]) -> tuple[tuple[str, str], ...]:
    """Where a graph finds the simulated time, the same for the simulator's and the robot's side.

    `/clock` is absolute; two simulators side by side need one each, below their namespaces.
    """
    topic = str(values["clock"]) or ("clock" if values["namespace"] else "/clock")
    return (("/clock", topic),) if topic != "/clock" else ()


def _clock_gate(remap: tuple[tuple[str, str], ...]) -> NodeSpec:
    parameters: dict[str, Value] = {"use_sim_time": True, "target": "", "timeout_s": 120.0}
    return NodeSpec("wait_for_clock", "lifecycle_node", 0, parameters, remap, role=Role.GATE)


def _activation(
    stage: int, timed: dict[str, Value], remap: tuple[tuple[str, str], ...]
) -> NodeSpec:
    parameters: dict[str, Value] = {"target": "policy_node", "timeout_s": 120.0} | timed
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


GRAPHS = {
    kind.name: kind
    for kind in (
        GraphKind(
            "sim",
            "the simulator, a policy and its episodes",
            "embodied_rl launch sim task:=replace_object policy:=ptp_replace_object episodes:=3",
            SIM_ARGUMENTS,
            _sim,
        ),
        GraphKind(
            "robot",
            "a policy and the command gate on a robot",
            "embodied_rl launch robot embodiment:=my_robot.yaml policy:=ptp_replace_object",
            ROBOT_ARGUMENTS,
            _robot,
        ),
        GraphKind(
            "record",
            "the recorder alone, driven by its start and stop services",
            "embodied_rl launch record embodiment:=my_robot.yaml instruction:='put it back'",
            RECORD_ARGUMENTS,
            _record,
        ),
    )
}
