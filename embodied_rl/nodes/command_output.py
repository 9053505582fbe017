"""The commands of a robot, on topics and by actions: what is sent, and whether anybody hears it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.topic_endpoint_info import TopicEndpointInfo
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.embodiment import JOINT_TRAJECTORY, Command, Embodiment
from embodied_rl.core.policy import ActionChunk
from embodied_rl.nodes import messages, qos
from embodied_rl.nodes.gripper_action import GripperAction

# Nodes that listen to commands without carrying them out.
_LISTENERS = ("recorder_node", "rosbag2", "_ros2cli", "plotjuggler", "foxglove_bridge")


class CommandOutput:
    """Publishes commands, each message a whole: everything is encoded before anything is sent.

    Args:
        dry_run: publish nothing and do not look for controllers.
    """

    def __init__(self, node: Node, embodiment: Embodiment, dry_run: bool = False):
        self._node, self._embodiment, self._dry_run = node, embodiment, dry_run
        commands = embodiment.commands
        self._publishers: dict[str, Publisher | GripperAction] = {}
        if not dry_run:
            self._publishers = {key: _publisher(node, c) for key, c in commands.items()}
        self._grippers = {
            key: publisher
            for key, publisher in self._publishers.items()
            if isinstance(publisher, GripperAction)
        }
        self.all = list(commands)
        self.bases = [key for key, command in commands.items() if command.velocity]
        self.trajectories = [key for key, c in commands.items() if c.type == JOINT_TRAJECTORY]
        self.stepped = [key for key, c in commands.items() if c.type != JOINT_TRAJECTORY]
        self._slices = embodiment.slices()

    def send(self, chunk: ActionChunk, keys: Iterable[str] | None = None) -> None:
        """Stamped with the control tick: in lockstep, and targets that are in force at once."""
        self._publish(chunk, self._publishers if keys is None else keys, None)

    def send_from_now(self, chunk: ActionChunk, now_ns: int, keys: Iterable[str]) -> None:
        """Without a stamp, which stands for now: a controller refuses a trajectory that ends in
        its past, which a late one does, or one from a clock that is a little behind its own."""
        self._publish(chunk, keys, now_ns)

    def _publish(self, chunk: ActionChunk, keys: Iterable[str], now_ns: int | None) -> None:
        if not np.all(np.isfinite(chunk.values)):
            raise ValueError("a command that is not finite got past the limits")
        outgoing = []
        for key in keys:
            if key not in self._publishers:  # a dry run
                continue
            message = messages.command_message(
                self._embodiment.commands[key], chunk, self._slices[key]
            )
            if now_ns is not None and isinstance(message, JointTrajectory):
                message.header.stamp = Time()
                for point, due_ns in zip(message.points, chunk.times_ns.tolist()):
                    point.time_from_start = messages.duration_message(due_ns - now_ns)
            outgoing.append((self._publishers[key], message))
        for publisher, message in outgoing:
            publisher.publish(message)

    def stop(self, measured: np.ndarray | None) -> None:
        """An emergency stop, for what goes on by itself once it was sent: goals of actions.

        Args:
            measured: where the robot is ``(A,)``, if that is known.
        """
        for key, gripper in self._grippers.items():
            gripper.stop(None if measured is None else float(measured[self._slices[key]][0]))

    def release(self) -> None:
        """The end of :meth:`stop`."""
        for gripper in self._grippers.values():
            gripper.release()

    def complaint(self) -> str:
        """What became of goals that were refused or aborted, in one line, or nothing."""
        return "; ".join(g.reason for g in self._grippers.values() if g.reason)

    def rivals(self) -> str:
        """Who else publishes commands, in one line, or nothing."""
        for publisher in self._publishers.values():
            topic = publisher.topic_name
            if self._node.count_publishers(topic) > 1:
                return f"another node publishes on {topic}{self._rival(topic)}"
        return ""

    def trouble(self) -> str:
        """Why commands would not do what they should, in one line, or nothing: somebody else
        publishes them too, nobody listens, or only with another type."""
        if rivals := self.rivals():
            return rivals
        for gripper in self._grippers.values():
            if absent := gripper.trouble():
                return absent
        for key, publisher in self._publishers.items():
            topic = publisher.topic_name
            if key in self._grippers:
                continue
            listeners = [
                info
                for info in self._node.get_subscriptions_info_by_topic(topic)
                if not info.node_name.startswith(_LISTENERS)
            ]
            wanted = self._embodiment.commands[key].type
            if not listeners:
                return f"nobody listens on {topic}{self._elsewhere(topic, wanted)}"
            if all(info.topic_type != wanted for info in listeners):
                other = listeners[0]
                return (
                    f"{topic}: expected a subscriber of {wanted}, saw {other.topic_type} "
                    f"of {_name(other)}"
                )
        return ""

    def _rival(self, topic: str) -> str:
        own = self._node.get_name()
        others = [
            _name(info)
            for info in self._node.get_publishers_info_by_topic(topic)
            if info.node_name != own
        ]
        return f": {', '.join(sorted(set(others)))}" if others else ""

    def _elsewhere(self, topic: str, wanted: str) -> str:
        """The topic of another controller that waits for such commands, if there is one."""
        for name, kinds in self._node.get_topic_names_and_types():
            alike = name != topic and wanted in kinds and _last(name) == _last(topic)
            if alike and self._node.count_subscribers(name):
                return f"; {name} has a subscriber: is that the active controller?"
        return "; is its controller running?"


def _publisher(node: Node, command: Command) -> Publisher | GripperAction:
    """What sends the messages of a command."""
    if command.goals is not None:
        return GripperAction(node, command)
    return node.create_publisher(messages.message_class(command.type), command.topic, qos.COMMANDS)


def _last(topic: str) -> str:
    return topic.rsplit("/", 1)[-1]


def _name(info: TopicEndpointInfo) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
