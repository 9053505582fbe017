"""Which of several candidates agrees best with what the policy did.

A model with past tokens says, with every chunk, which actions it takes to have brought it here.
Those that were carried out are known: the candidate whose account of them is nearest is the one
to carry out, and how near it is tells whether the model knows the situation at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from embodied_rl.core.policy import ActionChunk


class ExecutedActions:
    """The commands in force at the ticks that a window reaches, as a recording would hold them.

    The action of a tick is the target one control period after it. Compared with targets before
    the limits, a candidate would be praised for repeating what never happened.
    """

    def __init__(self, reach_ns: int) -> None:
        """`reach_ns`: how far before the newest chunk it must be able to answer."""
        self._reach_ns = reach_ns
        self._chunks: deque[ActionChunk] = deque()

    @property
    def chunks(self) -> tuple[ActionChunk, ...]:
        """What is remembered, oldest first; `follow` of each restores it."""
        return tuple(self._chunks)

    def follow(self, chunk: ActionChunk) -> None:
        """Take a chunk that is in force from its stamp on, in place of all earlier ones."""
        if not len(chunk.values):
            return
        while self._chunks and self._chunks[-1].stamp_ns >= chunk.stamp_ns:
            self._chunks.pop()
        self._chunks.append(chunk)
        oldest_ns = chunk.stamp_ns - self._reach_ns
        while len(self._chunks) > 1 and self._chunks[1].stamp_ns <= oldest_ns:
            self._chunks.popleft()

    def at(self, ticks_ns: Iterable[int], action_dim: int) -> tuple[np.ndarray, np.ndarray]:
        """Actions (K, A) of the ticks and `known` (K,); 0 where no command was in force yet."""
        ticks = [int(t) for t in ticks_ns]
        values, known = np.zeros((len(ticks), action_dim)), np.zeros(len(ticks), dtype=bool)
        for k, tick in enumerate(ticks):
            chunk = next((c for c in reversed(self._chunks) if c.stamp_ns <= tick), None)
            if chunk is not None:
                # Behind its last target a chunk holds.
                row = min((tick - chunk.stamp_ns) // chunk.period_ns, len(chunk.values) - 1)
                values[k], known[k] = chunk.values[row], True
        return values, known


def disagreement(past: Tensor, executed: Tensor, known: Tensor) -> Tensor:
    """Mean squared error of each candidate over the known positions, in normalised units.

    Args:
        past: (N, P, A) the candidates' past tokens.
        executed: (P, A) the actions carried out at the same ticks.
        known: (P,) bool, at least one True; the others do not count.

    Returns:
        (N,), lower is better.
    """
    return (past[:, known] - executed[known]).square().mean(dim=(1, 2))
