"""Subscriptions to the streams of an embodiment: decode, refuse, count and measure their rates."""

from __future__ import annotations

import functools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from embodied_rl.core.decode import StreamDecoder
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import MessageError, NotForThisStream, UserError
from embodied_rl.core.window import Sample
from embodied_rl.nodes import messages, qos
from embodied_rl.nodes.connections import DISCOVERY_S
from embodied_rl.nodes.lifecycle import NotYet
from embodied_rl.nodes.subscriber import Subscriber

RATE_WINDOW_NS = 2 * NANOSECONDS
LOWEST_SHARE = 0.8  # of the declared rate, below which a policy must not be started
FUTURE_PERIODS = 2  # control periods that a stamp may lie ahead of the clock


@dataclass
class StreamMeter:
    """What has been seen of one stream."""

    stream: Stream
    stamps: deque[int] = field(default_factory=lambda: deque(maxlen=4096))
    received: int = 0
    refused: int = 0
    others: int = 0  # messages with nothing for this stream, of a topic that several share
    last_refusal: str = ""
    last_other: str = ""

    def count(self, stamp_ns: int) -> None:
        if self.stamps and stamp_ns < self.stamps[-1]:
            self.stamps.clear()  # a clock set back, or disorder: measure anew
        self.stamps.append(stamp_ns)
        self.received += 1
        while self.stamps[-1] - self.stamps[0] > RATE_WINDOW_NS:
            self.stamps.popleft()

    def rate_hz(self) -> float:
        """Messages a second over the last two seconds of stamps; 0 before the second message."""
        span = self.stamps[-1] - self.stamps[0] if self.stamps else 0
        return (len(self.stamps) - 1) * NANOSECONDS / span if span else 0.0

    def measured_s(self) -> float:
        return (self.stamps[-1] - self.stamps[0]) / NANOSECONDS if self.stamps else 0.0

    @property
    def delivered(self) -> float:
        """Measured share of the declared rate."""
        return self.rate_hz() / self.stream.rate_hz


class StreamInput:
    """Subscribes to the topics of the named streams and hands on each sound sample.

    Args:
        node: whose executor runs the callbacks.
        receive: called with (key, sample, arrival) on that executor's thread; the arrival is the
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
        streams = embodiment.require(keys)
        self.meters = {key: StreamMeter(stream) for key, stream in streams.items()}
        self._decoders = {key: StreamDecoder(stream) for key, stream in streams.items()}
        self.notes: Counter[str] = Counter()
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
        arrival_s = time.perf_counter()
        now_ns = messages.now_ns(self._node)
        latest_ns = now_ns + self._ahead_ns
        for stream in group:
            meter = self.meters[stream.key]
            try:
                sample = self._decoders[stream.key](message, now_ns)
                if sample.stamp_ns > latest_ns:
                    ahead_s = (sample.stamp_ns - latest_ns) / NANOSECONDS
                    raise MessageError(
                        f"{stream.topic}: expected a stamp not after the clock, "
                        f"saw one {ahead_s:.3f} s ahead"
                    )
            except NotForThisStream as error:
                meter.others += 1
                meter.last_other = str(error)
                continue
            except MessageError as error:
                self._refuse(meter, str(error))
                continue
            meter.count(sample.stamp_ns)
            joints = stream.wire_joints
            if joints and not stream.split and tuple(message.name[: len(joints)]) != joints:
                self._note_order(stream, message)
            self._receive(stream.key, sample, arrival_s)

    def _refuse(self, meter: StreamMeter, reason: str) -> None:
        if meter.last_refusal != reason:
            self._node.get_logger().error(f"refused: {reason}")
        meter.refused += 1
        meter.last_refusal = reason

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
                raise refusal(
                    f"stream '{stream.key}' on {stream.topic}: expected {stream.rate_hz:g} Hz, "
                    f"saw {meter.received} messages{because}"
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

    def figures(self) -> dict[str, object]:
        found: dict[str, object] = dict(self.notes)
        for key, meter in self.meters.items():
            found[f"{key}.rate_hz"] = round(meter.rate_hz(), 2)
            found[f"{key}.delivered"] = round(meter.delivered, 3)
            if meter.refused:
                found[f"{key}.refused"] = meter.refused
                found[f"{key}.last_refusal"] = meter.last_refusal
        return found
