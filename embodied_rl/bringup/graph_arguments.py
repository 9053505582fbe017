"""The arguments of every graph, as both ways of launching show them.

Only the standard library is imported here, as in :mod:`embodied_rl.bringup.spec`.
"""

from __future__ import annotations

from dataclasses import dataclass

from embodied_rl.bringup.arguments import Argument, suggestion
from embodied_rl.bringup.worlds import CAMERAS, DEFAULT_POLICY, TASKS, WORLD_EMBODIMENT
from embodied_rl.core.errors import UserError


@dataclass(frozen=True)
class GraphKind:
    """A graph before its arguments are known."""

    name: str
    summary: str
    example: str
    arguments: tuple[Argument, ...]


def kind_of(name: str) -> GraphKind:
    """Returns the graph kind, or raises UserError with the valid names."""
    if name not in GRAPHS:
        raise UserError(
            f"unknown graph '{name}'{suggestion(name, GRAPHS)}; there are {', '.join(GRAPHS)}"
        )
    return GRAPHS[name]


MONITOR_ARGUMENTS = (
    Argument(
        "monitor",
        "",
        "specification in temporal logic to watch: a file, or a task; empty: the task of spec, if "
        "any",
    ),
    Argument(
        "on_violation",
        "event",
        "what the monitor does: say it (event), or an emergency stop too",
        choices=("event", "stop"),
    ),
    Argument(
        "calibration", "", "file of embodied_rl stl calibrate, for the monitor's bounds", "path"
    ),
)
_SHIPPED_RULE = "the name of a method stands for its shipped model of the robot, where there is one"
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
_POLICY_OPTIONS = Argument(
    "policy_options",
    "",
    "options of the policy as YAML, such as '{device: cuda}'; embodied_rl eval MODEL --help lists "
    "them",
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
_NETWORK = Argument(
    "network", "false", "let other machines hear and command the simulated robot", "bool"
)
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
    _POLICY_OPTIONS,
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
    _NETWORK,
    Argument("embodiment", "", "embodiment file to use instead of the world's own", "path"),
    Argument(
        "command_timeout_s", "10", "lockstep: wait for a command before holding", "float", minimum=0
    ),
)
ROBOT_ARGUMENTS = (
    _EMBODIMENT,
    Argument("policy", None, f"a model of models/, or a checkpoint folder; {_SHIPPED_RULE}"),
    _POLICY_OPTIONS,
    Argument("task", "", "name of the task, told to the policy"),
    _SPEC,
    *MONITOR_ARGUMENTS,
    _INSTRUCTION,
    Argument(
        "dry_run",
        "false",
        "decide, limit and report everything, but send the robot no command",
        "bool",
    ),
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
STAND_IN_ARGUMENTS = (
    _EMBODIMENT,
    Argument("start", "", "positions of all joints at the start, a YAML list; empty: zero"),
    Argument("faults", "", "what is the matter with it, YAML such as '{pendant_stop: true}'"),
    Argument("split_joint_states", "false", "one message for each stream of a topic", "bool"),
    _NAMESPACE,
    _NETWORK,
)
GRAPHS = {
    kind.name: kind
    for kind in (
        GraphKind(
            "sim",
            "the simulator, a policy and its episodes",
            "embodied_rl launch sim task:=replace_object policy:=ptp_replace_object episodes:=3",
            SIM_ARGUMENTS,
        ),
        GraphKind(
            "robot",
            "a policy and the command gate on a robot",
            "embodied_rl launch robot embodiment:=my_robot.yaml policy:=ptp_replace_object",
            ROBOT_ARGUMENTS,
        ),
        GraphKind(
            "record",
            "the recorder alone, driven by its start and stop services",
            "embodied_rl launch record embodiment:=my_robot.yaml instruction:='put it back'",
            RECORD_ARGUMENTS,
        ),
        GraphKind(
            "stand_in",
            "a stand-in for the robot of an embodiment file, as particular as real controllers",
            "embodied_rl launch stand_in embodiment:=my_robot.yaml",
            STAND_IN_ARGUMENTS,
        ),
    )
}
