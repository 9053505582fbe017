"""Trials in chunks: what was acted on is what is trained on, whatever changes in between."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trial_cases import make_trials

from embodied_rl.nn.sink_attention import MODES
from embodied_rl.policies.relic.episodes import EpisodeTable
from embodied_rl.policies.relic.model import Outputs, RelicModel
from embodied_rl.policies.relic.rollout import STEP_FIELDS, Trials, collect, joined, shuffled
from embodied_rl.policies.relic.tokens import Tokens
from embodied_rl.sim.navigation.base import Transition
from embodied_rl.training.ppo import PpoSettings, Rollout, advantages

KINDS = ("darkroom", "egocentric")


def disturb(model: RelicModel, seed: int = 1) -> None:
    """As an update does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def ratios(model: RelicModel, rollout: Rollout, begin: int) -> Tensor:
    """Odds of the actions in one pass over the trials, against those at which they were drawn."""
    now = model.evaluate(rollout.observation, rollout.action)[0]
    return (now - rollout.log_probability)[begin:].exp()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_ratios_are_one_before_the_weights_change(kind: str, mode: str) -> None:
    trials, model, generator = make_trials(kind, sink_mode=mode)
    first = collect(trials, 30, generator)
    assert (ratios(model, first, 0) - 1).abs().max() < 1e-4
    assert (model.evaluate(first.observation, first.action)[2] - first.value).abs().max() < 1e-4
    disturb(model)
    assert (ratios(model, first, 0) - 1).abs().max() > 0.05
    values = trials.refresh(first.observation)
    whole = joined(first, collect(trials, 30, generator))
    assert (ratios(model, whole, 30) - 1).abs().max() < 1e-4
    now = model.evaluate(whole.observation, whole.action)[2]
    assert (now[:30] - values).abs().max() < 1e-4


@pytest.mark.parametrize("inter_episode", [True, False])
def test_ratios_are_one_after_episodes_were_shuffled(inter_episode: bool) -> None:
    trials, model, generator = make_trials("egocentric", inter_episode=inter_episode)
    first = shuffled(collect(trials, 30, generator), generator)
    first.value = trials.refresh(first.observation)
    whole = joined(first, collect(trials, 30, generator))
    assert (ratios(model, whole, 30) - 1).abs().max() < 1e-4


def test_without_a_refresh_the_ratios_are_wrong() -> None:
    """The negative control: the cache of other weights is noticed."""
    trials, model, generator = make_trials("darkroom")
    first = collect(trials, 30, generator)
    disturb(model)
    whole = joined(first, collect(trials, 30, generator))
    assert (ratios(model, whole, 31) - 1).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_is_bootstrapped_with_the_step_after_it(kind: str) -> None:
    trials, model, generator = make_trials(kind)
    first = collect(trials, 20, generator)
    value = trials.next_value.clone()
    whole = joined(first, collect(trials, 1, generator))
    expected = model.evaluate(whole.observation, whole.action)[2][-1]
    assert torch.allclose(value, expected, atol=1e-5)
    assert not torch.allclose(value, first.value[-1], atol=1e-3)


def episodes_of(rollout: Rollout, trial: int) -> list[tuple[Tensor, ...]]:
    """Each episode's fields, but for its number."""
    tokens = rollout.observation._replace(episode=rollout.observation.reward)
    fields = [*tokens, *(getattr(rollout, key) for key in STEP_FIELDS)]
    starts = (rollout.observation.time[:, trial] == 0).nonzero()[:, 0].tolist()
    bounds = zip(starts, [*starts[1:], len(rollout.reward)])
    return [tuple(field[a:b, trial] for field in fields) for a, b in bounds]


