"""From a formula to timed subgoals: its alternatives as padded tensors.

What the decomposition of :mod:`embodied_rl.stl.decompose` asks for is brought to two kinds of
items, each a region with a window of steps ``[first, last]``, both included:

subgoal   be *inside* the region at every step of the window: a reach has ``first = last``, a hold
          (``F G A``, ``G A``) is a longer one
avoided   be *outside* the region at every step of the window

Moments are sums of time variables, so the windows of an assignment ``times (N, V)`` are one small
matrix product. The two kinds, and treating a hold as a long subgoal, are our design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from embodied_rl.core.errors import UserError
from embodied_rl.core.ranges import check_range
from embodied_rl.sim.stl_tasks.task import Region, StlTask
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl.decompose import Alternative, Hold, Moment, Reach, decompose
from embodied_rl.stl.text import infix


@dataclass(frozen=True)
class Shape:
    """The largest alternative that a network of this shape takes: how many of each at most."""

    subgoals: int = 4
    avoided: int = 8
    variables: int = 4

    def __post_init__(self) -> None:
        check_range(self, "subgoals", "avoided", "variables", least=1)


@dataclass(frozen=True)
class Item:
    """A region and the window in which the robot is to be inside, or outside."""

    name: str  # of the region
    region: Region
    inside: bool
    first: Moment
    last: Moment


@dataclass
class Schedule:
    """The items of N groundings; subgoals in the order in which their windows end.

    ``first``, ``last`` are steps, beyond the episode where ``present`` is False.
    """

    centre: Tensor  # (N, K, d) m
    radius: Tensor  # (N, K) m
    first: Tensor  # (N, K)
    last: Tensor
    present: Tensor  # (N, K) bool
    avoid_centre: Tensor  # (N, M, d) m
    avoid_radius: Tensor  # (N, M) m
    avoid_first: Tensor  # (N, M)
    avoid_last: Tensor
    avoid_present: Tensor  # (N, M) bool

    def __getitem__(self, rows: Tensor) -> Schedule:
        return Schedule(**{key: value[rows] for key, value in vars(self).items()})

    def put(self, rows: Tensor, other: Schedule) -> None:
        """Replaces some rows."""
        for key, value in vars(self).items():
            value[rows] = getattr(other, key)


class _Windows:
    """Windows ``[first, last]`` of Q items in B alternatives as affine functions of the times."""

    def __init__(self, alternatives: Sequence[Sequence[Item]], places: int, shape: Shape, dim: int):
        count, late = len(alternatives), 10**6
        self.centre = torch.zeros(count, places, dim)
        self.radius = torch.ones(count, places)
        self.present = torch.zeros(count, places, dtype=torch.bool)
        self.offsets = torch.full((2, count, places), late, dtype=torch.long)
        self.terms = torch.zeros(2, count, places, shape.variables, dtype=torch.long)
        for b, items in enumerate(alternatives):
            for k, item in enumerate(items):
                self.centre[b, k] = torch.tensor(item.region.centre)
                self.radius[b, k] = item.region.radius
                self.present[b, k] = True
                for end, moment in enumerate((item.first, item.last)):
                    self.offsets[end, b, k] = moment.offset
                    for place in moment.variables:
                        self.terms[end, b, k, place] += 1

    def at(self, chosen: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """First and last steps ``(N, Q)`` of alternatives ``(N,)`` at times ``(N, V)``."""
        found = self.offsets[:, chosen] + (self.terms[:, chosen] * times[:, None]).sum(dim=-1)
        return found[0], found[1]


class Groundings:
    """All alternatives of a list of tasks; ``B`` of them in all, numbered through."""

    def __init__(self, tasks: Sequence[StlTask], shape: Shape):
        """
        Raises:
            UserError: robots differ; a formula is outside the fragment, or larger than ``shape``:
                names the task, the limit and what was seen.
        """
        robots = {task.dynamics.name for task in tasks}
        if len(robots) != 1:
            raise UserError(f"tasks: expected tasks of one robot, saw {sorted(robots) or 'none'}")
        self.tasks, self.shape = tuple(tasks), shape
        self.dynamics = tasks[0].dynamics
        found = [(i, a, items) for i, t in enumerate(tasks) for a, items in _alternatives(t, shape)]
        self.task = torch.tensor([i for i, _, _ in found])
        self.counts = torch.bincount(self.task, minlength=len(tasks))
        self.begins = self.counts.cumsum(0) - self.counts
        dim = self.dynamics.position_dim
        # of each alternative, in the places that they have in the tensors
        self.subgoals = [[item for item in items if item.inside] for _, _, items in found]
        self.avoided = [[item for item in items if not item.inside] for _, _, items in found]
        self._goals = _Windows(self.subgoals, shape.subgoals, shape, dim)
        self._avoided = _Windows(self.avoided, shape.avoided, shape, dim)
        self.low = torch.zeros(len(found), shape.variables, dtype=torch.long)
        self.high = torch.zeros(len(found), shape.variables, dtype=torch.long)
        self.used = torch.zeros(len(found), shape.variables, dtype=torch.bool)
        self._gaps = torch.zeros(len(found), shape.variables, 4, dtype=torch.long)
        for b, (_, alternative, _) in enumerate(found):
            self._fill(b, alternative)

    def _fill(self, b: int, alternative: Alternative) -> None:
        for place, variable in enumerate(alternative.variables):
            self.low[b, place], self.high[b, place] = variable.low, variable.high
            self.used[b, place] = True
        for span in alternative.hold:
            if span.unless_zero is not None:  # at 0 nothing is asked; that case is left out
                self.low[b, span.unless_zero] = self.low[b, span.unless_zero].clamp(min=1)
        for place, gap in enumerate(alternative.gaps):
            self._gaps[b, place] = torch.tensor([gap.earlier, gap.later, gap.low, gap.high])

    def __len__(self) -> int:
        return len(self.task)

    def feasible(self, chosen: Tensor, times: Tensor) -> Tensor:
        """Which groundings ``(N,)`` keep their bounds and gaps, begin no subgoal that is to be
        reached at step 0, where nothing has acted yet, and end within the episode."""
        used = self.used[chosen]
        inside = (self.low[chosen] <= times) & (times <= self.high[chosen])
        gaps = self._gaps[chosen]
        apart = times.gather(1, gaps[..., 1]) - times.gather(1, gaps[..., 0])
        kept = (gaps[..., 2] <= apart) & (apart <= gaps[..., 3])
        first, last = self._goals.at(chosen, times)
        fits = (last >= 1) & (first <= last) & (last <= self.dynamics.steps)
        fits |= ~self._goals.present[chosen]
        return (inside | ~used).all(dim=1) & kept.all(dim=1) & fits.all(dim=1)

    def schedule(self, chosen: Tensor, times: Tensor) -> Schedule:
        """The items of alternatives ``(N,)`` at times ``(N, V)``."""
        return self.ordered(chosen, times)[0]

    def ordered(self, chosen: Tensor, times: Tensor) -> tuple[Schedule, Tensor]:
        """:meth:`schedule`, and which item of the alternative each subgoal is ``(N, K)``."""
        first, last = self._goals.at(chosen, times)
        order = (last * (2 * self.dynamics.steps) + first).argsort(dim=1, stable=True)
        spread = order[..., None].expand(-1, -1, self.dynamics.position_dim)
        avoid_first, avoid_last = self._avoided.at(chosen, times)
        found = Schedule(
            self._goals.centre[chosen].gather(1, spread),
            self._goals.radius[chosen].gather(1, order),
            first.gather(1, order),
            last.gather(1, order),
            self._goals.present[chosen].gather(1, order),
            self._avoided.centre[chosen],
            self._avoided.radius[chosen],
            avoid_first,
            avoid_last,
            self._avoided.present[chosen],
        )
        return found, order

    def fixed(self, chosen: Tensor, settled: Tensor) -> Tensor:
        """Which variables ``(N, V)`` the subgoals ``settled (N, K)``, by item, depend on."""
        terms = self._goals.terms[:, chosen].amax(dim=0)
        return (terms * settled[..., None]).amax(dim=1) > 0

    def ahead(self, chosen: Tensor, times: Tensor, settled: Tensor, t: int) -> Tensor:
        """Whether all subgoals that are not ``settled (N, K)`` begin after step ``t``, ``(N,)``."""
        first, _ = self._goals.at(chosen, times)
        return ((first > t) | settled | ~self._goals.present[chosen]).all(dim=1)


def _alternatives(task: StlTask, shape: Shape) -> list[tuple[Alternative, list[Item]]]:
    """The alternatives of a task with their items, a choice among regions being split up."""
    found = []
    for whole in decompose(task.formula, task.dynamics.dt_s, fewest_visits=True):
        for alternative in _without_choices(whole):
            items = _items(task, alternative)
            _check(task, "subgoals", sum(item.inside for item in items), shape.subgoals)
            _check(task, "avoided", sum(not item.inside for item in items), shape.avoided)
            _check(task, "variables", len(alternative.variables), shape.variables)
            if not any(item.inside for item in items):
                raise UserError(
                    f"task {task.name}: expected a region to be reached, saw none in "
                    f"'{task.text}'; a policy of timed subgoals has nothing to do"
                )
            found.append((alternative, items))
    return found


def _check(task: StlTask, what: str, seen: int, most: int) -> None:
    if seen > most:
        raise UserError(
            f"task {task.name}: expected at most {most} {what}, as the policy's shape has, saw "
            f"{seen} in '{task.text}'"
        )


def _without_choices(alternative: Alternative) -> list[Alternative]:
    """``reach (A or B)`` at one moment is ``reach A`` or ``reach B`` at it, with no loss."""
    choices = [
        [replace(item, goal=part) for part in _disjuncts(item.goal)] for item in alternative.reach
    ]
    return [replace(alternative, reach=reach) for reach in product(*choices)]


def _disjuncts(goal: fm.Formula) -> list[fm.Formula]:
    return _disjuncts(goal.left) + _disjuncts(goal.right) if isinstance(goal, fm.Or) else [goal]


def _items(task: StlTask, alternative: Alternative) -> list[Item]:
    """What is to be inside or outside of which region; a guide that a hold repeats is left out."""
    held = [(hold.condition, hold.first) for hold in alternative.hold]
    found = []
    for item in alternative.reach:
        if not (item.guide and (item.goal, item.moment) in held):
            found += [
                _item(task, part, item, item.moment, item.moment) for part in _parts(item.goal)
            ]
    for hold in alternative.hold:
        for part in _parts(hold.condition):
            found.append(_item(task, part, hold, hold.first, hold.last))
    return found


def _parts(formula: fm.Formula) -> list[fm.Formula]:
    if isinstance(formula, fm.And):
        return _parts(formula.left) + _parts(formula.right)
    return [formula]


def _item(
    task: StlTask, formula: fm.Formula, source: Reach | Hold, first: Moment, last: Moment
) -> Item:
    """The item of one literal: a region's name, compared with 0."""
    if isinstance(formula, fm.Predicate) and formula.right == ex.Constant(0.0):
        signal = formula.left
        if isinstance(signal, ex.Signal) and signal.name in task.regions:
            return Item(signal.name, task.regions[signal.name], formula.greater, first, last)
    kind = "reached" if isinstance(source, Reach) else "held"
    raise UserError(
        f"task {task.name}: expected regions and negated regions, saw '{infix(formula)}' to be "
        f"{kind}; the policy knows {sorted(task.regions)}"
    )
