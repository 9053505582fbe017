"""The ROS clock of a node on a robot, and whether it leaps."""

from __future__ import annotations

import time

from rclpy.node import Node

from embodied_rl.nodes import messages

BACK_NS = 20_000_000  # a system clock is slewed by less between two looks at it
SIM_FORTH_NS = 1_000_000_000  # simulated time may catch up after a stall
FORTH_NS = 50_000_000
TOGETHER_S, TRIES = 0.002, 5  # two clocks are read at one time within so much


class RosClock:
    """Reads the ROS clock beside the steady one, against which a leap shows."""

    def __init__(self, node: Node):
        self._node = node
        self._simulated = bool(node.get_parameter("use_sim_time").value)
        self._forth_ns = SIM_FORTH_NS if self._simulated else FORTH_NS
        self.before_ns = 0  # ROS time of the last look, or of when the clock leapt
        self._steady_s = time.monotonic()

    @property
    def simulated(self) -> bool:
        return self._simulated

    def now_ns(self) -> int:
        return messages.now_ns(self._node)

    def look(self) -> tuple[int, int]:
        """``(now_ns, leap_ns)``: the time, and by how much the clock has leapt since the last look,
        beyond the time that has passed; 0 as a rule. After a leap ``before_ns`` is what the clock
        would show without it."""
        for _ in range(TRIES):
            begun_s = time.monotonic()
            now_ns, steady_s = self.now_ns(), time.monotonic()
            if steady_s - begun_s < TOGETHER_S:
                break
        else:  # the process was put aside between the two, again and again: no look at all
            return now_ns, 0
        passed_ns = int((steady_s - self._steady_s) * 1e9)
        expected_ns = self.before_ns + (min(passed_ns, 0) if self._simulated else passed_ns)
        first = self.before_ns == 0
        off_ns = now_ns - expected_ns
        self._steady_s = steady_s
        if not first and (off_ns < -BACK_NS or off_ns > self._forth_ns + self._slack(passed_ns)):
            self.before_ns = expected_ns
            return now_ns, off_ns
        self.before_ns = now_ns
        return now_ns, 0

    def _slack(self, passed_ns: int) -> int:
        return passed_ns if self._simulated else 0

    def settle(self, now_ns: int) -> None:
        """A leap has been dealt with."""
        self.before_ns = now_ns
