"""The graphs of :mod:`embodied_rl.bringup.graph` as actions of `ros2 launch`.

``launch`` and ``launch_ros`` come with a system ROS 2 only, so they are imported here and nowhere
else, and this module is imported by the files of ``launch/`` alone. Beyond them and the standard
library nothing is needed here: the graph is built, and its nodes run, by the interpreter that
:mod:`embodied_rl.bringup.interpreter` finds.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited, SignalProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from embodied_rl.bringup.arguments import Argument, suggestion
from embodied_rl.bringup.claims import claim
from embodied_rl.bringup.environment import PACKAGE
from embodied_rl.bringup.graph_arguments import kind_of
from embodied_rl.bringup.interpreter import Interpreter, graph_of
from embodied_rl.bringup.process import describe_exit
from embodied_rl.bringup.shared_memory import remove_stale
from embodied_rl.bringup.spec import Graph, NodeSpec, Role
from embodied_rl.core.errors import UserError
from embodied_rl.core.parent import PARENT_VARIABLE

# Launch configurations that `launch` and `launch_ros` read themselves, none of our arguments.
_OF_LAUNCH = frozenset(
    {
        *("launch-prefix", "launch-prefix-filter", "sigterm_timeout", "sigkill_timeout"),
        *("emulate_tty", "ros_namespace", "ros_params", "ros_remaps", "global_params"),
    }
)


class GraphFailed(RuntimeError):
    """Raised inside `launch`: it prints the line, shuts the rest down and exits with 1."""


def description(name: str) -> LaunchDescription:
    """Returns the launch description of graph `name`, with its arguments declared."""
    arguments = [
        DeclareLaunchArgument(
            argument.name, description=_described(argument), default_value=argument.default
        )
        for argument in kind_of(name).arguments
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=partial(_actions, name))])


def _described(argument: Argument) -> str:
    """`launch` is not told the choices: it takes no default beside them, not even none at all, and
    ours is the better refusal."""
    if not argument.choices:
        return argument.description
    kind = "Some of" if argument.several else "One of"
    return f"{argument.description}. {kind}: {', '.join(argument.choices)}"


def _actions(name: str, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Builds the graph once the arguments have their values."""
    try:
        remarks = misspelt(name, context)
        arguments = kind_of(name).arguments
        given = {a.name: LaunchConfiguration(a.name).perform(context) for a in arguments}
        graph, interpreter = graph_of(name, given)
        claim(graph)
    except UserError as error:
        raise GraphFailed(str(error)) from None
    running = _Running(graph, interpreter)
    freed = remove_stale()
    if freed:
        remarks.append(freed)
    said = f"nodes run in {interpreter.path} ({interpreter.source})"
    stop = RegisterEventHandler(OnShutdown(on_shutdown=running.stop))
    return [*(LogInfo(msg=line) for line in [*remarks, said]), stop, *running.stage(0)]


def misspelt(name: str, context: LaunchContext) -> list[str]:
    """Looks for arguments that nobody reads, which `launch` takes without a word.

    What was typed for a file of ours must be one of its arguments. Where another launch file
    includes ours, the configurations are also those of that file: a name that is none of ours but
    looks like one is only remarked upon.

    Returns:
        One line for each such name.

    Raises:
        UserError: a word of the command line that is no argument of graph `name`.
    """
    known = [argument.name for argument in kind_of(name).arguments]
    if _typed_for_us(name):
        typed = [word.partition(":=")[0] for word in context.argv if ":=" in word]
        for word in typed:
            if word not in known and word not in _OF_LAUNCH:
                raise UserError(
                    f"{name}.launch.py has no argument '{word}'{suggestion(word, known)}; "
                    f"it has {', '.join(known)}"
                )
        return []
    others = [key for key in context.launch_configurations if key not in {*known, *_OF_LAUNCH}]
    return [
        f"{name}.launch.py: '{key}' is no argument of it{near}: not read here"
        for key in others
        if (near := suggestion(key, known, closeness=0.8))
    ]


