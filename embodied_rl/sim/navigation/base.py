"""The interface of batched navigation worlds: what a trainer, an evaluator and a script need.

A *trial* is a sequence of episodes in one fixed world (a layout with its objects, or a hidden
goal). ``N`` trials run side by side; when an episode of one ends, its next one begins at once.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)


class View(NamedTuple):
    """What the robots see; a world without a map crop has ``C = 0``."""

    cells: Tensor  # (N, C) int64, each in [0, code_count)
    features: Tensor  # (N, F) float32, within [-1, 1]


class Transition(NamedTuple):
    """One step; all but ``view`` belong to the episode that the action was taken in."""

    view: View  # after the step; where ``ended``, the first of the next episode
    reward: Tensor  # (N,) float32
    ended: Tensor  # (N,) bool
    success: Tensor  # (N,) bool, where ``ended``
    efficiency: Tensor  # (N,) float32, where ``ended``: the episode's term of SPL
    familiar: Tensor  # (N,) bool: the target was found in an earlier episode of the trial


class Place(NamedTuple):
    """Where the robots are, for pictures; not for policies."""

    position: Tensor  # (N, 2) int64, cell (x, y)
    targets: Tensor  # (N, H, W) bool, what the episode asks for


class TrialWorld(Protocol):
    """A world whose map is a grid of cells ``[y, x]``."""

    name: str
    action_count: int
    horizon: int  # most steps of an episode
    cell_count: int  # C
    code_count: int  # kinds of cells
    feature_count: int  # F

    def worlds(self, split: str) -> Tensor:
        """Identifiers ``(W,)`` of the worlds of :data:`TRAIN` or :data:`HELD_OUT`."""

    def reset(self, worlds: Tensor, steps: int, generator: torch.Generator) -> View:
        """New trials of ``steps`` steps in ``worlds`` ``(N,)``.

        All that is random is drawn here, so the k-th episode of a trial is the same whatever was
        done in the earlier ones.
        """

    def step(self, action: Tensor) -> Transition:
        """``action`` ``(N,)`` int64."""

    def expert_action(self) -> Tensor:
        """``(N,)``: what a robot would do that knows the world and the target."""

    def place(self) -> Place:
        """At this moment."""

    def walls(self, world: int) -> Tensor:
        """``(H, W)`` bool, of one world."""

    def objects(self, world: int) -> Tensor:
        """``(H, W)`` int64, of one world: 1 + type of the object in a cell, 0 where none is."""
