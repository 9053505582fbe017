"""A start by imitation: a scripted searcher with a map says what it would have done.

Reinforcement learning first finds ways to do without memory, and a policy that is sure of them
explores no other. So trials may first be played by the network itself, with the steps of
:class:`MapSearcher`, which keeps its map over the episodes, as labels (DAgger, arXiv 1011.0686).
It acts on nothing but what the network was shown in the same trial, so all that it does can be
learned from the context. In a world of relative poses it knows more: where each episode began.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from embodied_rl.core.ranges import check_range
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.rollout import Trials, collect
from embodied_rl.policies.relic.tokens import Tokens
from embodied_rl.sim.navigation.base import View
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.sim.navigation.scripted import MapSearcher
from embodied_rl.training.ppo import PpoSettings, advantages


@dataclass(frozen=True)
class ImitationSettings:
    """The first ``transitions`` of a training, in whole iterations; 0 for none.

    The share of trials that the teacher acts in falls from 1 to 0 over the first half of them.
    """

    transitions: int = 0
    learning_rate: float = 1e-3
    epochs: int = 6
    minibatches: int = 6

    def __post_init__(self) -> None:
        check_range(self, "transitions", least=0)
        check_range(self, "epochs", "minibatches", least=1)
        check_range(self, "learning_rate", above=0)


@dataclass(frozen=True)
class ImitationFigures:
    """Means over an iteration's minibatches."""

    cross_entropy: float
    agreement: float  # share of steps at which the teacher's action is the likeliest
    value_loss: float
    auxiliary: float  # loss of recall


class Teacher:
    """The searcher beside running trials; acts in the first of them as well."""

    def __init__(self, world: EgocentricNavigation, count: int, led: int) -> None:
        self._searcher = MapSearcher(world, count, keep=True)
        self._led = torch.arange(count) < led
        self.labels: list[torch.Tensor] = []  # (N,) a step

    def __call__(self, tokens: Tokens, action: torch.Tensor) -> torch.Tensor:
        """Notes what it would do, and says what is done."""
        label = self._searcher.act(View(tokens.cells, tokens.features), tokens.time == 0)
        self.labels.append(label)
        return torch.where(self._led, label, action)


def imitate(
    model: RelicModel,
    optimizer: torch.optim.Optimizer,
    trials: Trials,
    steps: int,
    progress: float,
    settings: ImitationSettings,
    ppo: PpoSettings,
    generator: torch.Generator,
) -> ImitationFigures:
    """Plays the trials that have begun to their end, and learns actions and values of all steps.

    Args:
        progress: of the imitation, from 0 to 1.
    """
    count = len(trials.worlds)
    led = round(count * max(0.0, 1.0 - 2.0 * progress))
    assert isinstance(trials.world, EgocentricNavigation)
    teacher = Teacher(trials.world, count, led)
    rollout = collect(trials, steps, generator, choose=teacher)
    label = torch.stack(teacher.labels).T  # (N, T)
    returns = advantages(rollout, trials.next_value, ppo)[1].T
    tokens = Tokens(*(part.transpose(0, 1) for part in rollout.observation))
    sums, updates = torch.zeros(4), 0
    for _ in range(settings.epochs):
        order = torch.randperm(count, generator=generator)
        for part in order.tensor_split(settings.minibatches):
            (logits, value), recall = model.study(Tokens(*(x[part] for x in tokens)))
            wanted = label[part]
            cross_entropy = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            value_loss = 0.5 * (value - returns[part]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy + ppo.value_coefficient * value_loss
            (loss + ppo.auxiliary_coefficient * recall.mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), ppo.grad_clip)
            optimizer.step()
            agreement = (logits.argmax(dim=-1) == wanted).float().mean()
            sums += torch.stack([cross_entropy, agreement, value_loss, recall.mean()]).detach()
            updates += 1
    return ImitationFigures(*(sums / updates).tolist())
