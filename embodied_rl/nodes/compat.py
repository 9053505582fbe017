"""What differs between the distributions, Humble (rclpy 3.3) to Kilted (9.1); no other file asks.

The rest of what the nodes use is the same in all of them; a test holds every imported name against
the rclpy that is installed, and against the sources of another one where they are at hand.
"""

from __future__ import annotations

from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ModuleNotFoundError:  # its name until Iron
    from rclpy.qos_event import SubscriptionEventCallbacks

__all__ = ["SubscriptionEventCallbacks", "matched_publishers"]


def matched_publishers(subscription: Subscription, discovered: int) -> int:
    """How many publishers the middleware has matched with a subscription.

    Humble does not tell; there those that have been discovered count, which is the same except for
    the moment between the two and for publishers that do not fit.
    """
    with subscription.handle:
        count = getattr(subscription.handle, "get_publisher_count", None)
        return discovered if count is None else int(count())
