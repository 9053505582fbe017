"""Whether what a robot shows lies where a policy was trained.

A network answers anything with confidence, so an observation far from all that it was trained on
(a wrist one turn off, a tool pose in another frame) must be noticed outside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from embodied_rl.core.embodiment import Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Policy, Ranged
from embodied_rl.core.window import Observation

# Beyond the range by this share of its width, an observation is outside, and far outside. A number
# that hardly moved in training has a width of nothing, so each margin has a floor in its unit.
OUTSIDE, FAR = 0.1, 1.0
LEAST_OUTSIDE, LEAST_FAR = 0.02, 0.1


class TrainingRange:
    """Counts observations outside the range of a policy's training data.

    Args:
        policy: one that is not :class:`~embodied_rl.core.policy.Ranged` has no range, and nothing
            is ever outside it.
    """

    def __init__(self, policy: Policy, embodiment: Embodiment):
        self.streams = embodiment.require(policy.spec.streams)
        self._ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if isinstance(policy, Ranged):
            self._ranges = dict(policy.observed_range())
        self.clear()

    def clear(self) -> None:
        self.outside: Counter[str] = Counter()  # rows by stream
        self._line = ""

    def saw(self, observation: Observation) -> None:
        """Count what is outside in one row."""
        self._line = ""
        for key in self._ranges:
            if observation.valid[key]:
                line = self._beyond(key, observation.values[key], OUTSIDE, LEAST_OUTSIDE)
                self.outside[key] += bool(line)
                self._line = self._line or line

    @property
    def warning(self) -> str:
        """What of the newest row is outside, in one line, or nothing."""
        return self._line

    def figures(self) -> dict[str, object]:
        return {f"{key}.outside_training": n for key, n in self.outside.items() if n}

    def require(self, values: Mapping[str, np.ndarray]) -> None:
        """Refuse to begin far outside.

        Args:
            values: the newest value of each stream.

        Raises:
            UserError: names stream, joint, value and range.
        """
        for key in self._ranges.keys() & values.keys():
            line = self._beyond(key, values[key], FAR, LEAST_FAR)
            if line:
                raise UserError(f"{line}; move the robot there or check the stream")

    def _beyond(self, key: str, value: np.ndarray, share: float, least: float) -> str:
        """The number of a stream that is furthest beyond its range and margin, or nothing."""
        low, high = (np.asarray(end, dtype=np.float64).reshape(-1) for end in self._ranges[key])
        seen = np.asarray(value, dtype=np.float64).reshape(-1)
        margin = np.maximum(share * (high - low), least)
        beyond = np.maximum(low - seen, seen - high) - margin
        place = int(np.argmax(beyond))
        if beyond[place] <= 0:
            return ""
        stream = self.streams[key]
        return (
            f"stream '{key}' on {stream.topic}: {_name(stream, place)}: expected {low[place]:.3g} "
            f"to {high[place]:.3g} as in training, saw {seen[place]:.3g} {stream.unit}".rstrip()
        )


def _name(stream: Stream, place: int) -> str:
    names = stream.components
    return names[place] if place < len(names) else f"[{place}]"
