"""PPO against plain loops: advantages, losses, minibatches, and a problem with a known answer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from embodied_rl.core.errors import UserError
from embodied_rl.training.ppo import (
    Evaluation,
    PpoSettings,
    Rollout,
    advantages,
    learning_rate,
    loss_terms,
    update,
)


def random_rollout(steps: int = 7, count: int = 3) -> Rollout:
    generator = torch.Generator().manual_seed(5)
    value, reward = torch.randn(2, steps, count, generator=generator)
    ended = torch.rand(steps, count, generator=generator) < 0.3
    shape = (steps, count, 1)
    observation, action = torch.randn(2, *shape, generator=generator)
    return Rollout(observation, action, torch.zeros(steps, count), value, reward, ended)


def test_advantages_are_the_sum_of_their_definition() -> None:
    rollout, settings = random_rollout(), PpoSettings(gamma=0.9, gae_lambda=0.8)
    last = torch.tensor([0.3, -1.0, 2.0])
    found, returns = advantages(rollout, last, settings)
    values = np.concatenate([rollout.value.numpy(), last[None].numpy()])
    for n in range(3):
        for t in range(7):
            expected, factor = 0.0, 1.0
            for u in range(t, 7):
                over = bool(rollout.ended[u, n])
                after = 0.0 if over else values[u + 1, n]
                expected += factor * (float(rollout.reward[u, n]) + 0.9 * after - values[u, n])
                if over:
                    break
                factor *= 0.9 * 0.8
            assert math.isclose(float(found[t, n]), expected, abs_tol=1e-5)
            assert math.isclose(float(returns[t, n]), expected + values[t, n], abs_tol=1e-5)


def test_losses_are_those_of_the_paper() -> None:
    new = torch.tensor([0.3, -0.4, 0.05, -0.02])
    advantage = torch.tensor([1.0, -2.0, -1.0, 3.0])
    value, target = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.5, 2.0, 2.0, 4.0])
    policy, critic, kl, clipped = loss_terms(new, value, torch.zeros(4), advantage, target, 0.2)
    expected = [
        min(math.exp(r) * a, min(max(math.exp(r), 0.8), 1.2) * a)
        for r, a in zip(new.tolist(), advantage.tolist())
    ]
    assert math.isclose(float(policy), -sum(expected) / 4, rel_tol=1e-5)
    assert math.isclose(float(critic), 0.5 * (0.25 + 1.0) / 4, rel_tol=1e-5)
    assert math.isclose(float(kl), sum(math.exp(r) - 1 - r for r in new.tolist()) / 4, rel_tol=1e-4)
    assert float(clipped) == 0.5


class Bandit(nn.Module):
    """One Gaussian action; its best value is 0.7."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.baseline = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.shapes: list[tuple[int, ...]] = []

    def evaluate(self, observation, action):
        self.shapes.append(tuple(observation.shape))
        noise = (action - self.mean) / 0.3
        log_probability = -0.5 * noise.square().sum(-1) - math.log(0.3 * math.sqrt(2 * math.pi))
        entropy = torch.zeros_like(log_probability)
        return Evaluation(log_probability, entropy, self.baseline.expand_as(log_probability))


