"""Subscriptions to the transforms that stay (``tf_static``), for streams of tf."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.node import Node

from embodied_rl.core.streams import Stream
from embodied_rl.nodes import messages, qos
from embodied_rl.nodes.subscriber import Subscriber

DEPTH = 100  # every publisher of fixed transforms has a message of its own


def static_subscribers(
    node: Node, streams: Iterable[Stream], latch: Callable[[list[Stream], Any], None]
) -> list[Subscriber]:
    """One for each topic with fixed transforms.

    Args:
        latch: called with the streams of a topic and its message.
    """
    by_topic: dict[str, list[Stream]] = {}
    for stream in streams:
        if stream.static_topic:
            by_topic.setdefault(stream.static_topic, []).append(stream)
    return [
        Subscriber(
            node,
            messages.message_class(group[0].type),
            topic,
            functools.partial(latch, group),
            qos.latched(DEPTH),
        )
        for topic, group in by_topic.items()
    ]
