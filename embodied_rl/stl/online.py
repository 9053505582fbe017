"""Online monitoring with intervals: what is known of a formula's robustness while samples arrive.

After each sample every step t has an interval [low, high] that holds whatever comes later (the
robust satisfaction interval of arXiv 1506.08234): ``low > 0`` is satisfied, ``high < 0`` violated,
both for good, anything else undecided. Nothing here knows of ROS, files or clocks.

Three things are kept, each at the cost that it needs:

- the robustness of the newest *decided* step (its whole horizon has been seen), by sliding windows
  with O(1) amortised cost a sample (:mod:`embodied_rl.stl.queues`);
- the verdict of *every* open step of every sub-formula, as two sets of steps
  (:mod:`embodied_rl.stl.steps`): a verdict is known at the first sample that settles it;
- the samples within the horizon. From them :meth:`OnlineMonitor.intervals` computes the intervals
  of all open steps when they are asked for, in O(horizon), and :meth:`OnlineMonitor.witness` finds
  the predicate and the step that fix a verdict.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from embodied_rl.core.errors import UserError
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl import steps
from embodied_rl.stl.formula import Formula
from embodied_rl.stl.nodes import Node, make_nodes
from embodied_rl.stl.robustness import all_intervals
from embodied_rl.stl.witness import Witness, find_witness


class Verdict(Enum):
    """What is known of one step. The first two are final."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNDECIDED = "undecided"  # samples that may settle it are still to come
    UNDETERMINED = (
        "undetermined"  # the horizon has been seen: robustness 0, or samples were missing
    )


@dataclass(frozen=True)
class Decided:
    """The robustness of one step whose whole horizon has been seen; low < high only where samples
    were missing."""

    step: int
    low: float
    high: float


class OnlineMonitor:
    """Intervals and verdicts of one formula, at every step, from one row of signals a step.

    Args:
        formula: with its intervals in steps.
        bounds: of the signals, which hold where a sample is missing or still to come; default:
            everything.

    Attributes:
        names: signals of a row, in this order.
        step: of the newest row, counted from 0; -1 before the first.
        program: the sub-formulas; places in it name sub-formulas below, -1 the whole formula.
    """

    def __init__(self, formula: Formula, bounds: Mapping[str, ex.Interval] | None = None):
        self.formula = formula
        self.names = tuple(fm.signal_names(formula))
        self.bounds = {name: (bounds or {}).get(name, ex.EVERYTHING) for name in self.names}
        self.horizon = fm.horizon(formula)
        self.program = fm.program(formula)
        self.reset()

    def reset(self) -> None:
        """Forget every sample."""
        self.step = -1
        self._nodes: list[Node] = make_nodes(self.program, self.names, self.bounds, self.horizon)
        self._updates = [node.update for node in self._nodes]
        self._rows: deque[Sequence[float]] = deque(maxlen=self.horizon + 1)
        self._cached: tuple[int, list[tuple[np.ndarray, np.ndarray]]] = (-1, [])

    def update(self, row: Sequence[float]) -> None:
        """Take the signals of the next step, in the order of ``names``.

        NaN or infinite is a missing sample: within its bounds anything.
        """
        self.step += 1
        total = sum(row)
        complete = total - total == 0.0  # False as soon as one of them is NaN or infinite
        for update in self._updates:
            update(row, complete)
        self._rows.append(row)

    # ---------------------------------------------------------------- verdicts
    def decided(self, place: int = -1) -> Decided | None:
        """The newest step of a sub-formula whose horizon has been seen, if there is one yet."""
        node = self._nodes[place]
        if self.step < node.horizon:
            return None
        return Decided(self.step - node.horizon, node.low, node.high)

    def newly_satisfied(self, place: int = -1) -> list[int]:
        """Steps that the newest sample has satisfied, rising."""
        return self._listed(self._nodes[place].new_true)

    def newly_violated(self, place: int = -1) -> list[int]:
        """Steps that the newest sample has violated, rising."""
        return self._listed(self._nodes[place].new_false)

    def _listed(self, found: int) -> list[int]:
        return steps.listed(found & steps.ones(self.step + 1), self.step) if found else []

    def verdict(self, step: int, place: int = -1) -> Verdict:
        """The verdict of one step of a sub-formula.

        Raises:
            UserError: the step is not in memory: of the future, or older than the horizon.
        """
        node, bit = self._nodes[place], 1 << self._age(step)
        if node.true & bit:
            return Verdict.SATISFIED
        if node.false & bit:
            return Verdict.VIOLATED
        seen = self._age(step) >= node.horizon
        return Verdict.UNDETERMINED if seen else Verdict.UNDECIDED

    @property
    def first_step(self) -> int:
        """The oldest step in memory: 0, then the newest one that is decided."""
        return self.step - len(self._rows) + 1

    def _age(self, step: int) -> int:
        if not self.first_step <= step <= self.step:
            memory = f"{self.first_step} to {self.step}"
            raise UserError(f"monitor: step {step} is not in memory ({memory})")
        return self.step - step

    # ---------------------------------------------------------------- intervals
    def interval(self, step: int, place: int = -1) -> tuple[float, float]:
        """``(low, high)`` of one step of a sub-formula; errors as :meth:`verdict`."""
        self._age(step)
        decided = self.decided(place)
        if decided is not None and decided.step == step:  # needs no look at the whole memory
            return decided.low, decided.high
        low, high = self.intervals()[place]
        return float(low[step - self.first_step]), float(high[step - self.first_step])

    def intervals(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """``low, high`` of each sub-formula; index 0 is the oldest step in memory, and the steps
        beyond the newest one are those that windows reach."""
        if self._cached[0] != self.step:
            found = all_intervals(self.formula, self.signals(), self.bounds)
            self._cached = (self.step, found)
        return self._cached[1]

    def signals(self) -> dict[str, np.ndarray]:
        """The samples in memory, oldest first, NaN or infinite where one was missing."""
        columns = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), len(self.names))
        if not self.names:  # a formula of constants: its trace still has a length
            return {"": np.zeros(len(self._rows))}
        return {name: columns[:, i] for i, name in enumerate(self.names)}

    def witness(self, step: int, place: int = -1) -> Witness:
        """What fixes the verdict of a step: the predicate and the step at which its margin is the
        formula's ``high`` where that is below 0, else its ``low``."""
        self._age(step)
        start = self.first_step
        found = find_witness(self.program, place, step - start, self.intervals())
        return Witness(found.predicate, found.step + start, found.value)

    def row(self, step: int) -> dict[str, float]:
        """The signals of a step in memory that were not missing."""
        row = self._rows[-1 - self._age(step)]
        return {name: float(v) for name, v in zip(self.names, row) if math.isfinite(v)}
