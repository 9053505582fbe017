"""What has been seen of one stream: its rate, how late it comes, and whether it is stuck."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Stream
from embodied_rl.core.window import CLOCK_JUMP_NS
from embodied_rl.nodes.causes import Causes

RATE_WINDOW_NS = 2 * NANOSECONDS
LOWEST_SHARE = 0.8  # of the declared rate, below which a policy must not act
SOUND_SHARE = 0.85  # from which it may again
MOST_STAMPS = 8192
CLOCK_SET_BACK = 3  # so many stamps in a row that are far behind
SILENT_PERIODS = 1.5  # control periods beyond its maximum age that a stream may be silent


@dataclass
class StreamMeter:
    """What has been seen of one stream. One thread writes, any may read."""

    stream: Stream
    stamps: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_STAMPS))
    lateness_ms: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    received: int = 0
    others: int = 0  # messages with nothing for this stream, of a topic that several share
    last_other: str = ""
    refusals: Causes = field(default_factory=Causes)
    strays: int = 0  # stamps far behind the newest, in a row
    slow: str = ""  # why the stream is slower than a policy can act upon
    newest: np.ndarray | None = None
    same_since_ns: int = 0  # stamp from which on the value has been the same

    @property
    def refused(self) -> int:
        return self.refusals.count

    @property
    def last_refusal(self) -> str:
        return self.refusals.last

    def count(self, stamp_ns: int, value: np.ndarray, received_ns: int) -> None:
        self.received += 1
        if self.stamps and stamp_ns < self.stamps[-1] - CLOCK_JUMP_NS:
            self.strays += 1
            if self.strays < CLOCK_SET_BACK:
                return  # one that lost its way tells nothing of the rate
            self.stamps.clear()  # a clock set back: measure again
            self.slow = ""
        self.strays = 0
        if len(self.stamps) == MOST_STAMPS:
            self.stamps.popleft()
        self.stamps.insert(len(self.stamps) - self._after(stamp_ns), stamp_ns)
        while self.stamps[-1] - self.stamps[0] > RATE_WINDOW_NS:
            self.stamps.popleft()
        self.lateness_ms.append((received_ns - stamp_ns) / 1e6)
        if self.stream.stuck_after_s is not None and not (
            self.newest is not None
            and self.same_since_ns <= stamp_ns
            and np.array_equal(self.newest, value)
        ):
            self.same_since_ns = stamp_ns
        self.newest = value
        self._judge_rate()

    def _after(self, stamp_ns: int) -> int:
        """How many stamps are later: none, but where messages overtake each other."""
        count = 0
        for later_ns in reversed(self.stamps):
            if later_ns <= stamp_ns:
                break
            count += 1
        return count

    def _judge_rate(self) -> None:
        measured_s = self.measured_s()
        if measured_s < max(1.0, 5 / self.stream.rate_hz):
            return
        share = self.delivered
        if share >= SOUND_SHARE or (share >= LOWEST_SHARE and not self.slow):
            self.slow = ""
        elif not self.slow:  # the line stays as it is for as long as this lasts
            self.slow = (
                f"stream '{self.stream.key}' on {self.stream.topic}: expected at least "
                f"{LOWEST_SHARE:.0%} of {self.stream.rate_hz:g} Hz, saw {self.rate_hz():.1f} Hz"
            )

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

    def late_p95_ms(self) -> float | None:
        """How long after their stamps 95 % of the newest samples came; None before the first."""
        seen = list(self.lateness_ms)
        return float(np.percentile(seen, 95)) if seen else None

    def stuck(self, moving_since_ns: int | None) -> str:
        """Why the stream counts as stuck, where its file declares when it does: the same value
        for too long while the robot was told to move, since ``moving_since_ns`` (None: it is not).
        """
        limit_s, stream = self.stream.stuck_after_s, self.stream
        if limit_s is None or moving_since_ns is None or not self.stamps:
            return ""
        since_ns = max(self.same_since_ns, moving_since_ns)
        if self.stamps[-1] - since_ns <= limit_s * NANOSECONDS:
            return ""
        return (
            f"stream '{stream.key}' on {stream.topic}: stuck, the same value for more than "
            f"{limit_s:g} s (stuck_after_s) while the robot was told to move"
        )

    def silent(self, now_ns: int, control_period_ns: int) -> str:
        """Why the stream counts as silent, empty if it does not."""
        stream = self.stream
        limit_ns = stream.max_age_ns + round(SILENT_PERIODS * control_period_ns)
        if not self.stamps or now_ns - self.stamps[-1] <= limit_ns:
            return ""
        return (
            f"stream '{stream.key}' on {stream.topic}: no sample of the last {stream.max_age_s:g} s"
            f"{self.why_missing()}"
        )

    def why_missing(self) -> str:
        """What is known of the reason that no sample came in time, in brackets, or nothing."""
        late_ms, stream = self.late_p95_ms(), self.stream
        if self.last_refusal:
            return f" ({self.refused} refused, last: {self.last_refusal})"
        if late_ms is not None and late_ms > stream.max_age_s * 1e3:
            return f" (its samples come {late_ms / 1e3:.2g} s after their stamps)"
        return ""

    def figures(self, late: int) -> dict[str, object]:
        """
        Args:
            late: samples that came after the row that needed them was built.
        """
        key = self.stream.key
        found: dict[str, object] = {
            f"{key}.rate_hz": round(self.rate_hz(), 2),
            f"{key}.delivered": round(self.delivered, 3),
        }
        p95_ms = self.late_p95_ms()
        if p95_ms is not None:
            found[f"{key}.late_p95_ms"] = round(p95_ms, 1)
        if late:
            found[f"{key}.late_samples"] = late
        if late and p95_ms is not None and p95_ms > self.stream.latency_s * 1e3:
            found[f"{key}.hint"] = f"declare latency_s: {np.ceil(p95_ms / 5) * 0.005:.3g}"
        if self.refused:
            found[f"{key}.refused"] = self.refused
            found[f"{key}.last_refusal"] = self.last_refusal
        return found
