"""The graphs of :mod:`embodied_rl.bringup.graph` as actions of `ros2 launch`.

``launch`` and ``launch_ros`` come with a system ROS 2 only, so they are imported here and nowhere
else, and this module is imported by the files of ``launch/`` alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from embodied_rl.bringup.environment import PACKAGE
from embodied_rl.bringup.graph import Graph, NodeSpec, Role, build, kind_of
from embodied_rl.bringup.process import describe_exit
from embodied_rl.core.errors import UserError


class GraphFailed(RuntimeError):
    """Raised inside `launch`: it prints the line, shuts the rest down and exits with 1."""


def description(name: str) -> LaunchDescription:
    """Returns the launch description of graph `name`, with its arguments declared."""
    arguments = [
        DeclareLaunchArgument(
            argument.name,
            description=argument.description,
            default_value=argument.default,
            choices=list(argument.choices) if argument.choices and not argument.several else None,
        )
        for argument in kind_of(name).arguments
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=partial(_actions, name))])


def _actions(name: str, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Builds the graph once the arguments have their values."""
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in kind_of(name).arguments}
    try:
        graph = build(name, given)
    except UserError as error:
        raise GraphFailed(str(error)) from None
    variables = [SetEnvironmentVariable(k, v) for k, v in graph.environment.items()]
    stages = sorted({node.stage for node in graph.nodes})
    return [*variables, *_stage(graph, stages)]


def _stage(graph: Graph, stages: list[int]) -> list[LaunchDescriptionEntity]:
    """Returns the nodes of the first stage; its gates hold the way to the others.

    A stage waits for all gates of the one before; `waiting` counts those that still run.
    """
    if not stages:
        return []
    nodes = [node for node in graph.nodes if node.stage == stages[0]]
    waiting = {node.name for node in nodes if node.role is Role.GATE}
    actions: list[LaunchDescriptionEntity] = []
    for node in nodes:
        process = _process(node, graph.namespace)
        on_exit = partial(_on_exit, node, waiting, partial(_stage, graph, stages[1:]))
        handler = OnProcessExit(target_action=process, on_exit=on_exit)
        actions += [RegisterEventHandler(handler), process]
    # a stage without a gate does not hold up the next one
    return actions if waiting else [*actions, *_stage(graph, stages[1:])]


def _on_exit(
    node: NodeSpec,
    waiting: set[str],
    following: Callable[[], list[LaunchDescriptionEntity]],
    event: ProcessExited,
    context: LaunchContext,
) -> list[LaunchDescriptionEntity]:
    """What the end of one process means: the next stage, the end, or a failure with its name."""
    if context.is_shutdown:
        return []
    if event.returncode == 0 and node.role is Role.GATE:
        waiting.discard(node.name)
        return [] if waiting else following()
    if event.returncode == 0 and node.role is Role.CONDUCTOR:
        return [EmitEvent(event=Shutdown(reason=f"{node.name} is done"))]
    role = "required node " if node.role is Role.REQUIRED else ""
    line = f"{role}{node.name} ended with {describe_exit(event.returncode)}"
    return [EmitEvent(event=Shutdown(reason=line)), OpaqueFunction(function=partial(_fail, line))]


def _fail(line: str, context: LaunchContext) -> None:
    raise GraphFailed(line)


def _process(node: NodeSpec, namespace: str) -> Node:
    """One node: its installed executable, or the module of this interpreter if there is none."""
    try:
        get_package_prefix(PACKAGE)
        program = {"package": PACKAGE, "executable": node.module}
    except (PackageNotFoundError, OSError):  # OSError: there is no index at all
        module = f"{PACKAGE}.nodes.{node.module}"
        program = {"executable": sys.executable, "arguments": ["-m", module]}
    return Node(
        **program,
        name=node.name,
        exec_name=node.name,
        namespace=namespace,
        parameters=[node.parameters],
        remappings=list(node.remappings),
        output="screen",
        sigterm_timeout=str(node.stop_s),
        respawn=False,
    )
