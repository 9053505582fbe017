"""Darkroom: a dark square room with a hidden goal (after arXiv 2410.02751, section 4; smaller).

The robot sees where it is and nothing else. A step that ends on the goal earns 1, so the goal must
be searched once, remembered over episodes, and walked to at once from then on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embodied_rl.sim.base import choose
from embodied_rl.sim.navigation.base import HELD_OUT, SPLITS, TRAIN, Place, Transition, View

SPLIT_SEED = 2410
MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


class Darkroom:
    """``size`` x ``size`` cells, start in cell (0, 0), five actions: stay or move to a neighbour.

    A world is named by its goal cell, ``y * size + x``; ``held_out`` goals, drawn once by a fixed
    seed, are kept for evaluation. An episode has always ``horizon`` steps. Success is to have been
    on the goal; efficiency compares the step of the first arrival with the distance.
    """

    name = "darkroom"
    action_count = len(MOVES)
    cell_count = 0
    code_count = 0

    def __init__(self, size: int = 6, horizon: int = 25, held_out: int = 8) -> None:
        self.size, self.horizon = size, horizon
        self.feature_count = 2 * size
        order = torch.randperm(size * size, generator=torch.Generator().manual_seed(SPLIT_SEED))
        parts = order.split([size * size - held_out, held_out])
        self._goals = {split: part.sort().values for split, part in zip(SPLITS, parts)}
        self._moves = torch.tensor(MOVES)

    def worlds(self, split: str) -> Tensor:
        return self._goals[choose("split", split, (TRAIN, HELD_OUT))]

    def reset(self, worlds: Tensor, steps: int, generator: torch.Generator) -> View:
        """Nothing is random and nothing depends on the number of steps."""
        self._goal = torch.stack([worlds % self.size, worlds // self.size], dim=-1)
        self._distance = self._goal.sum(dim=-1)
        self._position = torch.zeros_like(self._goal)
        self._found = torch.zeros_like(worlds, dtype=torch.bool)  # in an earlier episode
        self._arrival = torch.zeros_like(worlds)  # step of the first arrival, 0 before it
        self._time = 0
        return self._view()

    def step(self, action: Tensor) -> Transition:
        moved = self._position + self._moves[action]
        self._position = moved.clamp(0, self.size - 1)
        self._time += 1
        at_goal = (self._position == self._goal).all(dim=-1)
        first = at_goal & (self._arrival == 0)
        self._arrival = torch.where(first, self._time, self._arrival)
        success, familiar = self._arrival > 0, self._found
        least = self._distance.clamp(min=1)
        efficiency = success * least / torch.maximum(least, self._arrival)
        over = self._time == self.horizon
        if over:
            self._found = self._found | success
            self._position = torch.zeros_like(self._position)
            self._arrival = torch.zeros_like(self._arrival)
            self._time = 0
        ended = torch.full_like(at_goal, over)
        return Transition(self._view(), at_goal.float(), ended, success, efficiency, familiar)

    def expert_action(self) -> Tensor:
        """Along x, then along y, then stay."""
        to_x, to_y = (self._goal - self._position).sign().unbind(-1)
        along_x = torch.where(to_x > 0, 1, 2)
        along_y = torch.where(to_y > 0, 3, torch.where(to_y < 0, 4, 0))
        return torch.where(to_x != 0, along_x, along_y)

    def best_return(self, worlds: Tensor) -> Tensor:
        """``(N,)``: of an episode by a robot that knows the goal."""
        distance = worlds % self.size + worlds // self.size
        return (self.horizon + 1 - distance.clamp(min=1)).clamp(min=0)

    def place(self) -> Place:
        targets = torch.zeros(len(self._goal), self.size, self.size, dtype=torch.bool)
        targets[torch.arange(len(self._goal)), self._goal[:, 1], self._goal[:, 0]] = True
        return Place(self._position.clone(), targets)

    def walls(self, world: int) -> Tensor:
        return torch.zeros(self.size, self.size, dtype=torch.bool)

    def objects(self, world: int) -> Tensor:
        return torch.zeros(self.size, self.size, dtype=torch.int64)

    def _view(self) -> View:
        shown = torch.nn.functional.one_hot(self._position, self.size).flatten(1)
        return View(torch.zeros(len(shown), 0, dtype=torch.int64), shown.float())
