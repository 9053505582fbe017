"""Subscriptions to the streams of an embodiment: decode, refuse, count and measure their rates."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from embodied_rl.core.decode import StreamDecoder
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import MessageError, NotForThisStream, UserError
from embodied_rl.core.window import Sample
from embodied_rl.nodes import messages, qos
from embodied_rl.nodes.connections import DISCOVERY_S, silence_hint
from embodied_rl.nodes.lifecycle import NotYet
from embodied_rl.nodes.static_frames import static_subscribers
from embodied_rl.nodes.stream_meter import LOWEST_SHARE, StreamMeter
from embodied_rl.nodes.subscriber import Subscriber

FUTURE_PERIODS = 2  # control periods that a stamp may lie ahead of the clock


class StreamInput:
    """Subscribes to the topics of the named streams and hands on each sound sample.

    Args:
        node: whose executor runs the callbacks.
        receive: called with (key, sample, arrival) on that executor's thread, or on the one that
            calls :meth:`take_waiting`, never on two at once; the arrival is the
            ``time.perf_counter()`` at which the message's callback began.
        profile: quality of service for a message type.
        ahead_ns: how far a stamp may lie ahead of the clock; default two control periods.
    """

    def __init__(
        self,
        node: Node,
        embodiment: Embodiment,
        keys: Iterable[str],
        receive: Callable[[str, Sample, float], None],
        profile: Callable[[str], QoSProfile] = qos.stream,
        ahead_ns: int | None = None,
    ):
        self._node, self._receive = node, receive
        self._ahead_ns = FUTURE_PERIODS * embodiment.period_ns if ahead_ns is None else ahead_ns
        self._period_ns = embodiment.period_ns
        streams = embodiment.require(keys)
        self.meters = {key: StreamMeter(stream) for key, stream in streams.items()}
        self._decoders = {key: StreamDecoder(stream) for key, stream in streams.items()}
        self.notes: Counter[str] = Counter()
        self._lock = threading.Lock()  # held while one message is decoded and handed on
        self._patience_s = time.monotonic() + DISCOVERY_S
        by_topic: dict[str, list[Stream]] = {}
        for stream in streams.values():
            by_topic.setdefault(stream.topic, []).append(stream)
        self._subscribers = [
            Subscriber(
                node,
                messages.message_class(group[0].type),
                topic,
                functools.partial(self._on_message, group),
                profile(group[0].type),
            )
            for topic, group in by_topic.items()
        ]
        self._subscribers += static_subscribers(node, streams.values(), self._on_static)

    @property
    def subscriptions(self) -> list[Subscription]:
        return [subscriber.subscription for subscriber in self._subscribers]

    @property
    def lost(self) -> int:
        """Messages that the middleware had to drop."""
        return sum(subscriber.lost for subscriber in self._subscribers)

    def take_waiting(self) -> None:
        """Handle the messages that have arrived but were not dispatched yet."""
        for subscriber in self._subscribers:
            subscriber.take_waiting()

    def match(self) -> None:
        """Settle for what publishers offer, see :meth:`Subscriber.match`."""
        for subscriber in self._subscribers:
            subscriber.match()

    def close(self) -> None:
        for subscriber in self._subscribers:
            subscriber.destroy()

    def _on_message(self, group: list[Stream], message) -> None:
        arrival_s, now_ns = time.perf_counter(), messages.now_ns(self._node)
        with self._lock:
            self._take(group, message, arrival_s, now_ns)

    def _on_static(self, group: list[Stream], message) -> None:
        with self._lock:
            for stream in group:
                try:
                    self._decoders[stream.key].latch(message)
                except MessageError as error:
                    self._refuse(self.meters[stream.key], str(error))

    def _take(self, group: list[Stream], message, arrival_s: float, now_ns: int) -> None:
        for stream in group:
            meter = self.meters[stream.key]
            try:
                sample = self._decoders[stream.key](message, now_ns)
                ahead_ns = sample.stamp_ns - now_ns
                if ahead_ns > self._ahead_ns:
                    raise MessageError(
                        f"{stream.topic}: expected a stamp not after the clock, "
                        f"saw one {ahead_ns / NANOSECONDS:.3f} s ahead"
                    )
            except NotForThisStream as error:
                meter.others += 1
                meter.last_other = str(error)
                continue
            except MessageError as error:
                self._refuse(meter, str(error))
                continue
            meter.count(sample.stamp_ns, sample.value, now_ns)
            joints = stream.wire_joints
            if joints and not stream.split and tuple(message.name[: len(joints)]) != joints:
                self._note_order(stream, message)
            self._receive(stream.key, sample, arrival_s)

    def _refuse(self, meter: StreamMeter, reason: str) -> None:
        line = meter.refusals.note(reason)
        if line:
            self._node.get_logger().error(f"refused: {line}")

    def _note_order(self, stream: Stream, message) -> None:
        """Joints are found by name; an unexpected order is harmless, but worth a line."""
        positions = [list(message.name).index(joint) for joint in stream.wire_joints]
        if positions != sorted(positions):
            note = f"{stream.topic}: joints in another order, taken by name"
            self.notes[note] += 1

    def check_rates(self) -> None:
        """Raises UserError for the first stream that is missing or too slow to act upon."""
        self.match()
        for meter in self.meters.values():
            stream, last = meter.stream, meter.last_refusal
            because = f" ({meter.refused} refused, last: {last})" if last else ""
            if meter.others and not meter.received and not last:
                because = f" ({meter.others} others on this topic, last: {meter.last_other})"
            if meter.received < 2:
                refusal = NotYet if time.monotonic() < self._patience_s else UserError
                hint = silence_hint(self._node.count_publishers(stream.topic))
                raise refusal(
                    f"stream '{stream.key}' on {stream.topic}: expected {stream.rate_hz:g} Hz, "
                    f"saw {meter.received} messages{because}{hint}"
                )
            age_s = (messages.now_ns(self._node) - meter.stamps[-1]) / NANOSECONDS
            if age_s > stream.max_age_s + 1 / stream.rate_hz:
                raise UserError(
                    f"stream '{stream.key}' on {stream.topic}: expected a sample every "
                    f"{1 / stream.rate_hz:g} s, saw none for {age_s:.2f} s{because}"
                )
            if meter.measured_s() < min(1.0, 10 / stream.rate_hz):
                raise NotYet(
                    f"stream '{stream.key}' on {stream.topic}: its rate is still being measured"
                    f"{because}"
                )
            if meter.delivered < LOWEST_SHARE:
                raise UserError(
                    f"stream '{stream.key}' on {stream.topic}: expected at least "
                    f"{LOWEST_SHARE:.0%} of {stream.rate_hz:g} Hz, saw {meter.rate_hz():.1f} Hz"
                    f"{because}"
                )
            meter.slow = ""

    def unsound(self, moving_since_ns: int | None) -> str:
        """Why a policy must not act on these streams now: one is silent, slower than its bound, or
        stuck while the robot was told to move (see :meth:`StreamMeter.stuck`). Empty if none is."""
        now_ns = messages.now_ns(self._node)
        for meter in self.meters.values():
            line = (
                meter.silent(now_ns, self._period_ns) or meter.slow or meter.stuck(moving_since_ns)
            )
            if line:
                return line
        return ""

    def why_missing(self, keys: Iterable[str]) -> str:
        """One line for streams without a sample in time, with what is known of the reason."""
        parts = [f"{key}{self.meters[key].why_missing()}" for key in keys]
        return f"no sample of {', '.join(parts)} in time"

    def newest(self) -> dict[str, np.ndarray]:
        """The newest value of each stream that has one."""
        found = {key: meter.newest for key, meter in self.meters.items()}
        return {key: value for key, value in found.items() if value is not None}

    def figures(self, late: Mapping[str, int] | None = None) -> dict[str, object]:
        """
        Args:
            late: samples by stream that came after the row that needed them was built.
        """
        found: dict[str, object] = dict(self.notes)
        for key, meter in self.meters.items():
            found |= meter.figures((late or {}).get(key, 0))
        return found
