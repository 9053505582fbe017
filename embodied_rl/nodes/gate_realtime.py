"""The command gate on a real clock: it follows the robot, and holds it when anything is amiss.

A chunk is sent to the controllers a little way ahead at a time (``send_ahead_s``), so that a gate
that dies leaves them with no more than that. Arrays and velocities are told one target a control
period. While a hold or a stop is in force it is repeated until the measured joints confirm it; a
stop as long as it lasts.

What leads to a hold: silence or a refusal of the policy, a chunk that runs out, a measured state
that is missing, old or told by two publishers, joints that do not follow, controllers that are not
there, a clock that leaps, a required node that falls silent. Each says so, and what goes away by
itself is followed by the next chunk, which begins at the measured joints.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rclpy.clock import Clock as SteadyClock
from rclpy.clock import ClockType
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header

from embodied_rl.core.embodiment import NANOSECONDS, Stream
from embodied_rl.core.errors import MessageError, NotForThisStream, UserError
from embodied_rl.core.gate import VELOCITY_LASTS_NS, GateState
from embodied_rl.core.measured import AgreedState
from embodied_rl.core.policy import ActionChunk
from embodied_rl.core.publishers import Series
from embodied_rl.core.stillness import Stillness
from embodied_rl.core.window import Sample
from embodied_rl.nodes import messages, qos
from embodied_rl.nodes.connections import DISCOVERY_S
from embodied_rl.nodes.ros_clock import RosClock
from embodied_rl.nodes.stop_input import OwnStop

if TYPE_CHECKING:
    from embodied_rl.nodes.command_gate_node import CommandGateNode

# Silence is called after 1.5 periods and looked for ten times a period, so that even a policy that
# died right after a heartbeat is noticed within 2 periods.
SILENCE_PERIODS = 1.5
CHECKS_PER_PERIOD = 10
CLOCKS_APART_NS = 200_000_000  # a sensor's clock against ours, its way here included
LEAST_STALL_S = 0.25
LARGEST_STATE = 65_536  # bytes of a message with the measured state
FIRST_WAIT_S, LONGEST_WAIT_S, CALM_S = 1.0, 10.0, 2.0  # after joints that did not follow
STALLED_PERIODS = 3  # without a look at the timer: the process itself stood still
ALIVE_S = 1.0  # a required node is heard at least so often
CHECK_S = 0.02  # the graph is not asked more often who listens and who speaks
BLIND_S = 1.0  # so long a hold is repeated to a robot that is not measured any more
REPEAT_NS = 20_000_000  # a hold is not repeated faster than this
CLOSING_S = 8.0  # most that the last ramp may take


class RealtimeGate:
    """Everything of the gate that runs by the clock."""

    def __init__(self, node: CommandGateNode, required_alive: list[str]):
        self._node, self._gate, self._output = node, node.gate, node.output
        self._period_ns = node.embodiment.period_ns
        self._streams = node.embodiment.streams
        self.watch = AgreedState(node.embodiment)
        self._clock = RosClock(node)
        self._still = Stillness(node.embodiment)
        self._own_stop = OwnStop(node, node.embodiment)
        self._series: dict[tuple[str, ...], Series] = {}  # stream (and its joints) -> numbers
        self._stamps: dict[str, int] = {}
        self._ahead_ns = {
            key: max(2 * self._period_ns, round(command.send_ahead_s * NANOSECONDS))
            for key, command in node.embodiment.commands.items()
        }
        self._stepped_tick_ns = self._repeated_ns = 0
        # command group -> chunk that it was sent targets of, and when it is sent the next ones
        self._sent: dict[str, tuple[int, int]] = {}
        self._stands_since_s = 0.0
        self._push_s, self._wait_s = 0.0, FIRST_WAIT_S  # until when it is not tried again
        self._begun_s = self._checked_s = self._looked_s = time.monotonic()
        self.trouble = self.alarm = ""
        now_s = time.monotonic()
        self._alive_s = dict.fromkeys(required_alive, now_s)
        for topic in required_alive:
            node.create_subscription(
                Header, topic, lambda _, topic=topic: self._heard(topic), qos.best_effort(1)
            )
        steady = SteadyClock(clock_type=ClockType.STEADY_TIME)
        period_s = self._period_ns / 1e9
        self._silence_s = SILENCE_PERIODS * period_s
        node.create_timer(period_s / CHECKS_PER_PERIOD, self._on_timer, clock=steady)

    def _heard(self, topic: str) -> None:
        self._alive_s[topic] = time.monotonic()

    # What comes in

    def on_state(self, group: list[Stream], data: bytes, info) -> None:
        """Take the measured state; two samples must agree before it counts."""
        now_ns = self._now()
        number = info.get("publication_sequence_number")
        if len(data) > LARGEST_STATE:  # to decode it takes longer than a stop may
            self._node.complain(
                f"{group[0].topic}: expected at most {LARGEST_STATE} bytes, saw {len(data)}"
            )
            return
        message = deserialize_message(data, messages.message_class(group[0].type))
        for stream in group:
            try:
                decoded = self._node.decoders[stream.key](message, now_ns)
                sample = self._dated(stream, decoded, now_ns, info)
            except NotForThisStream:  # of other joints
                continue
            except UserError as error:
                self._node.complain(str(error))
                continue
            if sample is not None:
                # parts of a split stream may have a publisher each
                part = (stream.key, *(message.name if stream.split else ()))
                self._series.setdefault(part, Series()).saw(number, time.monotonic())
                self.watch.add(stream.key, sample)
        self._look_at_the_robot(now_ns)

    def _dated(self, stream: Stream, sample: Sample, now_ns: int, info) -> Sample | None:
        """The sample by the time of its arrival, so that a driver whose clock is a little apart
        does not look old; None for one that repeats a stamp.

        Raises:
            MessageError: the stamp is too far from the arrival.
        """
        if self._stamps.get(stream.key) == sample.stamp_ns:
            return None
        self._stamps[stream.key] = sample.stamp_ns
        if self._clock.simulated:
            return sample
        waited_ns = max(0, time.time_ns() - int(info.get("received_timestamp") or 0))
        arrived_ns = now_ns - (waited_ns if waited_ns < 60 * NANOSECONDS else 0)
        if abs(arrived_ns - sample.stamp_ns) > CLOCKS_APART_NS:
            side = "behind" if sample.stamp_ns < arrived_ns else "ahead of"
            raise MessageError(
                f"{stream.topic}: expected a stamp within {CLOCKS_APART_NS / 1e9:g} s of its "
                f"arrival, saw one further {side} it: are the clocks of the machines "
                "synchronised, or is the driver late?"
            )
        return Sample(arrived_ns, sample.value)

    def _look_at_the_robot(self, now_ns: int) -> None:
        measured = self.watch.newest()
        if measured is None:
            return
        now_s = time.monotonic()
        if self._gate.standing:
            if self._stale(now_ns):
                self._still.begin(self._stands_since_s)  # nobody sees whether it stands
            else:
                self._still.saw(now_s, measured)
        if self._node.dry_run:  # then no joint follows
            return
        error = self._gate.following_error(self.watch.stamps_ns(), measured)
        if error:
            self._hold(now_ns, error, measured)
            # A robot that is held by somebody must not be pushed again with every chunk.
            calm = now_s - self._push_s > CALM_S
            self._wait_s = FIRST_WAIT_S if calm else min(2 * self._wait_s, LONGEST_WAIT_S)
            self._push_s = now_s + self._wait_s

    def on_chunk(self, chunk: ActionChunk) -> None:
        now_ns = self._now()
        self._check()
        try:
            reason = self.trouble or self._node.policy.refusal
            if not reason and time.monotonic() < self._push_s:
                reason = f"the robot did not follow; it is tried again {self._wait_s:g} s later"
            if reason:
                self._gate.counts["refused"] += 1
                raise UserError(f"policy/chunk: not carried out: {reason}")
            measured = None
            if self._gate.state is not GateState.FOLLOWING:
                measured = self._known(now_ns)
                if not self._gate.started:
                    self._gate.start_from_rest(now_ns, measured)
            limited = self._gate.accept(chunk, now_ns, measured)
        except UserError as error:
            self._node.complain(str(error))
            return
        if limited is None:
            return
        self._node.record(limited)
        self._send_ahead(now_ns)
        self._step(now_ns)

    def on_stop(self, wanted: bool) -> None:
        """The emergency stop comes into force, or ends."""
        now_ns = self._now()
        if not wanted:
            self._own_stop.end()
            self._output.release()
            self.watch.reset(now_ns)  # whoever releases a stop has looked at the robot
            self._push_s = 0.0
            if self._gate.started and not self._gate.moving:
                self._gate.come_to("")  # every joint goes on from where it is then
            return
        self._own_stop.begin()
        measured = self._fresh(now_ns)
        self._output.stop(measured)
        if not self._gate.started and measured is not None:
            self._gate.start_from_rest(now_ns, measured)
        still = self._gate.stop(now_ns, measured)
        if still is not None:
            self._node.record(still)
        self._begin_to_stand(now_ns)

    def forget(self, reason: str) -> None:
        """An episode begins: what was said so far counts no more, and a robot in motion stops."""
        now_ns = self._now()
        if self._gate.state is GateState.FOLLOWING or self._gate.moving:
            self._hold(now_ns, reason)

    # The clock

    def advance(self) -> None:
        """A heartbeat has come: one that refuses leads to a hold at once."""
        if self._node.policy.refusal and self._gate.state is GateState.FOLLOWING:
            self._hold(self._now(), self._node.policy.refusal)

    def _now(self) -> int:
        """The time; a leap of the clock is dealt with before anything else is decided."""
        now_ns, leap_ns = self._clock.look()
        if leap_ns:
            self._gate.set_clock(self._clock.before_ns, now_ns)
            self._clock.settle(now_ns)
            self._stepped_tick_ns = self._repeated_ns = 0
            self._stamps.clear()
            self.watch.reset(now_ns)
            if self._gate.state is GateState.FOLLOWING or self._gate.moving:
                way = "forward" if leap_ns > 0 else "back"
                self._hold(now_ns, f"the clock was set {way} by {abs(leap_ns) / 1e9:.3g} s")
        return now_ns

    def _on_timer(self) -> None:
        now_ns, now_s = self._now(), time.monotonic()
        stalled_s, self._looked_s = now_s - self._looked_s, now_s
        if stalled_s > max(STALLED_PERIODS * self._period_ns / 1e9, LEAST_STALL_S):
            self._after_a_stall(now_ns, stalled_s)
        if now_s - self._checked_s >= self._period_ns / 1e9:
            self._check()
        if self._gate.state is GateState.FOLLOWING:
            reason = self._reason_to_hold(now_ns, now_s)
            if reason:
                self._hold(now_ns, reason)
            else:
                self._send_ahead(now_ns)
                self._step(now_ns)
        elif self._gate.standing:
            self._stand(now_ns, now_s)

    def _after_a_stall(self, now_ns: int, stalled_s: float) -> None:
        """The controllers have carried out all they had, and a base has stopped by itself: what was
        in force before must not go on."""
        reason = f"the gate itself stood still for {stalled_s:.1f} s"
        if not self._gate.started:
            return
        if stalled_s * NANOSECONDS < VELOCITY_LASTS_NS:  # a base is still on its way
            if self._gate.state is GateState.FOLLOWING:
                self._hold(now_ns, reason)
            return
        self._gate.come_to(reason)
        self.watch.reset(now_ns)
        self._begin_to_stand(now_ns)
        self._node.announce(f"holding: {reason}")

    def _reason_to_hold(self, now_ns: int, now_s: float) -> str:
        silent_s = self._node.policy.silent_s(now_s)
        if silent_s > self._silence_s:
            return f"no heartbeat of the policy for {silent_s * 1e3:.0f} ms"
        if self._node.policy.refusal:
            return self._node.policy.refusal
        if self._gate.ends_before(now_ns - self._period_ns):
            # Between the end of one chunk and the arrival of the next the robot keeps its last
            # target; a whole period later nothing is coming any more.
            return "the chunk has run out"
        if stale := self._stale(now_ns):
            return f"{stale.topic}: no sound sample of '{stale.key}' within {stale.max_age_s:g} s"
        return self.trouble

    def _check(self) -> None:
        """Look for everything that is worth a look once a control period."""
        now_s = time.monotonic()
        if now_s - self._checked_s < CHECK_S:
            return
        self._checked_s = now_s
        before, self.trouble = self.trouble, self._find_trouble(now_s)
        if self.trouble and self.trouble != before and now_s - self._begun_s > DISCOVERY_S:
            self._node.complain(self.trouble)
        before, self.alarm = self.alarm, ""
        if self._gate.standing:
            moving = self._still.alarm(now_s)
            self.alarm = "; ".join(line for line in (moving, self._own_stop.trouble) if line)
        if self.alarm and self.alarm != before:
            self._node.complain(self.alarm)

    def _find_trouble(self, now_s: float) -> str:
        for topic, heard_s in self._alive_s.items():
            if now_s - heard_s > ALIVE_S:
                return f"nothing on {topic} for more than {ALIVE_S:g} s: has its node ended?"
        for part, series in self._series.items():
            if series.mixed(now_s):
                topic = self._streams[part[0]].topic
                return f"{topic}: two publishers tell the same joints ('{part[0]}')"
        for key in self.watch.keys:
            if key in self.watch.leapt:
                return (
                    f"{self._streams[key].topic}: '{key}' tells another place from one sample to "
                    "the next, which no joint can reach; if it is true, call "
                    "command_gate_node/reset_episode"
                )
        return self._output.trouble()

    def _stale(self, now_ns: int) -> Stream | None:
        """A stream whose newest believed sample is too old."""
        for key in self.watch.keys:
            stream = self._streams[key]
            if now_ns - self.watch.stamp_ns(key) > stream.max_age_ns + stream.period_ns:
                return stream
        return None

    # What goes out

    def _send_ahead(self, now_ns: int) -> None:
        """The next targets of controllers that follow trajectories: of a new chunk at once, then
        again when half of what was sent is over. A controller begins each trajectory where the
        joint is, a little behind, so more often than needed would slow it down."""
        measured, measured_ns = self._fresh(now_ns), self.watch.stamps_ns()
        chunk_ns = self._gate.chunk_stamp_ns
        for key in self._output.trajectories:
            sent_chunk_ns, again_ns = self._sent.get(key, (0, 0))
            if chunk_ns == sent_chunk_ns and now_ns < again_ns:
                continue
            ahead_ns = self._ahead_ns[key]
            ahead = self._gate.ahead(now_ns, ahead_ns, measured, measured_ns)
            if ahead is None:
                continue
            tick_ns = now_ns // self._period_ns * self._period_ns
            again_ns = tick_ns + max(self._period_ns, ahead_ns // 2)
            self._sent[key] = (chunk_ns, again_ns)
            self._output.send_from_now(ahead, now_ns, [key])

    def _step(self, now_ns: int) -> None:
        """Tell the actuators that take one target a period theirs, once."""
        tick_ns = now_ns // self._period_ns * self._period_ns
        following = self._gate.state is GateState.FOLLOWING
        if tick_ns <= self._stepped_tick_ns or (following and self._gate.ends_before(tick_ns)):
            return
        self._stepped_tick_ns = tick_ns
        target = self._gate.next_target(tick_ns)
        self._output.send(target, self._output.stepped)
        if not following and self._gate.moving:
            self._node.record(target)

    def _hold(self, now_ns: int, reason: str, measured: np.ndarray | None = None) -> None:
        if not self._gate.started:
            return
        measured = self._fresh(now_ns) if measured is None else measured
        self._node.record(self._gate.hold(now_ns, reason, measured))
        self._begin_to_stand(now_ns)
        self._node.announce(f"holding: {reason}")

    def _begin_to_stand(self, now_ns: int) -> None:
        now_s = self._stands_since_s = time.monotonic()
        self._still.begin(now_s)
        self._repeated_ns = 0
        if self._gate.started:
            self._stand(now_ns, now_s)
        else:
            self._own_stop.call(now_s)

    def _stand(self, now_ns: int, now_s: float) -> None:
        """Repeat the hold or the stop that is in force, until the measured joints confirm it."""
        stopped = self._gate.state is GateState.STOPPED
        if stopped:
            self._own_stop.call(now_s)
        measured = self._fresh(now_ns)
        if not self._gate.started:
            if measured is None:
                self._rest_bases(now_ns)
                return
            self._gate.start_from_rest(now_ns, measured)
            self._node.record(self._gate.hold(now_ns, self._gate.reason, measured))
        if self._gate.moving:
            self._step(now_ns)
        elif self._still.confirmed and not stopped:
            return
        every_ns = max(self._period_ns, REPEAT_NS)
        if 0 <= now_ns - self._repeated_ns < every_ns:
            return
        self._repeated_ns = now_ns
        if measured is not None and self._gate.elsewhere(now_ns, measured):
            self._node.record(self._gate.hold(now_ns, self._gate.reason, measured))
        # Joints that nobody has seen for a while may be anywhere when they come back; to a base,
        # zero is always right.
        blind = measured is None and now_s - self._stands_since_s > BLIND_S
        self._send_hold(now_ns, measured, self._output.bases if blind else self._output.all)

    def _rest_bases(self, now_ns: int) -> None:
        """Zero, which is right for a base that nobody measures too."""
        if 0 <= now_ns - self._repeated_ns < max(self._period_ns, REPEAT_NS):
            return
        self._repeated_ns = now_ns
        tick_ns = now_ns // self._period_ns * self._period_ns
        zero = np.zeros((1, self._node.embodiment.action_dim))
        self._output.send(ActionChunk(tick_ns, self._period_ns, zero), self._output.bases)

    def _known(self, now_ns: int) -> np.ndarray:
        """The measured state, from which a chunk begins; raises UserError where it is not known."""
        measured = self._fresh(now_ns)
        if measured is None:
            stale = self._stale(now_ns)
            missing = stale.key if stale is not None else self.watch.keys[0]
            raise UserError(f"measured state: stream '{missing}' is missing or too old")
        return measured

    def _fresh(self, now_ns: int) -> np.ndarray | None:
        """The measured state, if every part of it is."""
        return None if self._stale(now_ns) else self.watch.newest()

    def _send_hold(self, now_ns: int, measured: np.ndarray | None, keys: Sequence[str]) -> None:
        """Where the joints stay, to be reached within their limits; what takes one target a period
        is told it with every repetition, but for a base on its way to rest."""
        way_ns = self._gate.way_ns(now_ns, measured)
        target = self._gate.held(now_ns)
        hold = ActionChunk(now_ns, max(self._period_ns, way_ns), target[None])
        gliding = [key for key in self._output.trajectories if key in keys]
        self._output.send_from_now(hold, now_ns, gliding)
        if not self._gate.moving:
            tick_ns = now_ns // self._period_ns * self._period_ns
            stepped = [key for key in self._output.stepped if key in keys]
            self._output.send(ActionChunk(tick_ns, self._period_ns, target[None]), stepped)

    def close(self) -> None:
        """A hold as the last word, and a base led to rest, before the node ends."""
        if not self._gate.started or self._gate.state is GateState.WAITING:
            return
        begun_s, begun_ns = time.monotonic(), self._clock.now_ns()
        if self._gate.state is GateState.FOLLOWING:
            self._hold(begun_ns, "the gate is ending")
        repeats = 0
        while (self._gate.moving or repeats < 3) and time.monotonic() - begun_s < CLOSING_S:
            time.sleep(self._period_ns / 2e9)
            # not the node's own clock: simulated time stands still when nobody listens any more
            now_ns = begun_ns + int((time.monotonic() - begun_s) * 1e9)
            self._stand_at_the_end(now_ns)
            repeats += 1

    def _stand_at_the_end(self, now_ns: int) -> None:
        if self._gate.moving:
            self._step(now_ns)
        self._send_hold(now_ns, None, self._output.all)

    def figures(self) -> dict[str, object]:
        """For the diagnostics."""
        found: dict[str, object] = {
            "stands_confirmed": self._gate.standing and self._still.confirmed,
            "doubted_samples": self.watch.doubted,
        }
        return found | {f"stop.{name}": said for name, said in self._own_stop.results.items()}
