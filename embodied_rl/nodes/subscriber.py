"""A subscription that takes what there is: reliable if the publisher is, best effort if not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from embodied_rl.nodes.compat import SubscriptionEventCallbacks


class Subscriber:
    """Subscribes reliably; :meth:`match` settles for best effort where nothing better is offered.

    Many camera drivers publish best effort only, and a reliable subscription never hears them.
    ``lost`` counts the messages that never came: what the middleware says it had to drop, and what
    is missing in the numbers that a publisher gives its messages.

    Args:
        callback: called with the message, and with its ``info`` (a mapping) where that is asked
            for.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        topic: str,
        callback: Callable[..., None],
        profile: QoSProfile,
        raw: bool = False,
        info: bool = False,
    ):
        self._node, self._kind, self._topic = node, kind, topic
        self._callback, self._profile, self._raw, self._info = callback, profile, raw, info
        self._dropped = self._missing = self._falls = 0
        self._last_number: int | None = None
        self.subscription: Subscription = self._subscribe()

    def _subscribe(self) -> Subscription:
        return self._node.create_subscription(
            self._kind,
            self._topic,
            self._on_message,
            self._profile,
            raw=self._raw,
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
        )

    def _on_lost(self, event: Any) -> None:
        self._dropped = event.total_count

    @property
    def lost(self) -> int:
        return max(self._dropped, self._missing)

    def _on_message(self, message: Any, info: Any) -> None:
        self._count(info.get("publication_sequence_number"))
        if self._info:
            self._callback(message, info)
        else:
            self._callback(message)

    def _count(self, number: int | None) -> None:
        """Take a message's number; with several publishers the numbers tell nothing."""
        last, self._last_number = self._last_number, number
        if last is None or number is None:
            return
        if number <= last:
            self._falls += 1
            if self._falls > 1:
                self._missing = 0
        elif self._falls <= 1:
            self._missing += number - last - 1

    def take_waiting(self) -> int:
        """Handle what has arrived but was not dispatched yet; how many messages that was."""
        taken = 0
        while True:
            with self.subscription.handle:
                found = self.subscription.handle.take_message(self._kind, self._raw)
            if found is None:
                return taken
            self._on_message(*found)
            taken += 1

    def match(self) -> None:
        """Subscribe anew as best effort if a publisher has turned out to offer nothing better."""
        if self._profile.reliability == ReliabilityPolicy.BEST_EFFORT:
            return
        offers = self._node.get_publishers_info_by_topic(self.subscription.topic_name)
        if all(o.qos_profile.reliability != ReliabilityPolicy.BEST_EFFORT for o in offers):
            return
        self._node.get_logger().warning(f"{self._topic}: its publisher offers best effort only")
        self.destroy()
        self._profile = QoSProfile(
            history=self._profile.history,
            depth=self._profile.depth,
            reliability=ReliabilityPolicy.BEST_EFFORT,
        )
        self.subscription = self._subscribe()

    def destroy(self) -> None:
        self._node.destroy_subscription(self.subscription)
