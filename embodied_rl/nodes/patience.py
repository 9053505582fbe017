"""Waiting for another node: up to a limit, or as long as it takes where slowness is no fault."""

from __future__ import annotations

import time

from rclpy.node import Node

from embodied_rl.core.errors import UserError

TELL_EVERY_S = 10.0


class Patience:
    """One wait, from its construction on.

    Args:
        limit_s: wall clock; None where time is simulated step by step: a busy machine then changes
            the speed of a run and nothing else, and the bring-up ends it when a node dies.
    """

    def __init__(self, node: Node, limit_s: float | None):
        self._node, self._limit_s = node, limit_s
        self._began_s = self._told_s = time.monotonic()

    def check(self, problem: str) -> None:
        """Called while the wait goes on; `problem` says what is not there yet, and is told now and
        then.

        Raises:
            UserError: the limit has passed; `problem` is the beginning of the line.
        """
        now_s = time.monotonic()
        if self._limit_s is not None and now_s > self._began_s + self._limit_s:
            raise UserError(f"{problem} within {self._limit_s:g} s")
        if now_s > self._told_s + TELL_EVERY_S:
            self._told_s = now_s
            self._node.get_logger().info(
                f"waiting for {now_s - self._began_s:.0f} s so far: {problem}"
            )
