"""The only writer of a robot's actuator topics: limits, staleness, emergency stop.

Subscribes to ``policy/chunk`` and ``policy/heartbeat``; writes the command topics of the embodiment
file, and what it let through to ``command/executed``. The decisions are
:class:`embodied_rl.core.gate.CommandGate`'s.

In ``realtime`` a chunk goes out as soon as it comes, to actuators that follow trajectories; the
others are told one target a control period. Silence of the policy is noticed by a steady timer; a
base is then led to rest, a velocity a control period, and told nothing more once it stands. In
``lockstep`` the gate answers each tick of ``/clock`` once the policy has said that it is done with
that tick, with exactly one message on each command topic.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable

from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.commands import StateWatch
from embodied_rl.core.decode import StreamDecoder, stamp_ns
from embodied_rl.core.embodiment import JOINT_TRAJECTORY, Embodiment, Stream
from embodied_rl.core.errors import NotForThisStream, UserError
from embodied_rl.core.gate import CommandGate, GateState
from embodied_rl.core.heartbeat import Heartbeat
from embodied_rl.core.policy import ActionChunk
from embodied_rl.core.window import CLOCK_JUMP_NS
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.connections import Connections
from embodied_rl.nodes.process import Stop, parameter, run
from embodied_rl.nodes.subscriber import Subscriber

# Silence is called after 1.5 periods and looked for ten times a period, so that even a policy that
# died right after a heartbeat is noticed within 2 periods.
SILENCE_PERIODS = 1.5
CHECKS_PER_PERIOD = 10


class CommandGateNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("command_gate_node")
        path = parameter(self, "embodiment", "", "embodiment file of the robot")
        self._lockstep = (
            parameter(self, "mode", "realtime", "clock mode", ("realtime", "lockstep"))
            == "lockstep"
        )
        self.embodiment = Embodiment.load(path)
        self._gate = CommandGate(self.embodiment)
        self._watch = StateWatch(self.embodiment)
        self._pending: list[ActionChunk] = []  # chunks that wait for the first measured state
        self._beat_steady_s = float("-inf")
        self._beat_tick_ns = self._beat_chunk_ns = self._last_chunk_ns = 0
        self._open_tick_ns = self._done_tick_ns = 0
        self._last_error = ""
        self._create_publishers()
        self._create_subscriptions()
        self.create_service(Trigger, "~/reset_episode", self._on_reset)
        self.create_service(SetBool, "~/emergency_stop", self._on_stop_service)
        self._diagnostics = diagnostics.Diagnostics(self, self._status)
        steady = RosClock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._match_publishers, clock=steady)
        if not self._lockstep:
            period_s = self.embodiment.period_ns / 1e9
            self._silence_s = SILENCE_PERIODS * period_s
            self.create_timer(period_s / CHECKS_PER_PERIOD, self._on_timer, clock=steady)
        self.get_logger().info(f"gate ready for {self.embodiment.name}")

    def _create_publishers(self) -> None:
        self._executed = self.create_publisher(JointTrajectory, "command/executed", qos.EXECUTED)
        self._actuators = {
            key: self.create_publisher(
                messages.message_class(command.type), command.topic, qos.COMMANDS
            )
            for key, command in self.embodiment.commands.items()
        }
        kinds = {key: command.type for key, command in self.embodiment.commands.items()}
        self._trajectories = [key for key, kind in kinds.items() if kind == JOINT_TRAJECTORY]
        self._stepped = [key for key, kind in kinds.items() if kind != JOINT_TRAJECTORY]

    def _create_subscriptions(self) -> None:
        subscribe = self.create_subscription
        self._policy_ears = [
            subscribe(JointTrajectory, "policy/chunk", self._on_chunk, qos.COMMANDS),
            subscribe(Header, "policy/heartbeat", self._on_beat, qos.COMMANDS),
        ]
        self._ears = [
            *self._policy_ears,
            subscribe(Bool, "emergency_stop", self._on_stop_topic, qos.COMMANDS),
        ]
        if self._lockstep:
            self._ears.append(subscribe(Clock, "/clock", self._on_clock, qos.CLOCK))
        measured: dict[str, list[Stream]] = {}
        for stream in self.embodiment.require(self._watch.keys).values():
            measured.setdefault(stream.topic, []).append(stream)
        self._decoders = {
            key: StreamDecoder(self.embodiment.streams[key]) for key in self._watch.keys
        }
        self._sensors = [
            Subscriber(
                self,
                messages.message_class(group[0].type),
                topic,
                functools.partial(self._on_state, group),
                qos.stream(group[0].type),
            )
            for topic, group in measured.items()
        ]
        self._connections = Connections(self)

    def _match_publishers(self) -> None:
        for sensor in self._sensors:
            sensor.match()

    # What comes in

    def _on_state(self, group: list[Stream], message) -> None:
        for stream in group:
            try:
                sample = self._decoders[stream.key](message, messages.now_ns(self))
                self._watch.add(stream.key, sample)
            except NotForThisStream:
                continue
            except UserError as error:
                self._complain(str(error))
        self._advance()

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            chunk = messages.read_chunk(message, self.embodiment, "policy/chunk")
        except UserError as error:
            self._gate.counts["refused"] += 1
            self._complain(str(error))
            return
        if messages.now_ns(self) < self._last_chunk_ns - CLOCK_JUMP_NS:
            self._complain("the clock was set back; starting anew from the measured state")
            self._forget()
        self._pending.append(chunk)
        self._advance()

    def _on_beat(self, message: Header) -> None:
        try:
            beat = Heartbeat.parse(message.frame_id)
        except UserError as error:
            self._complain(str(error))
            return
        self._beat_steady_s = time.monotonic()
        self._beat_tick_ns = stamp_ns(message)
        self._beat_chunk_ns = beat.chunk_ns
        self._advance()

    def _on_clock(self, message: Clock) -> None:
        now_ns = message.clock.sec * 1_000_000_000 + message.clock.nanosec
        if now_ns % self.embodiment.period_ns == 0:
            self._open_tick_ns = now_ns
            self._advance()

    # What goes out

    def _advance(self) -> None:
        """Accept the chunks whose start is known, then answer the open tick if it is time."""
        while self._pending and self._start_at(self._pending[0].stamp_ns):
            self._accept(self._pending.pop(0))
        if self._lockstep and not self._pending and self._policy_is_done():
            tick_ns = self._open_tick_ns
            if not self._start_at(tick_ns):
                return
            self._done_tick_ns = tick_ns
            self._publish(self._gate.next_target(tick_ns))

    def _policy_is_done(self) -> bool:
        """Whether the policy has dealt with the open tick and its chunk has come through too."""
        return (
            self._open_tick_ns > self._done_tick_ns
            # Not a later tick either: then the clock of that tick is still under way, and what is
            # open is one that nobody answered, of the idle world before the episode.
            and self._beat_tick_ns == self._open_tick_ns
            and self._beat_chunk_ns <= max(self._last_chunk_ns, self._gate.chunk_stamp_ns)
        )

    def _start_at(self, time_ns: int) -> bool:
        """Whether the gate knows where the robot is, asking its sensors if it must."""
        if self._gate.started:
            return True
        if self._lockstep and self._watch.owing(time_ns):
            return False
        try:
            self._gate.start(time_ns, self._watch.state(time_ns))
        except UserError as error:
            self._pending.clear()
            self._complain(str(error))
            return False
        return True

    def _accept(self, chunk: ActionChunk) -> None:
        self._last_chunk_ns = max(self._last_chunk_ns, chunk.stamp_ns)
        # In lockstep nothing moves before the chunk's own tick is answered.
        now_ns = chunk.stamp_ns if self._lockstep else messages.now_ns(self)
        try:
            limited = self._gate.accept(chunk, max(now_ns, self._open_tick_ns))
        except UserError as error:
            self._complain(str(error))
            return
        if limited is None:
            return
        self._record(limited)
        if not self._lockstep:
            self._send(limited, self._trajectories)
            self._step_actuators(now_ns)

    def _publish(self, chunk: ActionChunk) -> None:
        """Send every actuator its part, and record it unless that has been done with its chunk."""
        self._send(chunk, self._actuators)
        if self._gate.state is not GateState.FOLLOWING:
            self._record(chunk)

    def _send(self, chunk: ActionChunk, keys: Iterable[str]) -> None:
        """Encode everything, then send, so that no half of a command goes out on an error."""
        outgoing = []
        for key in keys:
            command, part = self.embodiment.commands[key], self.embodiment.slices()[key]
            message = messages.command_message(command, chunk, part)
            outgoing.append((self._actuators[key], message))
        for publisher, message in outgoing:
            publisher.publish(message)

    def _record(self, chunk: ActionChunk) -> None:
        names = self.embodiment.action_names
        self._executed.publish(messages.trajectory(chunk, names, slice(0, len(names))))

    def _on_timer(self) -> None:
        """Realtime: step the actuators that do not follow trajectories, and notice silence."""
        now_ns = messages.now_ns(self)
        if self._gate.state is GateState.HOLDING and self._gate.moving:
            self._step_actuators(now_ns)
        if self._gate.state is not GateState.FOLLOWING:
            return
        silent_s = time.monotonic() - self._beat_steady_s
        if silent_s > self._silence_s:
            self._hold(now_ns, f"no heartbeat of the policy for {silent_s * 1e3:.0f} ms")
        elif self._gate.ends_before(now_ns - self.embodiment.period_ns):
            # Between the end of one chunk and the arrival of the next the robot keeps its last
            # target; a whole period later nothing is coming any more.
            self._hold(now_ns, "the chunk has run out")
        else:
            self._step_actuators(now_ns)

    def _hold(self, now_ns: int, reason: str) -> None:
        self._publish(self._gate.hold(now_ns, reason))
        self.get_logger().warning(f"holding: {reason}")
        self._diagnostics.publish()

    def _step_actuators(self, now_ns: int) -> None:
        """Tell the actuators that take one target a period theirs, once."""
        tick_ns = now_ns // self.embodiment.period_ns * self.embodiment.period_ns
        following = self._gate.state is GateState.FOLLOWING
        if tick_ns <= self._done_tick_ns or (following and self._gate.ends_before(tick_ns)):
            return
        self._done_tick_ns = tick_ns
        target = self._gate.next_target(tick_ns)
        self._send(target, self._stepped)
        if not following:
            self._record(target)

    # Services, emergency stop, diagnostics

    def _forget(self) -> None:
        """Whatever was said about times and targets so far counts no more; a base stops."""
        if not self._lockstep and self._gate.moving:
            self._send(self._gate.halt(messages.now_ns(self)), self._stepped)
        self._gate.reset()
        self._pending.clear()
        self._last_chunk_ns = self._beat_tick_ns = self._beat_chunk_ns = 0
        if not self._lockstep:
            self._done_tick_ns = 0

    def _on_reset(self, request, response):
        """Begin an episode; not a success as long as something that is sent could be missed."""
        self._forget()
        self._watch.reset(messages.now_ns(self))
        sensors = [sensor.subscription for sensor in self._sensors]
        # in lockstep the run waits for each message of these, and for one that is lost in vain
        needed = [*self._policy_ears, *sensors] if self._lockstep else []
        missing = self._connections.missing([*self._ears, *sensors], needed)
        response.success = not missing
        response.message = "; ".join(missing) or self._gate.state.value
        return response

    def _on_stop_service(self, request, response):
        self._set_stop(request.data)
        response.success, response.message = True, self._gate.state.value
        return response

    def _on_stop_topic(self, message: Bool) -> None:
        self._set_stop(message.data)

    def _set_stop(self, wanted: bool) -> None:
        if wanted:
            still = self._gate.stop(messages.now_ns(self))
            if still is not None and not self._lockstep:
                self._publish(still)
        else:
            self._gate.release()
        self.get_logger().warning("emergency stop" if wanted else "emergency stop released")
        self._diagnostics.publish()

    def _complain(self, text: str) -> None:
        if text != self._last_error:
            self.get_logger().error(text)
        self._last_error = text
        self._diagnostics.publish()

    def _status(self) -> diagnostics.Status:
        rivals = [
            command.topic
            for command in self.embodiment.commands.values()
            if self.count_publishers(command.topic) > 1
        ]
        state = self._gate.state
        level, line = diagnostics.OK, state.value
        if self._gate.reason not in ("", state.value):
            line = f"{state.value}: {self._gate.reason}"
        if state is GateState.HOLDING:
            level = diagnostics.WARN
        if state is GateState.STOPPED:
            level = diagnostics.ERROR
        if rivals:
            level, line = diagnostics.ERROR, f"another node publishes on {rivals[0]}"
        figures = {"state": state.name, **self._gate.counts, "last_error": self._last_error}
        return level, line, figures


def main() -> int:
    return run(CommandGateNode)


if __name__ == "__main__":
    sys.exit(main())
