"""A service whose answer comes later, from another thread, while the executor goes on.

A coroutine would do the same in name, but this rclpy asks a waiting one again and again and takes
one message a turn meanwhile, so that cameras lose images.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.node import Node
from rclpy.service import Service


def create_deferred_service(
    node: Node, kind: Any, name: str, callback: Callable[[Any], Future]
) -> Service:
    """
    Args:
        callback: called on the executor's thread with the request; the future that it returns is
            given the response, never an exception, by any thread before the service is destroyed.
    """
    service = node.create_service(kind, name, lambda request, _: callback(request))
    send = service.send_response

    def send_when_done(answer: Future, header: Any) -> None:
        answer.add_done_callback(lambda done: send(done.result(), header))

    service.send_response = send_when_done  # type: ignore[method-assign, assignment]
    return service