def same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("steps", [56, 60])  # with an unfinished episode at the end, and without
def test_finished_episodes_are_put_in_another_order(steps: int) -> None:
    trials, _, generator = make_trials("darkroom", count=7)
    rollout = collect(trials, steps, generator)
    changed = shuffled(rollout, generator)
    assert (changed.observation.episode[0] == 0).all()
    assert (changed.observation.episode.diff(dim=0) == changed.ended[:-1].long()).all()
    settings, orders = PpoSettings(gamma=0.9, gae_lambda=0.8), set()
    last = torch.arange(7.0)
    before, after = (advantages(r, last, settings)[0] for r in (rollout, changed))
    for trial in range(7):
        old, new = episodes_of(rollout, trial), episodes_of(changed, trial)
        order = [next(i for i, e in enumerate(old) if same(e, episode)) for episode in new]
        assert sorted(order) == list(range(len(old)))
        assert steps == 56 or order[-1] == len(old) - 1
        orders.add(tuple(order))
        moved = torch.cat([before[7 * i : 7 * i + len(old[i][0]), trial] for i in order])
        assert torch.allclose(moved, after[:, trial])
    assert len(orders) > 4


class Elsewhere:
    """A network whose cache says that it is on another device."""

    def __init__(self, model: RelicModel) -> None:
        self.model, self.seen = model, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def new_cache(self, **options: int) -> object:
        self.cache = self.model.new_cache(**options)
        return SimpleNamespace(device=torch.device("meta"), clear=self.cache.clear)

    def write_sinks(self, _: object) -> None:
        self.model.write_sinks(self.cache)

    def step(self, tokens: Tokens, _: object) -> Outputs:
        assert {part.device.type for part in tokens} == {"meta"}
        self.seen += 1
        count = len(tokens.time)
        return Outputs(torch.zeros(count, self.config.action_count), torch.zeros(count))

    def extend(self, tokens: Tokens, _: object) -> Outputs:
        assert {part.device.type for part in tokens} == {"meta"}
        shape = tokens.time.shape
        return Outputs(torch.zeros(*shape, self.config.action_count), torch.zeros(shape))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_go_to_the_networks_device_and_what_is_kept_does_not(kind: str) -> None:
    example, model, generator = make_trials(kind)
    there = Elsewhere(model)
    trials = Trials(there, example.world, 5, 20, episodes=4)  # type: ignore[arg-type]
    trials.begin(example.worlds, generator)
    played = collect(trials, 9, generator)
    trials.refresh(played.observation)
    assert there.seen == 10
    kept = [*played.observation, *(getattr(played, key) for key in STEP_FIELDS)]
    assert {part.device.type for part in kept} == {"cpu"}


def test_the_table_of_episodes() -> None:
    generator, count, limit = torch.Generator().manual_seed(3), 6, 3
    table, lists = EpisodeTable(count, limit), [[[]] for _ in range(count)]
    for _ in range(30):
        flags = torch.rand(3, count, generator=generator)
        numbers = torch.randn(2, count, generator=generator)
        ended, success, familiar = flags < torch.tensor([[0.2], [0.5], [0.5]])
        step = Transition(None, numbers[0], ended, success, numbers[1], familiar)  # type: ignore[arg-type]
        assert table.complete == all(len(rows) > limit for rows in lists)
        table.add(step)
        for n, rows in enumerate(lists):
            rows[-1].append([float(part[n]) for part in step[1:]])
            if ended[n]:
                rows.append([])
    found = table.episodes()
    for n, rows in enumerate(lists):
        for k in range(limit):
            over = k < len(rows) - 1
            assert bool(found.finished[n, k]) == over
            if over:
                reward, _, success, efficiency, familiar = zip(*rows[k])
                assert found.returned[n, k] == pytest.approx(sum(reward), abs=1e-5)
                assert int(found.steps[n, k]) == len(reward)
                assert (bool(found.success[n, k]), bool(found.familiar[n, k])) == (
                    bool(success[-1]),
                    bool(familiar[-1]),
                )
                assert found.efficiency[n, k] == pytest.approx(efficiency[-1])
