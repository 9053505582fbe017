"""ReLIC's network: acting and training see the same numbers, and only with a fresh cache."""

from __future__ import annotations

import pytest
import torch
from model_cases import ACTIONS, HORIZON, at, made_up_trials, small_config, small_model

from embodied_rl.core.errors import UserError
from embodied_rl.nn.kv_cache import KVCache
from embodied_rl.nn.sink_attention import MODES
from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.model import Outputs, RelicModel
from embodied_rl.policies.relic.tokens import Tokens

BATCH, STEPS, CHUNK = 3, 60, 20


def act(model: RelicModel, tokens: Tokens, cache: KVCache, steps: range) -> Outputs:
    outputs = [model.step(at(tokens, t), cache) for t in steps]
    return Outputs(*(torch.stack(part, dim=1) for part in zip(*outputs)))


def ratios(model: RelicModel, tokens: Tokens, acted: Outputs, steps: range) -> torch.Tensor:
    """PPO's ratios, of training over acting, of actions drawn while acting."""
    log_p = acted.logits.log_softmax(dim=-1)
    action = torch.zeros(tokens.time.shape, dtype=torch.int64)
    action[:, steps] = acted.logits.argmax(dim=-1)
    old = log_p.gather(-1, action[:, steps, None])[..., 0]
    time_first = Tokens(*(part.transpose(0, 1) for part in tokens))
    new = model.evaluate(time_first, action.T)[0].T[:, steps]
    return (new - old).exp()


def change_weights(model: RelicModel) -> None:
    torch.manual_seed(9)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)


@pytest.mark.parametrize("inter_episode", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_ratio_is_one_while_weights_stay(mode, inter_episode):
    model = small_model(sink_mode=mode, inter_episode=inter_episode)
    tokens = made_up_trials(BATCH, STEPS)
    acted = act(model, tokens, model.new_cache(batch=BATCH), range(STEPS))
    found = ratios(model, tokens, acted, range(STEPS))
    torch.testing.assert_close(found, torch.ones_like(found), atol=1e-4, rtol=0)
    torch.testing.assert_close(acted.value, model(tokens).value, atol=1e-4, rtol=0)


def test_actions_of_the_last_steps_are_judged_in_the_context_of_all():
    model, tokens = small_model(), made_up_trials(BATCH, STEPS)
    time_first = Tokens(*(part.transpose(0, 1) for part in tokens))
    action = torch.randint(ACTIONS, (STEPS, BATCH), generator=torch.Generator().manual_seed(0))
    for last, whole in zip(
        model.evaluate(time_first, action[-CHUNK:]), model.evaluate(time_first, action)
    ):
        assert last.shape == (CHUNK, BATCH)
        torch.testing.assert_close(last, whole[-CHUNK:], atol=1e-5, rtol=1e-5)


def test_a_crop_is_the_codes_of_its_cells_in_one_row():
    crop, cells = small_model().crop, made_up_trials(BATCH, STEPS).cells
    looked_up = torch.nn.functional.embedding(cells, crop.codes.weight).flatten(-2)
    torch.testing.assert_close(crop(cells), crop.linear(looked_up).relu())


@pytest.mark.parametrize("mode", MODES)
def test_after_a_change_of_weights_only_a_fresh_cache_gives_ratio_one(mode):
    model = small_model(sink_mode=mode)
    tokens = made_up_trials(BATCH, STEPS)
    later = range(STEPS - CHUNK, STEPS)
    stale, fresh = (model.new_cache(batch=BATCH) for _ in range(2))
    for cache in (stale, fresh):
        act(model, tokens, cache, range(STEPS - CHUNK))
    change_weights(model)
    fresh.clear()
    model.write_sinks(fresh)
    model.extend(at(tokens, slice(0, STEPS - CHUNK)), fresh)
    good = ratios(model, tokens, act(model, tokens, fresh, later), later)
    torch.testing.assert_close(good, torch.ones_like(good), atol=1e-4, rtol=0)
    # the negative control: without it the same test sees the old network's keys and values
    bad = ratios(model, tokens, act(model, tokens, stale, later), later)
    assert (bad - 1.0).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["kv", "token"])
