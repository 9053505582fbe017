"""Saying where the wanted object is: a second task that teaches a network to use its context.

The reward says little about what memory is good for; a network that must also name the cell of what
it is to find, whenever that was in view earlier in the trial, learns to look it up in its context
first (auxiliary tasks for navigation: arXiv 1611.03673). Labels come from the steps themselves: a
step's features hold where each object is that is in view. A robot at work can be asked the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNKNOWN = -1  # label of a step whose wanted object was not in view yet; cells count from 0


class LandmarkLayout(NamedTuple):
    """Where a step's features hold what is wanted and what is in view (all one-hot)::

    wanted type (types) | pose (pose) | for each type: x (width), y (height), all 0 if unseen
    """

    types: int
    width: int
    height: int
    pose: int

    @property
    def feature_count(self) -> int:
        return self.types + self.pose + self.types * (self.width + self.height)


def recall_labels(features: Tensor, layout: LandmarkLayout) -> Tensor:
    """Cell (x, y) of the wanted object ``(B, T, 2)`` int64 at each step, as far as the steps up to
    then have shown it; `UNKNOWN` before. Objects stay where they are.

    Args:
        features: ``(B, T, F)`` of whole trials in the order in which they are the context.
    """
    wanted = features[..., : layout.types].argmax(dim=-1)
    seen = features[..., layout.types + layout.pose :].unflatten(-1, (layout.types, -1))
    x, y = (torch.arange(1.0, size + 1, device=features.device)
            for size in (layout.width, layout.height))  # fmt: skip
    cell = seen @ torch.block_diag(x[:, None], y[:, None])  # (B, T, types, 2), from 1; 0 if unseen
    met = cell.cummax(dim=1).values
    place = wanted[..., None, None].expand(*wanted.shape, 1, 2)
    return met.gather(2, place)[:, :, 0].long() + UNKNOWN


class Recall(nn.Module):
    """From a step's hidden vector to scores of the wanted object's x and y."""

    def __init__(self, width: int, layout: LandmarkLayout) -> None:
        super().__init__()
        self.layout = layout
        self.linear = nn.Linear(width, layout.width + layout.height)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """``(..., W)`` -> ``(..., width)`` and ``(..., height)``."""
        x, y = self.linear(hidden).split([self.layout.width, self.layout.height], dim=-1)
        return x, y

    def loss(self, hidden: Tensor, features: Tensor) -> Tensor:
        """Cross-entropy of each of the last ``n`` steps ``(B, n)``, 0 where there is no label.

        Args:
            hidden: ``(B, n, W)``, of those steps.
            features: ``(B, T, F)``, of all.
        """
        label = recall_labels(features, self.layout)[:, -hidden.shape[1] :]
        losses = [
            F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=UNKNOWN,
                            reduction="none")
            for scores, wanted in zip(self(hidden), label.unbind(-1))
        ]  # fmt: skip
        return sum(losses, torch.zeros(())).view(label.shape[:2]) / 2
