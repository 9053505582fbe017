"""What to do with a row in which a stream is missing, the same way in training and live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


class RowCarrier:
    """Replaces a missing value by the last valid one of its stream, and counts that it did.

    A history token is a frame of the past: a camera that dropped one image leaves a slightly old
    frame there, which the network tolerates, where a NaN or a zero would be read as something
    seen. The newest row is another matter; whoever acts must look at `missing` first. Until
    every stream has been seen once there is nothing to carry, and the episode has not begun for
    the policy.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self.last: dict[str, np.ndarray] = {}
        self.carried: Counter[str] = Counter()
        self.missing: tuple[str, ...] = ()

    def push(
        self, values: Mapping[str, np.ndarray], valid: Mapping[str, bool]
    ) -> dict[str, np.ndarray] | None:
        """One row in, one complete row out; None while some stream has never been valid."""
        self.missing = tuple(key for key in self.keys if not valid[key])
        for key in self.keys:
            if valid[key]:
                self.last[key] = values[key]
        if len(self.last) < len(self.keys):
            return None
        self.carried.update(self.missing)
        return {key: self.last[key] for key in self.keys}

    @property
    def unseen(self) -> list[str]:
        """Streams that have not been valid once."""
        return [key for key in self.keys if key not in self.last]
