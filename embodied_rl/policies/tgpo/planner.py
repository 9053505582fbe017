"""Choosing times at run time: candidates, the critic's pick, and new times for what was missed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embodied_rl.policies.tgpo.allocate import (
    AllocationSettings,
    metropolis_hastings,
    redraw,
    uniform,
)
from embodied_rl.policies.tgpo.groundings import Groundings
from embodied_rl.policies.tgpo.mdp import AugmentedMdp, RewardWeights
from embodied_rl.policies.tgpo.model import GaussianActorCritic

_ROWS = 1 << 15  # candidates that are scored at once, to bound the memory


@dataclass
class Plan:
    """Alternative ``(N,)`` and times ``(N, V)`` of N robots, and the critic's value ``(N,)``."""

    chosen: Tensor
    times: Tensor
    value: Tensor


class Critic:
    """V at the start of episodes in given states, as a function of the assignment."""

    def __init__(self, model: GaussianActorCritic, groundings: Groundings, state: Tensor):
        self._model, self._groundings, self._state = model, groundings, state
        self._mdp = AugmentedMdp(groundings.dynamics, RewardWeights())

    @torch.no_grad()
    def __call__(self, chosen: Tensor, times: Tensor) -> Tensor:
        """``(N,)``."""
        schedule = self._groundings.schedule(chosen, times)
        return self._model.value(self._mdp.reset(self._state, schedule))


def temperature(values: Tensor, task: Tensor, settings: AllocationSettings) -> float:
    """eta: a share of the spread of V over uniform draws within the same task."""
    count = torch.bincount(task).clamp(min=1)
    mean = torch.zeros(len(count)).index_add_(0, task, values) / count
    spread = float((values - mean[task]).square().mean().sqrt())
    return max(settings.temperature * spread, settings.least_temperature)


class Planner:
    """Assignments for robots of given tasks, by the critic of a trained model.

    ``candidates`` are drawn for each robot, half uniformly and half by chains from such draws; the
    one with the highest value is taken. With ``candidates = 1`` the times are a uniform draw.
    """

    def __init__(
        self,
        model: GaussianActorCritic,
        groundings: Groundings,
        settings: AllocationSettings,
        candidates: int,
    ):
        self._model, self.groundings, self._candidates = model, groundings, candidates
        self._settings = replace(settings, chain_steps=max(settings.chain_steps, 10))

    def plan(self, task: Tensor, state: Tensor, generator: torch.Generator) -> Plan:
        """The best assignments for tasks ``(N,)`` from states ``(N, n)``."""
        at_once = max(1, _ROWS // self._candidates)
        parts = [
            self._plan(t, s, generator) for t, s in zip(task.split(at_once), state.split(at_once))
        ]
        return Plan(*(torch.cat([getattr(p, k) for p in parts]) for k in vars(parts[0])))

    def _plan(self, task: Tensor, state: Tensor, generator: torch.Generator) -> Plan:
        count, draws = len(task), self._candidates
        many = task.repeat_interleave(draws)
        critic = Critic(self._model, self.groundings, state.repeat_interleave(draws, dim=0))
        chosen, times, _ = uniform(self.groundings, many, generator)
        values = critic(chosen, times)
        guided = draws // 2
        if guided:
            rows = (torch.arange(draws) < guided).repeat(count)
            eta = temperature(values, many, self._settings)
            chain = Critic(self._model, self.groundings, state.repeat_interleave(guided, dim=0))
            chosen[rows], times[rows], values[rows], _ = metropolis_hastings(
                self.groundings, chosen[rows], times[rows], chain, eta, self._settings, generator
            )
        best = values.view(count, draws).argmax(dim=1) + draws * torch.arange(count)
        return Plan(chosen[best], times[best], values[best])

    @torch.no_grad()
    def replan(
        self, mdp: AugmentedMdp, rows: Tensor, plan: Plan, generator: torch.Generator
    ) -> Tensor:
        """New times, after the present step, for the subgoals that robots ``rows (R,)`` missed.

        What is done keeps its times, and so does a window that is under way unbroken. ``plan`` and
        ``mdp`` are changed where a feasible assignment was found.

        Returns:
            Which of the rows got new times ``(R,)``.
        """
        order = self.groundings.ordered(plan.chosen[rows], plan.times[rows])[1]
        done = _by_item(mdp.done[rows], order)
        settled = done | _by_item(mdp.under_way[rows], order)
        count, draws = len(rows), max(self._candidates // 4, 16)
        many = torch.arange(count).repeat_interleave(draws)
        chosen, old = plan.chosen[rows][many], plan.times[rows][many]
        fixed = self.groundings.fixed(chosen, settled[many])
        times = torch.where(fixed, old, redraw(self.groundings, chosen, generator))
        possible = self.groundings.feasible(chosen, times)
        possible &= self.groundings.ahead(chosen, times, settled[many], mdp.t)
        schedule, places = self.groundings.ordered(chosen, times)
        branch = mdp.branch(rows[many], schedule, done[many].gather(1, places))
        values = torch.zeros(len(many))  # of one candidate: a random one, unjudged
        if self._candidates > 1:
            values = self._model.value(branch.observe())
        values = values.masked_fill(~possible, -float("inf"))
        best_value, best = values.view(count, draws).max(dim=1)
        found = torch.isfinite(best_value)
        best = (best + draws * torch.arange(count))[found]
        plan.times[rows[found]], plan.value[rows[found]] = times[best], best_value[found]
        mdp.reschedule(rows[found], schedule[best], done[many][best].gather(1, places[best]))
        return found


def _by_item(mask: Tensor, order: Tensor) -> Tensor:
    """A mask ``(N, K)`` of subgoals in order of time as one by their items."""
    return torch.zeros_like(mask).scatter(1, order, mask)
