"""The only writer of a robot's actuator topics: limits, staleness, emergency stop.

Subscribes to ``policy/chunk`` and ``policy/heartbeat``; writes the command topics of the embodiment
file, and what it let through to ``command/executed``. The decisions are
:class:`embodied_rl.core.gate.CommandGate`'s.

In ``realtime`` (:mod:`embodied_rl.nodes.gate_realtime`) a chunk goes out as soon as it comes, a
little way ahead at a time, and the gate watches the robot, its controllers and the policy. In
``lockstep`` it answers each tick of ``/clock`` once the policy has said that it is done with that
tick, with exactly one message on each command topic.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import replace

from rclpy.clock import Clock as SteadyClock
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.decode import StreamDecoder, stamp_ns
from embodied_rl.core.embodiment import Embodiment, Stream
from embodied_rl.core.errors import MessageError, NotForThisStream, UserError
from embodied_rl.core.gate import LONGEST_CHUNK, CommandGate, GateState
from embodied_rl.core.heartbeat import Heartbeat
from embodied_rl.core.measured import StateWatch
from embodied_rl.core.policy import ActionChunk
from embodied_rl.core.policy_link import PolicyLink
from embodied_rl.core.schema import plain
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.causes import Causes, Complaints
from embodied_rl.nodes.command_output import CommandOutput
from embodied_rl.nodes.connections import Connections
from embodied_rl.nodes.gate_realtime import RealtimeGate
from embodied_rl.nodes.process import Stop, parameter, run
from embodied_rl.nodes.static_frames import static_subscribers
from embodied_rl.nodes.stop_input import StopInput
from embodied_rl.nodes.subscriber import Subscriber

STOP_MATCH_S = 0.1  # a latched stop is heard so soon after its publisher is found


class CommandGateNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("command_gate_node")
        path = parameter(self, "embodiment", "", "embodiment file of the robot")
        mode = parameter(self, "mode", "realtime", "clock mode", ("realtime", "lockstep"))
        dry_run = parameter(self, "dry_run", False, "decide and report, but send no command")
        alive = parameter(
            self, "required_alive", "", "topics (Header), by commas, whose silence holds the robot"
        )
        self.embodiment = Embodiment.load(path)
        self.complaints = Complaints(self.get_logger())
        self._changes = Causes(quiet_s=3.0)
        self.gate = CommandGate(self.embodiment)
        self.output = CommandOutput(self, self.embodiment, dry_run)
        self.dry_run = dry_run
        self._executed = self.create_publisher(JointTrajectory, "command/executed", qos.EXECUTED)
        self.stop_input = StopInput(
            self, self._on_stop, self._complain, lambda: self.gate.state.value
        )
        self._create_policy_side()
        self.answering = self.realtime = None
        if mode == "lockstep":
            self.answering = Lockstep(self)
            self.watch = self.answering.watch
        else:
            self.realtime = RealtimeGate(self, [topic for topic in alive.split(",") if topic])
            self.watch = self.realtime.watch
        self._create_sensors()
        self.create_service(Trigger, "~/reset_episode", self._on_reset)
        self._diagnostics = diagnostics.Diagnostics(self, self._status)
        steady = SteadyClock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._match_publishers, clock=steady)
        self.create_timer(STOP_MATCH_S, self.stop_input.match, clock=steady)
        self._connections = Connections(self)  # after every subscription that it is asked about
        self.get_logger().info(
            f"gate ready for {self.embodiment.name}"
            + (" (dry run: no command is sent)" if dry_run else "")
        )

    def _create_policy_side(self) -> None:
        period_s = self.embodiment.period_ns / 1e9
        self.policy = PolicyLink(silence_s=2.0 * period_s)
        names = sum(len(name) + 16 for name in self.embodiment.action_names)
        width = 4 * 8 * self.embodiment.action_dim + 64  # of a point with all its fields
        self._largest_chunk = LONGEST_CHUNK * width + names + 1024
        self._policy_ears = [
            # Looked at as bytes first: to decode an endless chunk takes longer than a stop may.
            self.create_subscription(
                JointTrajectory, "policy/chunk", self._on_chunk, qos.COMMANDS, raw=True
            ),
            self.create_subscription(Header, "policy/heartbeat", self._on_beat, qos.COMMANDS),
        ]

    def _create_sensors(self) -> None:
        streams = self.embodiment.require(self.watch.keys)
        measured: dict[str, list[Stream]] = {}
        for stream in streams.values():
            measured.setdefault(stream.topic, []).append(stream)
        # Endless joints as their driver counts them: a seam would look like a whole turn.
        self.decoders = {
            key: StreamDecoder(replace(stream, continuous=())) for key, stream in streams.items()
        }
        on_state = self.realtime.on_state if self.realtime else self._on_state
        self._sensors = [
            Subscriber(
                self,
                messages.message_class(group[0].type),
                topic,
                functools.partial(on_state, group),
                qos.stream(group[0].type),
                raw=self.realtime is not None,
                info=self.realtime is not None,
            )
            for topic, group in measured.items()
        ]
        self._static = static_subscribers(self, streams.values(), self._on_static)

    def _on_static(self, group: list[Stream], message) -> None:
        for stream in group:
            try:
                self.decoders[stream.key].latch(message)
            except MessageError as error:
                self._complain(str(error))

    def _match_publishers(self) -> None:
        for sensor in (*self._sensors, *self._static):
            sensor.match()

    # What comes in

    def _on_state(self, group: list[Stream], message) -> None:
        for stream in group:
            try:
                sample = self.decoders[stream.key](message, messages.now_ns(self))
                self.watch.add(stream.key, sample)
            except NotForThisStream:
                continue
            except UserError as error:
                self._complain(str(error))
        self.advance()

    def _on_chunk(self, data: bytes) -> None:
        try:
            if len(data) > self._largest_chunk:
                raise MessageError(
                    f"policy/chunk: expected at most {LONGEST_CHUNK} points, saw a message of "
                    f"{len(data)} bytes"
                )
            message = deserialize_message(data, JointTrajectory)
            chunk = messages.read_chunk(message, self.embodiment, "policy/chunk")
            session = message.header.frame_id
            self.policy.check(session, time.monotonic(), self._alone("policy/chunk"))
        except UserError as error:
            self.gate.counts["refused"] += 1
            self._complain(str(error))
            return
        (self.realtime or self.answering).on_chunk(chunk)

    def _on_beat(self, message: Header) -> None:
        try:
            beat = Heartbeat.parse(message.frame_id)
            alone = self._alone("policy/heartbeat")
            self.policy.hear(beat, stamp_ns(message), time.monotonic(), alone)
        except UserError as error:
            self._complain(str(error))
            return
        self.advance()

    def _alone(self, topic: str) -> bool:
        return self.count_publishers(topic) <= 1

    def advance(self) -> None:
        (self.realtime or self.answering).advance()

    # What goes out

    def record(self, chunk: ActionChunk) -> None:
        """Say on ``command/executed`` what is in force now."""
        names = self.embodiment.action_names
        self._executed.publish(messages.trajectory(chunk, names, slice(0, len(names))))

    # Services, emergency stop, diagnostics

    def _on_reset(self, request, response):
        """Begin an episode; not a success as long as something that is sent could be missed."""
        self.policy.forget()
        (self.realtime or self.answering).forget("a new episode")
        self.watch.reset(messages.now_ns(self))
        sensors = [sensor.subscription for sensor in self._sensors]
        static = [frames.subscription for frames in self._static]
        ears = [*self._policy_ears, self.stop_input.subscription, *sensors, *static]
        needed = []
        if self.answering:
            # in lockstep the run waits for each message of these, and for one that is lost in vain
            ears.append(self.answering.clock)
            needed = [*self._policy_ears, *sensors]
        missing = self._connections.missing(ears, needed)
        response.success = not missing
        response.message = "; ".join(missing) or self.gate.state.value
        return response

    def _on_stop(self, wanted: bool) -> None:
        if self.realtime:
            self.realtime.on_stop(wanted)
        elif wanted:
            self.gate.stop(messages.now_ns(self))
        if not wanted:
            self.gate.release()
        self.get_logger().warning("emergency stop" if wanted else "emergency stop released")
        self._diagnostics.publish()

    def _complain(self, text: str) -> None:
        if self.complaints.say(text):
            self._diagnostics.publish()

    def announce(self, line: str) -> None:
        """A change for the worse: into the log and onto ``/diagnostics`` at once; one that comes
        again and again, once in a while."""
        if self._changes.note(line):
            self.get_logger().warning(plain(line))
            self._diagnostics.publish()

    def complain(self, text: str) -> None:
        self._complain(text)

    def _status(self) -> diagnostics.Status:
        state = self.gate.state
        level, line = diagnostics.OK, state.value
        if self.gate.reason not in ("", state.value):
            line = f"{state.value}: {self.gate.reason}"
        if state is GateState.HOLDING:
            level = diagnostics.WARN
        if state is GateState.STOPPED:
            level = diagnostics.ERROR
        figures = {"state": state.name, **self.gate.counts}
        if self.realtime:
            trouble = self.realtime.alarm or self.realtime.trouble
            if trouble:
                level, line = diagnostics.ERROR, f"{line}; {trouble}" if line else trouble
            figures |= self.realtime.figures()
            if complaint := self.output.complaint():
                level, line = max(level, diagnostics.WARN), f"{line}; {complaint}"
        elif rival := self.output.rivals():
            level, line = diagnostics.ERROR, rival
        if self.dry_run:
            line = f"dry run, no command is sent; {line}"
        figures |= {"complaints": self.complaints.count, "last_error": self.complaints.last}
        return level, plain(line), figures

    def close(self) -> None:
        """Bring the robot to a hold before the node ends: nobody else could."""
        if self.realtime:
            self.realtime.close()


class Lockstep:
    """Answers each tick of the simulator's clock once the policy is done with it."""

    def __init__(self, node: CommandGateNode):
        self._node, self._gate = node, node.gate
        self._period_ns = node.embodiment.period_ns
        self.watch = StateWatch(node.embodiment)
        self._pending: list[ActionChunk] = []  # chunks that wait for the first measured state
        self._last_chunk_ns = self._open_tick_ns = self._done_tick_ns = 0
        self.clock = node.create_subscription(Clock, "/clock", self._on_clock, qos.CLOCK)

    def _on_clock(self, message: Clock) -> None:
        now_ns = message.clock.sec * 1_000_000_000 + message.clock.nanosec
        if now_ns % self._period_ns == 0:
            self._open_tick_ns = now_ns
            self.advance()

    def on_chunk(self, chunk: ActionChunk) -> None:
        self._pending.append(chunk)
        self.advance()

    def advance(self) -> None:
        """Accept the chunks whose start is known, then answer the open tick if it is time."""
        while self._pending and self._start_at(self._pending[0].stamp_ns):
            self._accept(self._pending.pop(0))
        if self._pending or not self._policy_is_done() or not self._start_at(self._open_tick_ns):
            return
        self._done_tick_ns = self._open_tick_ns
        target = self._gate.next_target(self._open_tick_ns)
        self._node.output.send(target)
        if self._gate.state is not GateState.FOLLOWING:
            self._node.record(target)  # of a chunk it has been recorded as a whole

    def _policy_is_done(self) -> bool:
        """Whether the policy has dealt with the open tick and its chunk has come through too."""
        policy = self._node.policy
        return (
            self._open_tick_ns > self._done_tick_ns
            # Not a later tick either: then the clock of that tick is still under way, and what is
            # open is one that nobody answered, of the idle world before the episode.
            and policy.tick_ns == self._open_tick_ns
            and policy.chunk_ns <= max(self._last_chunk_ns, self._gate.chunk_stamp_ns)
        )

    def _start_at(self, time_ns: int) -> bool:
        """Whether the gate knows where the robot is, asking its sensors if it must."""
        if self._gate.started:
            return True
        if self.watch.owing(time_ns):
            return False
        try:
            self._gate.start(time_ns, self.watch.state(time_ns))
        except UserError as error:
            self._pending.clear()
            self._node.complain(str(error))
            return False
        return True

    def _accept(self, chunk: ActionChunk) -> None:
        self._last_chunk_ns = max(self._last_chunk_ns, chunk.stamp_ns)
        try:
            # Nothing moves before the chunk's own tick is answered.
            limited = self._gate.accept(chunk, max(chunk.stamp_ns, self._open_tick_ns))
        except UserError as error:
            self._node.complain(str(error))
            return
        if limited is not None:
            self._node.record(limited)

    def forget(self, reason: str) -> None:
        """Whatever was said about times and targets so far counts no more."""
        self._gate.reset()
        self._pending.clear()
        self._last_chunk_ns = 0


def main() -> int:
    return run(CommandGateNode)


if __name__ == "__main__":
    sys.exit(main())
