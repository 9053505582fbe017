"""Time allocation: which alternative, and when each subgoal is to be met.

Two ways: uniform over the feasible assignments, and a Metropolis-Hastings chain whose target is

    p(alternative, times | state) ~ exp(V / eta) on the feasible assignments, 0 elsewhere

with V the critic's value of the start (arXiv 2510.00225 names both; proposals, eta and schedule are
our design).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embodied_rl.core.errors import UserError
from embodied_rl.core.ranges import check_range
from embodied_rl.policies.tgpo.groundings import Groundings

Value = Callable[[Tensor, Tensor], Tensor]  # alternatives (N,), times (N, V) -> values (N,)
_ROUNDS = 400


@dataclass(frozen=True)
class AllocationSettings:
    """When and how hard the critic guides.

    ``guided`` is the share of episodes whose times come from the chain; uniform draws never vanish,
    so that every assignment keeps a positive probability. ``warmup`` iterations are all uniform.
    """

    guided: float = 0.5
    warmup: int = 5
    chain_steps: int = 10
    temperature: float = 0.5  # eta in units of the standard deviation of V over uniform draws
    least_temperature: float = 0.05
    local: float = 0.7  # share of proposals that move one time
    swap: float = 0.1  # share that exchange two; the rest draws anew
    width: float = 0.15  # deviation of a local move, as a share of the interval

    def __post_init__(self) -> None:
        check_range(self, "guided", least=0, most=0.75)
        check_range(self, "warmup", least=0)
        check_range(self, "chain_steps", least=1)
        if min(self.local, self.swap) < 0 or self.local + self.swap >= 1:
            raise ValueError(
                f"local, swap: expected shares of a sum below 1, saw {self.local}, {self.swap}"
            )
        check_range(self, "temperature", "least_temperature", "width", above=0)


def uniform(
    groundings: Groundings, task: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Alternatives ``(N,)`` and times ``(N, V)`` for tasks ``(N,)``, and the share of draws that
    were infeasible and drawn anew.

    Each alternative of a task is as likely as the others, and within one each feasible assignment.

    Raises:
        UserError: a task has hardly a feasible assignment; names it.
    """
    chosen = _alternative(groundings, task, generator)
    times = redraw(groundings, chosen, generator)
    left = torch.nonzero(~groundings.feasible(chosen, times))[:, 0]
    refused = len(left)
    for _ in range(_ROUNDS):
        if not len(left):
            return chosen, times, refused / (len(task) + refused)
        times[left] = redraw(groundings, chosen[left], generator)
        left = left[~groundings.feasible(chosen[left], times[left])]
        refused += len(left)
    name = groundings.tasks[int(task[left[0]])].name
    raise UserError(f"task {name}: no feasible times among {_ROUNDS} draws for an alternative")


def _alternative(groundings: Groundings, task: Tensor, generator: torch.Generator) -> Tensor:
    share = torch.rand(len(task), generator=generator)
    return groundings.begins[task] + (share * groundings.counts[task]).long()


def redraw(groundings: Groundings, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Times ``(N, V)`` within the bounds of alternatives ``(N,)``, uniform, perhaps infeasible."""
    low, high = groundings.low[chosen], groundings.high[chosen]
    # in float64: with float32 a share may round up to 1, one step past the interval
    share = torch.rand(low.shape, generator=generator, dtype=torch.float64)
    return low + (share * (high - low + 1)).long()


def metropolis_hastings(
    groundings: Groundings,
    chosen: Tensor,
    times: Tensor,
    value: Value,
    temperature: Tensor | float,
    settings: AllocationSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, float]:
    """One chain for each row, from ``(chosen, times)`` on, ``settings.chain_steps`` steps.

    Returns:
        Alternatives ``(N,)``, times ``(N, V)`` and values ``(N,)`` of the ends, and the share of
        proposals that were accepted.
    """
    chosen, times = chosen.clone(), times.clone()
    now = value(chosen, times)
    accepted = 0.0
    for _ in range(settings.chain_steps):
        new_chosen, new_times, correction = propose(groundings, chosen, times, settings, generator)
        possible = groundings.feasible(new_chosen, new_times)
        proposed = value(new_chosen, new_times)
        threshold = torch.rand(len(now), generator=generator).log()
        take = possible & (threshold < (proposed - now) / temperature + correction)
        chosen = torch.where(take, new_chosen, chosen)
        times = torch.where(take[:, None], new_times, times)
        now = torch.where(take, proposed, now)
        accepted += float(take.float().mean())
    return chosen, times, now, accepted / settings.chain_steps


def propose(
    groundings: Groundings,
    chosen: Tensor,
    times: Tensor,
    settings: AllocationSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """New alternatives and times, perhaps infeasible, and ``log q(old|new) - log q(new|old)``.

    A local move wraps around its interval and an exchange undoes itself: both are symmetric. A
    fresh draw is as likely as its box is small, so boxes of two alternatives enter as their ratio.
    """
    count = len(chosen)
    kind = torch.rand(count, generator=generator)
    low, high = groundings.low[chosen], groundings.high[chosen]
    span = high - low + 1
    first, second = _two_places(groundings.used[chosen], generator)
    moved = times.clone()
    at = times.gather(1, first)
    width, base = span.gather(1, first), low.gather(1, first)
    noise = torch.randn(count, 1, generator=generator) * settings.width * width
    moved.scatter_(1, first, base + torch.remainder(at - base + noise.round().long(), width))
    exchanged = times.scatter(1, first, times.gather(1, second)).scatter(1, second, at)
    task = groundings.task[chosen]
    fresh_chosen = _alternative(groundings, task, generator)
    fresh = redraw(groundings, fresh_chosen, generator)
    local, exchange = kind < settings.local, kind < settings.local + settings.swap
    new_times = torch.where(exchange[:, None], exchanged, fresh)
    new_times = torch.where(local[:, None], moved, new_times)
    new_chosen = torch.where(exchange, chosen, fresh_chosen)
    correction = _log_box(groundings, new_chosen) - _log_box(groundings, chosen)
    return new_chosen, new_times, correction


def _two_places(used: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two different used variables ``(N, 1)`` each; twice the same where there is but one."""
    score = torch.rand(used.shape, generator=generator) + used.float()
    order = score.argsort(dim=1, descending=True)
    first = order[:, :1]
    if used.shape[1] == 1:
        return first, first
    second = order[:, 1:2]
    return first, torch.where(used.gather(1, second), second, first)


def _log_box(groundings: Groundings, chosen: Tensor) -> Tensor:
    span = groundings.high[chosen] - groundings.low[chosen] + 1
    return span.double().log().sum(dim=1).float()