def test_forgetting_to_rewrite_the_sinks_is_seen(mode):
    model = small_model(sink_mode=mode)
    tokens = made_up_trials(BATCH, STEPS)
    cache = model.new_cache(batch=BATCH)
    change_weights(model)
    value = model.extend(tokens, cache).value
    assert not torch.allclose(value, model(tokens).value, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_a_refreshed_cache_is_that_of_a_fresh_full_pass(mode):
    model = small_model(sink_mode=mode, sinks=2)
    tokens = made_up_trials(BATCH, STEPS)
    cache, fresh = (model.new_cache(batch=BATCH) for _ in range(2))
    act(model, tokens, cache, range(STEPS))
    change_weights(model)
    cache.clear()
    model.write_sinks(cache)
    refreshed = model.extend(tokens, cache)
    model.write_sinks(fresh)
    act(model, tokens, fresh, range(STEPS))
    for layer in range(2):
        for ours, other in zip(cache.seen(layer), fresh.seen(layer)):
            torch.testing.assert_close(ours, other, atol=1e-5, rtol=0)
    torch.testing.assert_close(refreshed.value, model(tokens).value, atol=1e-4, rtol=0)


def test_every_part_of_a_token_counts():
    model = small_model()
    for block in model.transformer.blocks:
        block.attention.qkv.weight.data *= 3.0  # sharp enough that angles matter
    tokens = made_up_trials(1, 20)
    before = model(tokens).value[:, -1]
    changes = {
        "cells": (tokens.cells + 1) % 5, "features": tokens.features + 1.0,
        "action": tokens.action % ACTIONS + 1, "reward": tokens.reward + 1.0,
        "time": (tokens.time + 1) % HORIZON,
        "episode": torch.arange(20)[None],
    }  # fmt: skip
    assert set(changes) == set(Tokens._fields)
    for name, value in changes.items():
        after = model(tokens._replace(**{name: value})).value[:, -1]
        assert not torch.allclose(before, after, atol=1e-4), name


def test_without_previous_reward_it_is_not_seen():
    model = small_model(previous_reward=False)
    tokens = made_up_trials(1, 20)
    other = model(tokens._replace(reward=tokens.reward + 1.0))
    assert torch.equal(model(tokens).value, other.value)


def test_evaluate_agrees_with_torchs_distribution():
    model = small_model()
    tokens = made_up_trials(BATCH, STEPS)
    action = torch.randint(0, ACTIONS, (STEPS, BATCH), generator=torch.Generator().manual_seed(0))
    time_first = Tokens(*(part.transpose(0, 1) for part in tokens))
    log_p, entropy, value = model.evaluate(time_first, action)[:3]
    logits, expected_value = model(tokens)
    expected = torch.distributions.Categorical(logits=logits.transpose(0, 1))
    torch.testing.assert_close(log_p, expected.log_prob(action))
    torch.testing.assert_close(entropy, expected.entropy())
    assert torch.equal(value, expected_value.T)
    assert value.shape == (STEPS, BATCH)


def test_a_fresh_model_has_no_preference_and_the_size_it_should_have():
    torch.manual_seed(0)
    model = RelicModel(RelicConfig(action_count=5, horizon=25, feature_count=12))
    tokens = made_up_trials(2, 20)
    tokens = tokens._replace(cells=tokens.cells[..., :0], features=torch.randn(2, 20, 12))
    chances = model(tokens._replace(action=tokens.action % 6)).logits.softmax(dim=-1)
    torch.testing.assert_close(chances, torch.full_like(chances, 0.2), atol=0.02, rtol=0)
    blocks = sum(p.numel() for p in model.transformer.parameters())
    assert blocks == 2 * (4 * 64**2 + 3 * 64 * 256 + 2 * 64 + 2 * 64) + 64


def test_an_episode_longer_than_the_horizon_is_refused():
    model = small_model()
    tokens = made_up_trials(1, 3)
    late = at(tokens, 2)._replace(time=torch.tensor([HORIZON]))
    with pytest.raises(UserError, match=f"at most {HORIZON} steps"):
        model.step(late, model.new_cache())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("action_count", 1), ("horizon", 0), ("cell_count", 0), ("code_count", 1),
        ("feature_count", -1), ("width", 33), ("sink_mode", "both"), ("crop_width", 0),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_are_named(key, value):
    named = "code_count" if key == "cell_count" else key
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        small_config(**{key: value})
