"""The motors' side of the command topics: what a simulated robot has been told to do."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np
from rclpy.node import Node

from embodied_rl.core.commands import TrajectoryTrack
from embodied_rl.core.decode_commands import read_targets, read_trajectory, target_stamp_ns
from embodied_rl.core.embodiment import JOINT_TRAJECTORY, Embodiment
from embodied_rl.core.errors import MessageError
from embodied_rl.core.message_types import STAMPED_TARGETS
from embodied_rl.nodes import messages, qos

VELOCITY_TIMEOUT_NS = 500_000_000  # cmd_vel_timeout of diff_drive_controller, its default


class ActuatorInput:
    """Follows the command topics of an embodiment like its controllers would.

    Trajectories glide between their points, from the target in force when they come; arrays and
    velocities are applied at once. A velocity is refused when it is stamped longer ago than
    ``cmd_vel_timeout``, and after so long a silence the base stops: two control periods at least.
    For lockstep it also knows whether every command topic has spoken for a tick: by the stamp, and
    where a message has none by having come after the tick was opened.
    """

    def __init__(self, node: Node, embodiment: Embodiment, time_ns: Callable[[], int]):
        self._node, self._embodiment, self._time_ns = node, embodiment, time_ns
        self._slices = embodiment.slices()
        self._velocity_timeout_ns = max(VELOCITY_TIMEOUT_NS, 2 * embodiment.period_ns)
        self.refused: Counter[str] = Counter()
        self.subscriptions = [
            node.create_subscription(
                messages.command_class(command),
                command.topic,
                functools.partial(
                    self._on_trajectory if command.type == JOINT_TRAJECTORY else self._on_target,
                    key,
                ),
                qos.COMMANDS,
            )
            for key, command in embodiment.commands.items()
        ]
        self.reset(0, np.zeros(embodiment.action_dim))

    def reset(self, time_ns: int, target: np.ndarray) -> None:
        """Forget all commands and hold ``target (A,)``, a base at rest."""
        self._target = np.array(self._embodiment.at_rest(target), dtype=np.float64)
        self._heard_ns = {
            key: time_ns for key, command in self._embodiment.commands.items() if command.velocity
        }
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
        """Targets ``(A,)`` at a time."""
        for key, track in self._tracks.items():
            self._target[self._slices[key]] = track.target(time_ns)
        for key, heard_ns in self._heard_ns.items():
            if time_ns > heard_ns + self._velocity_timeout_ns:
                self._target[self._slices[key]] = 0.0
        return self._target.copy()

    def _on_trajectory(self, key: str, message) -> None:
        command = self._embodiment.commands[key]
        try:
            stamp, times, values = read_trajectory(message, command.wire_names, command.topic)
            if stamp == 0:  # a trajectory without a stamp begins when it comes
                times = times + self._time_ns()
            elif times[-1] < self._time_ns():
                raise MessageError(
                    f"{command.topic}: expected a trajectory that is not over, saw one that ended "
                    f"{(self._time_ns() - times[-1]) / 1e9:.3f} s ago"
                )
        except MessageError as error:
            self._refuse(error)
            return
        self._tracks[key].follow(self._time_ns(), times, values)
        if stamp == self._tick_ns:
            self._waiting.discard(key)

    def _on_target(self, key: str, message) -> None:
        command = self._embodiment.commands[key]
        try:
            values = read_targets(message, command)
            stamp = target_stamp_ns(message, command)
            self._check_age(command.topic, stamp)
        except MessageError as error:
            self._refuse(error)
            return
        self._target[self._slices[key]] = values
        if command.velocity:
            self._heard_ns[key] = self._time_ns()
        if stamp == self._tick_ns or command.type not in STAMPED_TARGETS:
            self._waiting.discard(key)

    def _check_age(self, topic: str, stamp: int) -> None:
        """Raises MessageError for a velocity from long ago; no stamp stands for now."""
        age_ns = self._time_ns() - stamp
        if stamp and age_ns > self._velocity_timeout_ns:
            raise MessageError(
                f"{topic}: expected a command of the last "
                f"{self._velocity_timeout_ns / 1e9:g} s, saw one {age_ns / 1e9:g} s old"
            )

    def _refuse(self, error: MessageError) -> None:
        self.refused[str(error)] += 1
        self._node.get_logger().error(f"refused: {error}")
