"""What the network is told of a step: one token (arXiv 2410.02751, section 3).

There is no token of its own for action or reward: a step carries the action and the reward before
it. Where an episode begins, both are blank, and with the two counters that is all that marks it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from embodied_rl.sim.navigation.base import Transition, View


class Tokens(NamedTuple):
    """Steps of any leading shape ``(...)``: ``(B,)`` of one step, ``(B, T)`` of a context."""

    cells: Tensor  # (..., C) int64, codes of a map crop; C may be 0
    features: Tensor  # (..., F) float32
    action: Tensor  # (...) int64: 1 + the previous action, 0 at the first step of an episode
    reward: Tensor  # (...) float32, the previous one, 0 at the first step of an episode
    time: Tensor  # (...) int64, steps since the episode began
    episode: Tensor  # (...) int64, episodes of the trial before this one


def first_tokens(view: View) -> Tokens:
    """The first step of new trials, ``(B,)``."""
    blank = torch.zeros(len(view.features), dtype=torch.int64)
    return Tokens(view.cells, view.features, blank, blank.float(), blank, blank)


def next_tokens(before: Tokens, action: Tensor, transition: Transition) -> Tokens:
    """The step after ``before``, in which ``action`` ``(B,)`` was taken."""
    view, ended = transition.view, transition.ended
    blank = torch.zeros_like(before.action)
    return Tokens(
        view.cells,
        view.features,
        torch.where(ended, blank, action + 1),
        torch.where(ended, blank.float(), transition.reward),
        torch.where(ended, blank, before.time + 1),
        before.episode + ended,
    )
