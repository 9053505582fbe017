"""The state of a node on ``/diagnostics``, once a second and at once when it gets worse."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from embodied_rl.nodes import qos

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
Status = tuple[bytes, str, Mapping[str, object]]


class Diagnostics:
    """Publishes what ``state()`` returns: level, one line, and named figures."""

    def __init__(self, node: Node, state: Callable[[], Status]):
        self._node, self._state = node, state
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        # A steady timer: with the simulation paused the state must still be seen.
        self._timer = node.create_timer(
            1.0, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def publish(self) -> None:
        level, message, figures = self._state()
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message=message,
            hardware_id="",
            values=[KeyValue(key=key, value=str(value)) for key, value in figures.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


class Percentiles:
    """The last ``size`` durations, for p50 and p95."""

    def __init__(self, size: int = 1000):
        self.values_ms: deque[float] = deque(maxlen=size)

    def add(self, milliseconds: float) -> None:
        self.values_ms.append(milliseconds)

    def clear(self) -> None:
        self.values_ms.clear()

    def figures(self, name: str) -> dict[str, float]:
        """``{name_p50_ms, name_p95_ms}``, or nothing while there is nothing to report."""
        if not self.values_ms:
            return {}
        p50, p95 = np.percentile(list(self.values_ms), [50, 95])
        return {f"{name}_p50_ms": round(float(p50), 3), f"{name}_p95_ms": round(float(p95), 3)}