class Recall(nn.Module):
    """Two actions; logits and value follow the mean of all that was seen so far."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.7, 0.9], dtype=torch.float64))

    def evaluate(self, observation, action):
        count = torch.arange(1, len(observation.seen) + 1, dtype=torch.float64)[:, None]
        mean = ((observation.seen * observation.scale).cumsum(0) / count)[-len(action) :]
        logits = torch.stack([self.weight[0] * mean, self.weight[1] * mean], dim=-1)
        chosen = torch.distributions.Categorical(logits=logits)
        return Evaluation(chosen.log_prob(action), chosen.entropy(), self.weight[2] * mean)


class Seen(NamedTuple):
    seen: torch.Tensor
    scale: torch.Tensor


def reference_losses(
    rollout: Rollout, last: np.ndarray, weight: np.ndarray, settings: PpoSettings, begin: int
) -> tuple[float, float, float]:
    """Policy loss, value loss and entropy in plain loops, over steps from ``begin`` on."""
    value, reward, ended, old, action = (
        x.numpy() for x in (rollout.value, rollout.reward, rollout.ended,
                            rollout.log_probability, rollout.action)
    )  # fmt: skip
    seen = (rollout.observation.seen * rollout.observation.scale).numpy()
    steps, count = value.shape
    gain = np.zeros((steps, count))
    for n in range(count):
        running = 0.0
        for t in reversed(range(steps)):
            after = last[n] if t == steps - 1 else value[t + 1, n]
            alive = 0.0 if ended[t, n] else 1.0
            delta = reward[t, n] + settings.gamma * after * alive - value[t, n]
            running = delta + settings.gamma * settings.gae_lambda * alive * running
            gain[t, n] = running
    target, judged = gain + value, gain[begin:]
    scaled = (judged - judged.mean()) / (judged.std(ddof=1) + 1e-8)
    policy, critic, entropy = [], [], []
    for t in range(begin, steps):
        for n in range(count):
            mean = seen[: t + 1, n].mean()
            odds = np.exp(weight[:2] * mean)
            share = odds / odds.sum()
            ratio = share[action[t, n]] / math.exp(old[t, n])
            limited = min(max(ratio, 1 - settings.clip), 1 + settings.clip)
            policy.append(-min(ratio * scaled[t - begin, n], limited * scaled[t - begin, n]))
            critic.append(0.5 * (weight[2] * mean - target[t, n]) ** 2)
            entropy.append(-(share * np.log(share)).sum())
    return tuple(float(np.mean(part)) for part in (policy, critic, entropy))


@pytest.mark.parametrize("begin", [0, 5, 8])
def test_losses_of_a_prefix_with_context_equal_the_reference(begin: int) -> None:
    """Episodes end here and there, the prefix is cut and bootstrapped, early steps are context."""
    generator = torch.Generator().manual_seed(begin)
    steps, count, kind = 9, 4, torch.float64
    seen, value, reward = torch.randn(3, steps, count, generator=generator, dtype=kind)
    ended = torch.rand(steps, count, generator=generator) < 0.25
    ended[-1, 0] = True
    action = torch.randint(2, (steps, count), generator=generator)
    old = torch.rand(steps, count, generator=generator, dtype=kind).mul(0.6).add(0.2).log()
    observation = Seen(seen, torch.full_like(seen, 1.5))
    rollout = Rollout(observation, action, old, value, reward, ended)
    last = torch.randn(count, generator=generator, dtype=kind)
    model, settings = Recall(), PpoSettings(gamma=0.9, gae_lambda=0.8, epochs=1, minibatches=1)
    expected = reference_losses(
        rollout, last.numpy(), model.weight.detach().numpy().copy(), settings, begin
    )
    figures = update(
        model, torch.optim.SGD(model.parameters(), lr=0.1), rollout, last, settings, generator,
        sequences=True, loss_from=begin,
    )  # fmt: skip
    found = (figures.policy_loss, figures.value_loss, figures.entropy)
    assert found == pytest.approx(expected, abs=1e-6)


def test_it_finds_the_best_action() -> None:
    torch.manual_seed(0)
    model, settings = Bandit(), PpoSettings(epochs=4, minibatches=2, entropy_coefficient=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        action = model.mean.detach() + 0.3 * torch.randn(1, 128, 1, generator=generator)
        observation = torch.zeros(1, 128, 1)
        with torch.no_grad():
            log_probability, _, value, _ = model.evaluate(observation, action)
        reward = -(action[..., 0] - 0.7).square()
        ended = torch.ones(1, 128, dtype=torch.bool)
        rollout = Rollout(observation, action, log_probability, value, reward, ended)
        update(model, optimizer, rollout, torch.zeros(128), settings, generator)
    assert abs(model.mean.item() - 0.7) < 0.1


def test_minibatches_cover_steps_or_whole_sequences() -> None:
    rollout, generator = random_rollout(7, 6), torch.Generator().manual_seed(0)
    settings = PpoSettings(epochs=1, minibatches=3)
    for sequences, expected in ((False, [(14, 1)] * 3), (True, [(7, 2, 1)] * 3)):
        model = Bandit()
        optimizer = torch.optim.Adam(model.parameters())
        update(model, optimizer, rollout, torch.zeros(6), settings, generator, sequences=sequences)
        assert model.shapes == expected
    with pytest.raises(UserError, match="minibatches: expected at most 6, saw 7"):
        many = PpoSettings(epochs=1, minibatches=7)
        update(model, optimizer, rollout, torch.zeros(6), many, generator, sequences=True)


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    rollout, model = random_rollout(), Bandit()
    rollout.reward[0, 0] = float("nan")
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(UserError, match="not a finite number"):
        update(
            model, optimizer, rollout, torch.zeros(3), PpoSettings(minibatches=2),
            torch.Generator(),
        )  # fmt: skip


def test_learning_rate_and_bad_settings() -> None:
    settings = PpoSettings(learning_rate=0.01, final_rate=0.1)
    assert [learning_rate(settings, s) for s in (0.0, 0.5, 1.0)] == pytest.approx(
        [0.01, 0.0055, 0.001]
    )
    settings = PpoSettings(learning_rate=0.01, final_rate=0.1, hold=0.8)
    shares = (0.0, 0.8, 0.9, 1.0)
    assert [learning_rate(settings, s) for s in shares] == pytest.approx(
        [0.01, 0.01, 0.0055, 0.001]
    )
    for key, value in (
        ("epochs", 0),
        ("clip", 0.0),
        ("gamma", 1.5),
        ("hold", 1.0),
        ("entropy_coefficient", -1.0),
    ):
        with pytest.raises(ValueError, match=key):
            PpoSettings(**{key: value})
