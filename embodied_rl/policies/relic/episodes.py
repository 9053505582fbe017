"""What became of each episode of each trial."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from embodied_rl.sim.navigation.base import Transition


class Episodes(NamedTuple):
    """The first ``E`` episodes of ``N`` trials, ``(N, E)`` each."""

    finished: Tensor  # bool; the others have a meaning there only
    returned: Tensor  # float32, sum of rewards
    steps: Tensor  # int64
    success: Tensor  # bool
    efficiency: Tensor  # float32, the episode's term of SPL
    familiar: Tensor  # bool, the target was found in an earlier episode of the trial


class EpisodeTable:
    """Fills :class:`Episodes` step by step.

    Attributes:
        number: of each trial's running episode ``(N,)``, from 0; ``limit`` from then on.
    """

    def __init__(self, count: int, limit: int) -> None:
        self._row = torch.arange(count)
        self.number = torch.zeros(count, dtype=torch.int64)
        self._limit = limit
        kinds = (torch.bool, torch.float32, torch.int64, torch.bool, torch.float32, torch.bool)
        # one column more takes what comes after the last episode that is kept
        self._kept = Episodes(*(torch.zeros(count, limit + 1, dtype=kind) for kind in kinds))

    def add(self, transition: Transition) -> None:
        """The next step of every trial."""
        at, kept, ended = (self._row, self.number), self._kept, transition.ended
        kept.finished[at] = ended
        kept.returned[at] += transition.reward
        kept.steps[at] += 1
        kept.success[at] = transition.success
        kept.efficiency[at] = transition.efficiency
        kept.familiar[at] = transition.familiar
        self.number = (self.number + ended).clamp(max=self._limit)

    @property
    def complete(self) -> bool:
        """Whether every trial has finished all episodes that are kept."""
        return bool((self.number == self._limit).all())

    def episodes(self) -> Episodes:
        return Episodes(*(part[:, : self._limit] for part in self._kept))
