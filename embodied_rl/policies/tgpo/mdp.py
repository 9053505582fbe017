"""The augmented MDP: a robot, a schedule of subgoals, and which of them are done or missed.

The schedule stays as it is through an episode and belongs to the state, so that all assignments of
all tasks form one stationary MDP and one policy serves them all (arXiv 2510.00225 augments by time
variables and flags; this layout, with the subgoals listed from the active one on, is our design).

Observation, with K subgoals, M regions to avoid, d dimensions of position; lengths by the arena,
times by the episode:

====================  ======  ==================================================================
robot                 n       `Dynamics.features`
clock                 1       t / T
upcoming subgoals     K(d+5)  relative centre, radius, time to the window's begin and end, speed
                              needed since the one before, present; the active one first
active subgoal        d+2     unit direction to its centre, distance, margin in radii
avoided, near first   M(d+5)  relative centre, clearance, in force, time to begin and end, present
violated, missed      2       latched; share of the subgoals that were missed
====================  ======  ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embodied_rl.core.ranges import check_range
from embodied_rl.policies.tgpo.groundings import Schedule, Shape
from embodied_rl.sim.dynamics.base import Dynamics

_CLEAR = 0.4  # of the arena: clearance beyond which a region no longer matters for now
_FAR = 3.0  # bound of every entry: a robot that ran away must not blind the network
_MOST_SPEED = 3.0  # times the robot's own, from which on a subgoal is plainly out of reach


@dataclass(frozen=True)
class RewardWeights:
    """Stage-wise reward; distances in m. With d the distance to the active subgoal's region::

        progress (d - d') - distance d' + hit (share of subgoals)
        - at a failure: miss (share of subgoals not met) + miss_distance (sum of d' of the missed)
        - violation [inside a region] - barrier exp(-steepness * clearance) + success [at the end]

    all times ``scale``. ``hit`` and ``miss`` are for all subgoals together: an alternative with
    more of them is worth no more.
    """

    progress: float = 1.0
    distance: float = 0.02
    hit: float = 20.0
    miss: float = 10.0
    miss_distance: float = 1.0
    violation: float = 1.0
    barrier: float = 0.2
    steepness: float = 8.0
    success: float = 20.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        check_range(self, *vars(self), least=0)


def observation_dim(dynamics: Dynamics, shape: Shape) -> int:
    d = dynamics.position_dim
    return dynamics.feature_dim + 1 + shape.subgoals * (d + 5) + d + 2 + shape.avoided * (d + 5) + 2


class AugmentedMdp:
    """N episodes in step with each other, all at time ``t``."""

    def __init__(self, dynamics: Dynamics, weights: RewardWeights):
        self.dynamics, self.weights = dynamics, weights
        self._clear_m = _CLEAR * dynamics.arena_m

    def reset(self, state: Tensor, schedule: Schedule) -> Tensor:
        """Begins at t = 0; returns the observation ``(N, D)``."""
        self._place(0, state, schedule, torch.zeros_like(schedule.present))
        self.violated = torch.zeros(len(state), dtype=torch.bool)
        self._resolve()
        self.violated |= (self._in_force() & (self._clearance <= 0)).any(dim=1)
        return self.observe()

    def _place(self, t: int, state: Tensor, schedule: Schedule, done: Tensor) -> None:
        self.t, self.state, self.schedule, self.done = t, state, schedule, done
        self.missed = torch.zeros_like(done)
        self.failed = torch.zeros(len(done), dtype=torch.bool)
        self._share = 1.0 / schedule.present.sum(dim=1).clamp(min=1)
        self._speeds = _needed_speeds(self.dynamics, schedule)
        self._measure()

    def restore(
        self,
        t: int,
        state: Tensor,
        schedule: Schedule,
        done: Tensor,
        missed: Tensor,
        violated: Tensor,
    ) -> None:
        """Go on from an earlier moment; flags ``(N, K)`` and ``(N,)``."""
        self._place(t, state, schedule, done)
        self.missed, self.violated = missed, violated

    def branch(self, rows: Tensor, schedule: Schedule, done: Tensor) -> AugmentedMdp:
        """These episodes, from now on with other times; ``done (n, K)`` is behind them."""
        found = AugmentedMdp(self.dynamics, self.weights)
        found._place(self.t, self.state[rows], schedule, done)
        found.violated = self.violated[rows]
        return found

    def reschedule(self, rows: Tensor, schedule: Schedule, done: Tensor) -> None:
        """:meth:`branch` in place."""
        self.schedule.put(rows, schedule)
        self.done[rows], self.missed[rows] = done, False
        self._speeds[rows] = _needed_speeds(self.dynamics, schedule)
        self._measure()

    @property
    def pending(self) -> Tensor:
        return self.schedule.present & ~self.done & ~self.missed

    @property
    def under_way(self) -> Tensor:
        """Pending subgoals whose window has begun ``(N, K)``."""
        return self.pending & (self.schedule.first <= self.t)

    @property
    def success(self) -> Tensor:
        """All subgoals done and nothing violated ``(N,)``: certifies the formula once t = T."""
        return (self.done | ~self.schedule.present).all(dim=1) & ~self.violated

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Observation ``(N, D)`` and reward ``(N,)`` of actions ``(N, A)``.

        Sets ``failed (N,)``: where this step missed a subgoal or was the first inside an avoided
        region, so that the plan can no longer succeed. What is rewarded afterwards is no merit of
        what led there: a learner ends the episode's return here, and takes the rest as another
        episode, with what is left.
        """
        w, spoiled = self.weights, self.violated.clone()
        active, any_left = _first(self.pending)
        before = self._short(active)
        reached, lost, clearance = self.arrive(self.dynamics.step(self.state, action))
        after = self._short(active)  # of the same subgoal: a change of stage is no progress
        distances = (-self._margin).clamp(min=0.0)
        hurt = clearance <= 0
        reward = any_left * (w.progress * (before - after) - w.distance * after)
        reward += w.hit * self._share * reached.sum(dim=1)
        self.failed = lost.any(dim=1) | (hurt & ~spoiled)
        reward -= w.miss * self._share * (lost | self.pending).sum(dim=1) * self.failed
        reward -= w.miss_distance * (distances * lost).sum(dim=1)
        reward -= w.violation * hurt + w.barrier * (-w.steepness * clearance.clamp(min=0.0)).exp()
        if self.t == self.dynamics.steps:
            reward += w.success * self.success
        return self.observe(), w.scale * reward

    def arrive(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next step with states ``(N, n)``, the model's or measured ones.

        Returns:
            The subgoals that it reaches and those that it loses ``(N, K)``, and the clearance
            ``(N,)`` from the regions that are to be avoided now.
        """
        self.state = state
        self.t += 1
        self._measure()
        reached, lost = self._resolve()
        clearance = self._clearance.masked_fill(~self._in_force(), self._clear_m).amin(dim=1)
        self.violated |= clearance <= 0
        return reached, lost, clearance

    def look(self, state: Tensor) -> None:
        """The robots are in states ``(N, n)`` before the step is over; it judges nothing."""
        self.state = state
        self._measure()

    def _measure(self) -> None:
        """Geometry at the present positions."""
        s, position = self.schedule, self.dynamics.position(self.state)[:, None]
        self._away = s.centre - position
        self._distance = torch.linalg.vector_norm(self._away, dim=-1)
        self._margin = s.radius - self._distance
        self._avoid_away = s.avoid_centre - position
        self._clearance = torch.linalg.vector_norm(self._avoid_away, dim=-1) - s.avoid_radius

    def _short(self, active: Tensor) -> Tensor:
        """How far outside of a subgoal's region ``(N,)``."""
        return -self._margin.gather(1, active[:, None])[:, 0].clamp(max=0.0)

    def _in_force(self) -> Tensor:
        s = self.schedule
        return s.avoid_present & (s.avoid_first <= self.t) & (self.t <= s.avoid_last)

    def _resolve(self) -> tuple[Tensor, Tensor]:
        """Marks the subgoals that this step decides: done at the end of an unbroken window, missed
        at the first step of the window outside."""
        s = self.schedule
        within = self.pending & (s.first <= self.t) & (self.t <= s.last)
        inside = self._margin > 0
        lost = within & ~inside
        reached = within & inside & (s.last == self.t)
        self.missed |= lost
        self.done |= reached
        return reached, lost

    def observe(self) -> Tensor:
        """``(N, D)`` as the module's docstring lists it."""
        dynamics, pending = self.dynamics, self.pending
        count, horizon = len(self.state), float(dynamics.steps)
        active, any_left = _first(pending)
        clock = torch.full((count, 1), self.t / horizon)
        misses = (self.missed.sum(dim=1) * self._share)[:, None]
        parts = [dynamics.features(self.state), clock, self._upcoming(active, pending)]
        parts += [self._active(active, any_left), self._avoided()]
        parts += [self.violated[:, None].float(), misses]
        return torch.cat(parts, dim=1).clamp(-_FAR, _FAR)

    def _upcoming(self, active: Tensor, pending: Tensor) -> Tensor:
        dynamics, s = self.dynamics, self.schedule
        horizon, places = float(dynamics.steps), pending.shape[1]
        to_first = ((s.first - self.t) / horizon).clamp(-1.0, 1.0)
        to_last = ((s.last - self.t) / horizon).clamp(-1.0, 1.0)
        steps_left = (s.first - self.t).clamp(min=1)
        here = -self._margin.clamp(max=0.0) / (dynamics.top_speed * dynamics.dt_s * steps_left)
        at_active = torch.arange(places) == active[:, None]
        speed = torch.where(at_active, here, self._speeds).clamp(max=_MOST_SPEED) / _MOST_SPEED
        scalars = torch.stack(
            [s.radius / dynamics.arena_m, to_first, to_last, speed, pending.float()], dim=-1
        )
        rows = torch.cat([self._away / dynamics.arena_m, scalars], dim=-1) * pending[..., None]
        shifted = torch.arange(places) + active[:, None]
        over = shifted >= places
        shifted = shifted.clamp(max=places - 1)[..., None].expand(-1, -1, rows.shape[-1])
        return rows.gather(1, shifted).masked_fill(over[..., None], 0.0).flatten(1)

    def _active(self, active: Tensor, any_left: Tensor) -> Tensor:
        at = active[:, None]
        spread = at[..., None].expand(-1, -1, self._away.shape[-1])
        away, distance = self._away.gather(1, spread)[:, 0], self._distance.gather(1, at)
        radii = (self._margin.gather(1, at) / self.schedule.radius.gather(1, at)).clamp(min=-1.0)
        unit = away / distance.clamp(min=1e-6)
        found = torch.cat([unit, distance / self.dynamics.arena_m, radii], dim=1)
        return found * any_left[:, None]

    def _avoided(self) -> Tensor:
        dynamics, s = self.dynamics, self.schedule
        horizon = float(dynamics.steps)
        ahead = s.avoid_present & (s.avoid_last >= self.t)
        near = self._clearance.clamp(max=self._clear_m) / self._clear_m
        scalars = torch.stack(
            [
                near,
                self._in_force().float(),
                ((s.avoid_first - self.t) / horizon).clamp(-1.0, 1.0),
                ((s.avoid_last - self.t) / horizon).clamp(-1.0, 1.0),
                ahead.float(),
            ],
            dim=-1,
        )
        rows = torch.cat([self._avoid_away / dynamics.arena_m, scalars], dim=-1) * ahead[..., None]
        order = self._clearance.masked_fill(~ahead, float("inf")).argsort(dim=1)
        return rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1])).flatten(1)


def _first(pending: Tensor) -> tuple[Tensor, Tensor]:
    """Place of the first pending subgoal ``(N,)``, and whether there is one."""
    return pending.int().argmax(dim=1), pending.any(dim=1)


def _needed_speeds(dynamics: Dynamics, s: Schedule) -> Tensor:
    """For each subgoal but the first, the least speed from the one before, in top speeds."""
    apart = torch.linalg.vector_norm(s.centre[:, 1:] - s.centre[:, :-1], dim=-1)
    between = (apart - s.radius[:, 1:] - s.radius[:, :-1]).clamp(min=0.0)
    steps = (s.first[:, 1:] - s.last[:, :-1]).clamp(min=1)
    speeds = between / (dynamics.top_speed * dynamics.dt_s * steps)
    return torch.nn.functional.pad(speeds, (1, 0))
