"""Trials played step by step with a cache, in chunks between which the weights may change.

What is played is kept time first, ``(t, N, ...)``, for PPO on the trials so far. After a change of
the weights, the cache and the stored values are those of a network that is no more:
:meth:`Trials.refresh` makes them anew. The log-probabilities of the actions stay those of the
weights that acted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from embodied_rl.policies.relic.episodes import EpisodeTable
from embodied_rl.policies.relic.model import Outputs, RelicModel
from embodied_rl.policies.relic.tokens import Tokens, first_tokens, next_tokens
from embodied_rl.sim.navigation.base import Place, Transition, TrialWorld, View
from embodied_rl.training.ppo import Rollout

STEP_FIELDS = ("action", "log_probability", "value", "reward", "ended")


# What is seen ``(N,)`` and the actions that the network has drawn ``(N,)`` -> the actions taken
Choose = Callable[[Tokens, Tensor], Tensor]


class Played(NamedTuple):
    """One step of ``N`` trials: what was seen, what was done, what came of it."""

    tokens: Tokens
    action: Tensor  # (N,)
    log_probability: Tensor  # (N,)
    value: Tensor  # (N,)
    place: Place  # before the action
    transition: Transition


class Trials:
    """``count`` trials side by side, of at most ``steps`` steps each.

    The network may be on any device; the worlds, and all that is kept of the trials, are on the
    processor.

    The cache holds one step more than was acted in: the next one is encoded as soon as it is seen,
    for its value is what the steps before it are bootstrapped with.

    Args:
        episodes: of each trial that :attr:`table` keeps.

    Attributes:
        worlds: of the running trials, ``(N,)``.
        table: what became of their episodes.
        cache: the network's, over all steps seen.
    """

    def __init__(
        self, model: RelicModel, world: TrialWorld, count: int, steps: int, episodes: int
    ) -> None:
        self.world = world
        self._model, self._steps, self._episodes = model, steps, episodes
        self.cache = model.new_cache(batch=count, capacity=steps + 1, limit=steps + 1)

    @property
    def next_value(self) -> Tensor:
        """``(N,)``, of the step that comes next."""
        return self._next.value

    def begin(self, worlds: Tensor, generator: torch.Generator) -> None:
        """New trials in ``worlds`` ``(N,)``, with the present weights."""
        self.begin_with(worlds, self.world.reset(worlds, self._steps, generator))

    def begin_with(self, worlds: Tensor, view: View) -> None:
        """As :meth:`begin`, where the world has been reset already and shows ``view``."""
        self.worlds, self.table = worlds, EpisodeTable(len(worlds), self._episodes)
        self.cache.clear()
        self._model.write_sinks(self.cache)
        self._see(first_tokens(view))

    @torch.no_grad()
    def step(self, generator: torch.Generator, choose: Choose | None = None) -> Played:
        """Acts once: as the network has drawn, or as ``choose`` makes of that."""
        tokens, value = self._tokens, self.next_value
        log_probabilities = self._next.logits.log_softmax(dim=-1)
        action = torch.multinomial(log_probabilities.exp(), 1, generator=generator)[:, 0]
        if choose is not None:
            action = choose(tokens, action)
        log_probability = log_probabilities.gather(-1, action[:, None])[:, 0]
        place = self.world.place()
        transition = self.world.step(action)
        self.table.add(transition)
        self._see(next_tokens(tokens, action, transition))
        return Played(tokens, action, log_probability, value, place, transition)

    def refresh(self, past: Tokens) -> Tensor:
        """Encodes the steps acted in, ``(t, N)``, in a new order perhaps, and the next one with the
        present weights; returns the values of the former, ``(t, N)``."""
        self.cache.clear()
        self._model.write_sinks(self.cache)
        pairs = zip(past, self._tokens)
        tokens = Tokens(*(torch.cat([a, b[None]]).transpose(0, 1) for a, b in pairs))
        outputs = self._model.extend(_moved(tokens, self.cache.device), self.cache)
        logits, value = (part.cpu() for part in outputs)
        self._next = Outputs(logits[:, -1], value[:, -1])
        return value[:, :-1].T.contiguous()

    def _see(self, tokens: Tokens) -> None:
        """The step that comes next."""
        self._tokens = tokens
        outputs = self._model.step(_moved(tokens, self.cache.device), self.cache)
        self._next = Outputs(*(part.cpu() for part in outputs))


def _moved(tokens: Tokens, device: torch.device) -> Tokens:
    return Tokens(*(part.to(device) for part in tokens))


def collect(
    trials: Trials, steps: int, generator: torch.Generator, choose: Choose | None = None
) -> Rollout:
    """The next ``steps`` steps; their observation is :class:`Tokens` ``(steps, N, ...)``."""
    played = (trials.step(generator, choose) for _ in range(steps))
    tokens, *parts, _, transitions = zip(*played)
    parts.append([transition.reward for transition in transitions])
    parts.append([transition.ended for transition in transitions])
    observation = Tokens(*(torch.stack(part) for part in zip(*tokens)))
    return Rollout(observation, *(torch.stack(tuple(part)) for part in parts))


def joined(first: Rollout, second: Rollout) -> Rollout:
    """One after the other."""
    pairs = zip(first.observation, second.observation)
    observation = Tokens(*(torch.cat(pair) for pair in pairs))
    parts = [torch.cat([getattr(first, key), getattr(second, key)]) for key in STEP_FIELDS]
    return Rollout(observation, *parts)


def shuffled(rollout: Rollout, generator: torch.Generator) -> Rollout:
    """Each trial's finished episodes in random order; an unfinished one stays last.

    A trial's later episodes were played with more context and newer weights. In another order the
    network must do with any past, not only with one that becomes better and better.
    """
    episode = rollout.observation.episode  # (t, N)
    steps, count = episode.shape
    finished = torch.zeros(steps, count).scatter_reduce_(0, episode, rollout.ended.float(), "amax")
    place = torch.rand(steps, count, generator=generator).masked_fill_(finished == 0, 2.0)
    order = place.gather(0, episode).argsort(dim=0, stable=True)
    column = torch.arange(count)
    tokens = Tokens(*(part[order, column] for part in rollout.observation))
    tokens = tokens._replace(episode=(tokens.time == 0).long().cumsum(dim=0) - 1)
    return Rollout(tokens, *(getattr(rollout, key)[order, column] for key in STEP_FIELDS))
