"""A stand-in robot behind the topics of any embodiment file, on the system's clock.

For trying a robot's file, its graph and its recordings before the robot is there, and for trying
what happens when the robot does not do as it should. Its controllers keep the rules of the real
ones (:mod:`embodied_rl.sim.stand_in`); images and scans show a moving pattern, every pose is that
of the tool where the file has the kinematics.

``stand_in/faults`` (std_msgs/String, YAML) sets what is the matter with it, such as
``pendant_stop: true``; an empty text makes it whole again. The service ``~/report`` tells what the
controllers accepted and refused, and where the joints are.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import fields

import numpy as np
import yaml
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.decode_commands import read_targets
from embodied_rl.core.embodiment import (
    JOINT_STATE,
    JOINT_TRAJECTORY,
    LASER_SCAN,
    NANOSECONDS,
    ODOMETRY,
    POSE,
    TWIST_STAMPED,
    Embodiment,
    Stream,
)
from embodied_rl.core.errors import UserError
from embodied_rl.core.heading import quaternion_of
from embodied_rl.core.schema import parse_yaml
from embodied_rl.core.window import Sample
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.causes import Complaints
from embodied_rl.nodes.process import Stop, parameter, run
from embodied_rl.sim.stand_in import Faults, StandInRobot, Trajectory

STEP_HZ = 200
OLDEST_STEP_S = 0.1  # a process that was stopped does not make up for the time


class StandInNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("stand_in_node")
        self.embodiment = Embodiment.load(
            parameter(self, "embodiment", "", "embodiment file of the robot")
        )
        faults = parameter(self, "faults", "", "what is the matter with it at the start, YAML")
        self._split = parameter(
            self, "split_joint_states", False, "one message for each stream of a topic"
        )
        start = parse_yaml(
            parameter(self, "start", "", "positions of all joints at the start, a YAML list"),
            "stand_in_node: start",
        )
        if start and (not isinstance(start, list) or len(start) != self.embodiment.action_dim):
            raise UserError(
                f"stand_in_node: start: expected {self.embodiment.action_dim} numbers, saw {start}"
            )
        self.robot = StandInRobot(self.embodiment, np.array(start) if start else None)
        self._complaints = Complaints(self.get_logger())
        self._random = np.random.default_rng(0)
        self._commands: list[tuple[float, str, object]] = []  # (due, group, message), steady clock
        self._outgoing: list[tuple[float, object, object]] = []  # (due, publisher, message)
        self._frozen: dict[str, np.ndarray] = {}
        self._create_interfaces()
        self._set_faults(faults)
        self._stepped_s = time.monotonic()
        self.create_timer(1 / STEP_HZ, self._step, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._diagnostics = diagnostics.Diagnostics(self, self._status)
        self.get_logger().info(f"stand-in for {self.embodiment.name}")

    def _create_interfaces(self) -> None:
        self._topics: list[tuple[object, list[Stream], list[int]]] = []
        for topic, streams in self.embodiment.topics().items():
            kind = messages.message_class(streams[0].type)
            publisher = self.create_publisher(kind, topic, qos.stream(streams[0].type))
            parts = [[s] for s in streams] if self._split else [streams]
            self._topics += [(publisher, part, [0]) for part in parts]
        for key, command in self.embodiment.commands.items():
            self.create_subscription(
                messages.command_class(command),
                command.topic,
                functools.partial(self._on_command, key),
                qos.COMMANDS,
            )
        # All dimensions as they are, whatever the sensors say.
        self._truth = self.create_publisher(JointState, "stand_in/truth", qos.stream(JOINT_STATE))
        self.create_subscription(String, "stand_in/faults", self._on_faults, qos.COMMANDS)
        self.create_service(Trigger, "~/report", self._on_report)

    def now_ns(self) -> int:
        """The robot's own clock."""
        return time.time_ns() + round(self.robot.faults.clock_offset_s * NANOSECONDS)

    # Commands

    def _on_command(self, key: str, message) -> None:
        delay_s = self._random.uniform(0.0, 1.0) * self.robot.faults.command_delay_s
        last_s = self._commands[-1][0] if self._commands else 0.0  # none overtakes another
        self._commands.append((max(last_s, time.monotonic() + delay_s), key, message))
        self._carry_out()

    def _carry_out(self) -> None:
        now_s = time.monotonic()
        while self._commands and self._commands[0][0] <= now_s:
            _, key, message = self._commands.pop(0)
            before = self.robot.refused.copy()
            self._give(key, message)
            for name, reason in self.robot.refused - before:
                self._complaints.say(f"{self.embodiment.commands[name].topic}: {reason}")

    def _give(self, key: str, message) -> None:
        command, now_ns = self.embodiment.commands[key], self.now_ns()
        if command.type == JOINT_TRAJECTORY:
            points = message.points
            starts = [p.time_from_start for p in points]
            times = [start.sec * NANOSECONDS + start.nanosec for start in starts]
            rows = [list(p.positions) for p in points]
            final = list(points[-1].velocities) if points else []
            trajectory = Trajectory(
                list(message.joint_names), stamp_ns(message.header), times, rows, final
            )
            self.robot.command_trajectory(key, trajectory, now_ns)
            return
        try:
            values = read_targets(message, command)
        except UserError as error:
            self._complaints.say(str(error))
            self.robot.refused[key, "not readable"] += 1
            return
        if command.velocity:
            stamp = stamp_ns(message.header) if command.type == TWIST_STAMPED else 0
            self.robot.command_velocity(key, values, stamp, now_ns)
        else:
            self.robot.command_targets(key, values)

    def _on_faults(self, message: String) -> None:
        try:
            self._set_faults(message.data)
        except UserError as error:
            self._complaints.say(str(error))

    def _set_faults(self, text: str) -> None:
        """Raises UserError for what is not the YAML of some fields of Faults."""
        given = parse_yaml(text, "stand_in/faults") or {}
        known = {item.name for item in fields(Faults)}
        if not isinstance(given, dict) or not set(given) <= known:
            raise UserError(f"stand_in/faults: expected some of {sorted(known)}, saw {given!r}")
        self.robot.set_faults(Faults(**given))
        self._frozen.clear()
        if text:
            self.get_logger().info(f"faults: {given or 'none'}")

    # Motion and streams

    def _step(self) -> None:
        self._carry_out()
        now_s = time.monotonic()
        step_s, self._stepped_s = min(now_s - self._stepped_s, OLDEST_STEP_S), now_s
        self.robot.advance(self.now_ns(), step_s)
        now_ns = self.now_ns()
        truth = JointState(name=list(self.embodiment.action_names))
        truth.header.frame_id = str(self.robot.refused.total())  # commands refused so far
        truth.header.stamp = messages.time_message(time.time_ns())  # this machine's clock
        truth.position = self.robot.state.tolist()
        self._truth.publish(truth)
        for publisher, streams, last in self._topics:
            due = time.monotonic_ns() // streams[0].period_ns  # its clock may be set back
            if due > last[0]:
                last[0] = due
                self._show(publisher, streams, now_ns, due)
        while self._outgoing and self._outgoing[0][0] <= now_s:
            _, publisher, message = self._outgoing.pop(0)
            publisher.publish(message)

    def _show(self, publisher, streams: list[Stream], now_ns: int, number: int) -> None:
        faults, topic = self.robot.faults, streams[0].topic
        if topic in faults.silent or number % faults.thin.get(topic, 1):
            return
        stamp = now_ns + round(faults.stamp_s.get(topic, 0.0) * NANOSECONDS)
        samples = {s.key: Sample(stamp, self._sensed(s, now_ns, number)) for s in streams}
        frame = streams[0].frame or self.embodiment.base_frame
        message = messages.encode_topic(streams, samples, frame)
        late_s = faults.late_s.get(topic, 0.0)
        if late_s:
            self._outgoing.append((time.monotonic() + late_s, publisher, message))
        else:
            publisher.publish(message)

    def _sensed(self, stream: Stream, now_ns: int, number: int) -> np.ndarray:
        """What the sensor tells: the value, unless something is the matter with it."""
        faults, value = self.robot.faults, self._value(stream, now_ns)
        if stream.topic in faults.frozen:
            value = self._frozen.setdefault(stream.key, value)
        if not np.issubdtype(value.dtype, np.floating):
            return value
        if stream.topic in faults.nan:
            return np.full_like(value, np.nan)
        off = faults.shift.get(stream.topic, 0.0)
        if number % 10 == 0:
            off += faults.glitch.get(stream.topic, 0.0)
        return value + np.asarray(off, dtype=value.dtype)

    def _value(self, stream: Stream, now_ns: int) -> np.ndarray:
        """What a sensor would show now, of the stream's shape and type."""
        if stream.type == JOINT_STATE:
            return self._joints(stream)
        if stream.type == ODOMETRY:
            return self._odometry(stream)
        if stream.type == POSE:
            return self._tool(stream)
        if stream.type == LASER_SCAN:
            return np.full(stream.shape, stream.scan.range_max_m / 2, dtype=np.float32)
        pattern = np.arange(int(np.prod(stream.shape))).reshape(stream.shape)
        shown = (pattern + now_ns // 10_000_000) % 251
        return (shown if np.issubdtype(stream.dtype, np.integer) else shown / 250).astype(
            stream.dtype
        )

    def _joints(self, stream: Stream) -> np.ndarray:
        named = dict(zip(self.embodiment.action_names, self.robot.state.tolist()))
        if stream.field != "position":
            return np.zeros(stream.shape)
        return np.array([named.get(joint, 0.0) for joint in stream.joints])

    def _odometry(self, stream: Stream) -> np.ndarray:
        named = dict(zip(self.embodiment.action_names, self.robot.state.tolist()))
        x, y, yaw = self.robot.pose.tolist()
        return np.array(
            {
                "position": [x, y, 0.0],
                "orientation": quaternion_of(yaw),
                "yaw": [yaw],
                "linear_velocity": [named.get("linear_x", 0.0), named.get("linear_y", 0.0), 0.0],
                "angular_velocity": [0.0, 0.0, named.get("angular_z", 0.0)],
            }[stream.field]
        )

    def _tool(self, stream: Stream) -> np.ndarray:
        for key, command in self.embodiment.commands.items():
            tool = command.tool
            if tool and stream.key in (tool.position_stream, tool.orientation_stream):
                place, turn = tool.pose(self.robot.state[self.embodiment.slices()[key]])
                return place if stream.field == "position" else turn
        chain = self.embodiment.chain
        if stream.field == "orientation":
            return np.array([0.0, 0.0, 0.0, 1.0])
        if chain is None:
            return np.array([0.4, 0.0, 0.2])
        places = [self.embodiment.action_names.index(joint) for joint in chain.joints]
        return np.asarray(chain.forward(self.robot.state[places])[0])

    # Reports

    def _on_report(self, request, response):
        response.success = True
        response.message = yaml.safe_dump(self._figures(), sort_keys=False)
        return response

    def _figures(self) -> dict[str, object]:
        names = self.embodiment.action_names
        return {
            "accepted": dict(self.robot.accepted),
            "refused": {f"{key}: {why}": n for (key, why), n in self.robot.refused.items()},
            "state": dict(zip(names, np.round(self.robot.state, 6).tolist())),
            "pose": np.round(self.robot.pose, 6).tolist(),
        }

    def _status(self) -> diagnostics.Status:
        figures = self._figures()
        refused = sum(self.robot.refused.values())
        line = f"{sum(self.robot.accepted.values())} commands accepted, {refused} refused"
        return diagnostics.WARN if refused else diagnostics.OK, line, figures


def main() -> int:
    return run(StandInNode)


if __name__ == "__main__":
    sys.exit(main())
