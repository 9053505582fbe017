"""A run of the clock within a bag: its rows, its commands, and how its log times are dated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from embodied_rl.bags.actions import ActionLog
from embodied_rl.bags.clock import StampClock
from embodied_rl.core.policy import Outcome
from embodied_rl.core.window import Sample


@dataclass(frozen=True)
class Samples:
    """The streams of one message by key, and the message's place among all of the bag."""

    items: list[tuple[str, Sample]]
    number: int
    log_ns: int


@dataclass
class Segment:
    """Rows between two jumps of the clock: ``rows`` from ``first`` on, and their commands."""

    first: int
    commands: ActionLog
    clock: StampClock
    anchored: bool = False  # begins at the start that the bag declares
    stamps_ns: list[int] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)  # (A,) measured at each row, if asked
    outcome: Outcome | None = None

    @property
    def span_ns(self) -> int:
        return self.stamps_ns[-1] - self.stamps_ns[0] if self.stamps_ns else 0
