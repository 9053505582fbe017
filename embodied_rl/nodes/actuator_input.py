"""The motors' side of the command topics: what a simulated robot has been told to do."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np
from rclpy.node import Node

from embodied_rl.core.commands import TrajectoryTrack
from embodied_rl.core.decode_commands import read_targets, read_trajectory
from embodied_rl.core.embodiment import JOINT_TRAJECTORY, Embodiment
from embodied_rl.core.errors import MessageError
from embodied_rl.nodes import messages, qos


class ActuatorInput:
    """Follows the command topics of an embodiment like its controllers would.

    Trajectories glide between their points, from the target in force when they come; plain arrays
    are applied at once. For lockstep it also knows whether every command topic has spoken for a
    tick: a trajectory by its stamp, an array by having come after the tick was opened.
    """

    def __init__(self, node: Node, embodiment: Embodiment, time_ns: Callable[[], int]):
        self._node, self._embodiment, self._time_ns = node, embodiment, time_ns
        self._slices = embodiment.slices()
        self.refused: Counter[str] = Counter()
        self.subscriptions = [
            node.create_subscription(
                messages.MESSAGE_CLASSES[command.type],
                command.topic,
                functools.partial(
                    self._on_trajectory if command.type == JOINT_TRAJECTORY else self._on_array,
                    key,
                ),
                qos.COMMANDS,
            )
            for key, command in embodiment.commands.items()
        ]
        self.reset(0, np.zeros(embodiment.action_dim))

    def reset(self, time_ns: int, target: np.ndarray) -> None:
        """Forget all commands and hold ``target (A,)``."""
        self._target = np.array(target, dtype=np.float64)
        self._tracks = {
            key: TrajectoryTrack(time_ns, target[part])
            for key, part in self._slices.items()
            if self._embodiment.commands[key].type == JOINT_TRAJECTORY
        }
        self.open(-1)

    def open(self, tick_ns: int) -> None:
        """Begin to wait for the commands of a tick."""
        self._tick_ns = tick_ns
        self._waiting = set(self._slices)

    def waiting(self) -> set[str]:
        """The commands that have not spoken for the open tick yet."""
        return self._waiting

    def target(self, time_ns: int) -> np.ndarray:
        """Position targets ``(A,)`` at a time."""
        for key, track in self._tracks.items():
            self._target[self._slices[key]] = track.target(time_ns)
        return self._target.copy()

    def _on_trajectory(self, key: str, message) -> None:
        command = self._embodiment.commands[key]
        try:
            stamp, times, values = read_trajectory(message, command.names, command.topic)
        except MessageError as error:
            self._refuse(error)
            return
        self._tracks[key].follow(self._time_ns(), times, values)
        if stamp == self._tick_ns:
            self._waiting.discard(key)

    def _on_array(self, key: str, message) -> None:
        command = self._embodiment.commands[key]
        try:
            self._target[self._slices[key]] = read_targets(message, command)
        except MessageError as error:
            self._refuse(error)
            return
        self._waiting.discard(key)

    def _refuse(self, error: MessageError) -> None:
        self.refused[str(error)] += 1
        self._node.get_logger().error(f"refused: {error}")
