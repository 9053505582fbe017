"""Proximal policy optimisation (arXiv 1707.06347) over environments that step together.

What a policy is, and how it is called on a batch, is the caller's: :class:`ActorCritic`. Rollouts
are kept time first, ``(T, N, ...)``, so a recurrent or attention policy may be trained on whole
sequences of some environments (``sequences``), a feed-forward one on shuffled single steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from embodied_rl.core.errors import UserError
from embodied_rl.core.ranges import check_range


@dataclass(frozen=True)
class PpoSettings:
    """The usual knobs; one iteration is a rollout and ``epochs`` passes over it.

    ``minibatches`` is the number of parts of a pass. The learning rate stays for the share ``hold``
    of the training (arXiv 2404.06395), then falls linearly to ``final_rate`` of itself.
    ``target_kl`` ends the passes of an iteration early; 0 never does.
    """

    learning_rate: float = 1e-3
    final_rate: float = 0.1
    hold: float = 0.0
    gamma: float = 0.995
    gae_lambda: float = 0.95
    clip: float = 0.2
    epochs: int = 6
    minibatches: int = 8
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.003
    auxiliary_coefficient: float = 0.0
    grad_clip: float = 1.0
    target_kl: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "epochs", "minibatches", least=1)
        check_range(self, "learning_rate", "clip", "grad_clip", above=0)
        check_range(self, "gamma", "gae_lambda", "final_rate", least=0, most=1)
        check_range(self, "hold", least=0, below=1)
        check_range(self, "value_coefficient", "entropy_coefficient", least=0)
        check_range(self, "auxiliary_coefficient", "target_kl", least=0)


class ActorCritic(Protocol):
    """What the update needs of a policy: the densities and values of actions that were taken.

    Of sequences the actions may be those of the last steps only; the steps before are context.
    """

    def evaluate(self, observation: Any, action: Tensor) -> Evaluation: ...


class Evaluation(NamedTuple):
    """``(B,)`` each, or ``(n, B)`` on sequences, of the steps whose actions were given."""

    log_probability: Tensor
    entropy: Tensor
    value: Tensor
    auxiliary: Tensor | None = None  # loss of a second task, if there is one


@dataclass
class Rollout:
    """``T`` steps of ``N`` environments; ``ended`` after a step that was an episode's last."""

    observation: Any  # (T, N, ...), or a NamedTuple of several such tensors
    action: Tensor  # (T, N, ...)
    log_probability: Tensor  # (T, N)
    value: Tensor  # (T, N)
    reward: Tensor  # (T, N)
    ended: Tensor  # (T, N) bool

    @property
    def transitions(self) -> int:
        return self.reward.numel()


@dataclass(frozen=True)
class UpdateFigures:
    """Means over an iteration's minibatches."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: float
    auxiliary: float  # loss of the second task; 0 without one


def advantages(
    rollout: Rollout, last_value: Tensor, settings: PpoSettings
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (arXiv 1506.02438) and the returns, ``(T, N)`` each.

    Args:
        last_value: ``(N,)`` of the observation after the last step; not looked at where the
            episode ended there.
    """
    alive = (~rollout.ended).to(rollout.value.dtype)
    following = torch.cat([rollout.value[1:], last_value[None]])
    delta = rollout.reward + settings.gamma * following * alive - rollout.value
    decay = settings.gamma * settings.gae_lambda * alive
    found = torch.empty_like(delta)
    running = torch.zeros_like(last_value)
    for t in range(len(delta) - 1, -1, -1):
        running = torch.addcmul(delta[t], decay[t], running)
        found[t] = running
    return found, found + rollout.value


def loss_terms(
    log_probability: Tensor,
    value: Tensor,
    old_log_probability: Tensor,
    advantage: Tensor,
    returns: Tensor,
    clip: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy loss, value loss, an estimate of KL(old, new), and the share of clipped ratios."""
    log_ratio = log_probability - old_log_probability
    ratio = log_ratio.exp()
    limited = ratio.clamp(1.0 - clip, 1.0 + clip)
    policy_loss = -torch.minimum(ratio * advantage, limited * advantage).mean()
    value_loss = 0.5 * (value - returns).square().mean()
    with torch.no_grad():
        kl = (ratio - 1.0 - log_ratio).mean()
        clipped = (ratio != limited).float().mean()
    return policy_loss, value_loss, kl, clipped


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    last_value: Tensor,
    settings: PpoSettings,
    generator: torch.Generator,
    *,
    sequences: bool = False,
    loss_from: int = 0,
) -> UpdateFigures:
    """Trains ``model`` (an :class:`ActorCritic`) in place on one rollout.

    Args:
        sequences: hand out whole sequences ``(T, b, ...)`` of some environments, not single steps.
        loss_from: the first step of sequences that has a loss; those before it are context.

    Raises:
        UserError: more minibatches than there is to share out, or the loss is not finite.
    """
    with torch.no_grad():
        advantage, returns = advantages(rollout, last_value, settings)
        advantage = advantage[loss_from:]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    taken = (rollout.action, rollout.log_probability)
    judged = [*(part[loss_from:] for part in taken), advantage, returns[loss_from:]]
    fields = [rollout.observation, *judged]
    if not sequences:
        fields = [_mapped(field, lambda part: part.flatten(0, 1)) for field in fields]
    sums, count = torch.zeros(6), 0
    for _ in range(settings.epochs):
        for observation, action, old, gain, target in _minibatches(
            fields, settings.minibatches, int(sequences), generator
        ):
            log_probability, entropy, value, second = model.evaluate(observation, action)
            policy_loss, value_loss, kl, clipped = loss_terms(
                log_probability, value, old, gain, target, settings.clip
            )
            entropy = entropy.mean()
            loss = policy_loss + settings.value_coefficient * value_loss
            loss = loss - settings.entropy_coefficient * entropy
            auxiliary = torch.zeros(())
            if second is not None:
                auxiliary = second.mean()
                loss = loss + settings.auxiliary_coefficient * auxiliary
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimizer.step()
            parts = [policy_loss, value_loss, entropy, kl, clipped, auxiliary]
            sums += torch.stack(parts).detach()
            count += 1
        if 0 < settings.target_kl < float(kl):
            break
    if not torch.isfinite(sums).all():
        raise UserError("training: the loss is not a finite number; lower ppo.learning_rate")
    return UpdateFigures(*(sums / count).tolist())


def _minibatches(
    fields: list[Any], parts: int, dim: int, generator: torch.Generator
) -> Iterator[list[Any]]:
    """The fields' rows (along ``dim``) in random order, in ``parts`` parts of nearly equal size."""
    rows = fields[-1].shape[dim]
    if parts > rows:
        raise UserError(f"ppo.minibatches: expected at most {rows}, saw {parts}")
    order = torch.randperm(rows, generator=generator)
    for part in order.tensor_split(parts):
        yield [_mapped(field, lambda x, of=part: x.index_select(dim, of)) for field in fields]


def _mapped(field: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """``function`` of a tensor, or of each one in a NamedTuple."""
    if isinstance(field, Tensor):
        return function(field)
    return type(field)(*(function(part) for part in field))


def learning_rate(settings: PpoSettings, done: float) -> float:
    """At a share ``done`` of the training."""
    fallen = min(max(done - settings.hold, 0.0) / (1.0 - settings.hold), 1.0)
    return settings.learning_rate * (1.0 - (1.0 - settings.final_rate) * fallen)