def _typed_for_us(name: str) -> bool:
    """Whether the command line names our own file, rather than one that includes it."""
    return any(Path(word).name == f"{name}.launch.py" for word in sys.argv[1:])


class _Running:
    """Starts the nodes of one graph stage by stage, and knows what the end of each means."""

    def __init__(self, graph: Graph, interpreter: Interpreter) -> None:
        self._graph = graph
        self._interpreter = interpreter
        self._environment = {
            **interpreter.environment,
            **graph.environment,
            PARENT_VARIABLE: str(os.getpid()),
        }
        self._stages = sorted({node.stage for node in graph.nodes})
        self._started: list[tuple[NodeSpec, Node]] = []

    def stage(self, index: int) -> list[LaunchDescriptionEntity]:
        """Returns the nodes of a stage; its gates hold the way to the next.

        `waiting` counts the gates that still run: the next stage waits for all of them.
        """
        if index == len(self._stages):
            return []
        nodes = [node for node in self._graph.nodes if node.stage == self._stages[index]]
        waiting = {node.name for node in nodes if node.role is Role.GATE}
        actions: list[LaunchDescriptionEntity] = []
        for node in nodes:
            process = self._process(node)
            self._started.append((node, process))
            on_exit = partial(_on_exit, node, waiting, partial(self.stage, index + 1))
            handler = OnProcessExit(target_action=process, on_exit=on_exit)
            actions += [RegisterEventHandler(handler), process]
        # a stage without a gate does not hold up the next one
        return actions if waiting else [*actions, *self.stage(index + 1)]

    def stop(self, event: Shutdown, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """Tells the processes to end, the policy and the gate before all others.

        `launch` leaves that to the terminal when it was interrupted; a service manager that sends
        SIGINT to `ros2 launch` alone would then leave the robot driving until the patience ends.
        """
        if not event.due_to_sigint:  # then `launch` does it
            return []
        newest_first = self._started[::-1]
        order = sorted(newest_first, key=lambda pair: not pair[0].stops_first)
        return [
            EmitEvent(
                event=SignalProcess(
                    signal_number=signal.SIGINT, process_matcher=matches_action(process)
                )
            )
            for _, process in order
            if _runs(process)
        ]

    def _process(self, node: NodeSpec) -> Node:
        parameters = {
            # a text stays a text: launch_ros would read 'no' and '3' as YAML
            key: ParameterValue(value, value_type=str) if isinstance(value, str) else value
            for key, value in node.parameters.items()
        }
        return Node(
            executable=self._interpreter.path,
            arguments=["-m", f"{PACKAGE}.nodes.{node.module}"],
            name=node.name,
            exec_name=node.name,
            namespace=self._graph.namespace,
            parameters=[parameters],
            remappings=list(node.remappings),
            env=self._environment,
            output="screen",
            sigterm_timeout=str(node.stop_s),
            respawn=False,
        )


def _runs(process: Node) -> bool:
    return bool(process.process_details) and process.return_code is None


def _on_exit(
    node: NodeSpec,
    waiting: set[str],
    following: Callable[[], Iterable[LaunchDescriptionEntity]],
    event: ProcessExited,
    context: LaunchContext,
) -> list[LaunchDescriptionEntity]:
    """What the end of one process means: the next stage, the end, or a failure with its name."""
    if context.is_shutdown:
        return []
    if event.returncode == 0 and node.role is Role.GATE:
        waiting.discard(node.name)
        return [] if waiting else list(following())
    if event.returncode == 0 and node.role is Role.CONDUCTOR:
        return [EmitEvent(event=Shutdown(reason=f"{node.name} is done"))]
    role = "required node " if node.role is Role.REQUIRED else ""
    line = f"{role}{node.name} ended with {describe_exit(event.returncode)}"
    return [EmitEvent(event=Shutdown(reason=line)), OpaqueFunction(function=partial(_fail, line))]


def _fail(line: str, context: LaunchContext) -> None:
    raise GraphFailed(line)
