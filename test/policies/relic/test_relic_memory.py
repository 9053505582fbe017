"""The memory of a trial: room is made by whole episodes, and a restart forgets nothing."""

from __future__ import annotations

import pytest
import torch
from model_cases import at, made_up_trials, small_config, small_model

from embodied_rl.core.errors import UserError
from embodied_rl.policies.relic.memory import TrialMemory
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.tokens import Tokens

STEPS = 60


def played(model: RelicModel, tokens: Tokens, steps: range, **options) -> TrialMemory:
    memory = TrialMemory(model, **{"capacity": 4, **options})
    for t in steps:
        memory.step(at(tokens, t))
    return memory


def starts(tokens: Tokens) -> list[int]:
    return (tokens.time[0] == 0).nonzero()[:, 0].tolist()


def test_it_keeps_the_steps_it_was_shown():
    model, tokens = small_model(), made_up_trials(1, STEPS)
    memory = played(model, tokens, range(STEPS))
    assert memory.length == STEPS
    for name, kept, shown in zip(Tokens._fields, memory.tokens, tokens):
        assert torch.equal(kept, shown), name
        assert kept.dtype == shown.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_shapes(dtype):
    model = small_model()
    memory = played(model, made_up_trials(1, STEPS), range(STEPS), dtype=dtype)
    slots = memory.cache.capacity
    step_bytes = 6 * 2 + 3 * 4 + 8 + 4 + 8 + 8  # cells, features, action, reward, time, episode
    cache_bytes = model.config.transformer.cache_shape.bytes_for(1, slots, dtype)
    assert memory.nbytes == cache_bytes + slots * step_bytes


def test_room_is_made_by_the_fewest_whole_episodes():
    model, tokens = small_model(), made_up_trials(1, STEPS)
    begins = starts(tokens)
    for keep in (STEPS, STEPS - 1, 41, 30, 13):
        memory = played(model, tokens, range(STEPS))
        dropped = memory.make_room(keep)
        expected = min(begin for begin in begins if STEPS - begin <= keep)
        assert dropped == (begins.index(expected), expected)
        assert memory.length == STEPS - expected
        for kept, shown in zip(memory.tokens, tokens):
            assert torch.equal(kept, shown[:, expected:])
        assert torch.equal(memory.cache.episodes, tokens.episode[:, expected:].int())


def test_keys_and_values_that_stay_are_as_they_were_until_encoded_anew():
    model, tokens = small_model(), made_up_trials(1, STEPS)
    memory = played(model, tokens, range(STEPS - 1))
    whole = [memory.cache.seen(layer).keys.clone() for layer in range(2)]
    assert not memory.stale
    gone = memory.make_room(40).steps
    assert memory.stale
    for layer in range(2):
        assert torch.equal(memory.cache.seen(layer).keys[:, :, 1:], whole[layer][:, :, 1 + gone :])
    memory.encode()
    assert not memory.stale
    alone = Tokens(*(part[:, gone:] for part in tokens))
    first = alone.episode[:, :1]
    alone = alone._replace(episode=alone.episode - first)
    # encoded anew it is the memory of a trial that began with the oldest kept episode
    expected = played(model, alone, range(STEPS - 1 - gone))
    for layer in range(2):
        for ours, other in zip(memory.cache.seen(layer), expected.cache.seen(layer)):
            torch.testing.assert_close(ours, other, atol=1e-5, rtol=0)
    ours, other = memory.step(at(tokens, STEPS - 1)), expected.step(at(alone, STEPS - 1 - gone))
    torch.testing.assert_close(ours.logits, other.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.value, model(alone).value[:, -1], atol=1e-5, rtol=0)


def test_encoding_all_again_changes_nothing():
    model, tokens = small_model(), made_up_trials(1, STEPS)
    memory, other = (played(model, tokens, range(STEPS - 1)) for _ in range(2))
    memory.encode()
    last = at(tokens, STEPS - 1)
    torch.testing.assert_close(memory.step(last), other.step(last), atol=1e-5, rtol=0)


def test_a_running_episode_that_fills_the_context_is_named():
    model = small_model()
    tokens = made_up_trials(1, STEPS)
    begin = next(a for a, b in zip(starts(tokens), starts(tokens)[1:]) if b - a >= 5)
    memory = played(model, tokens, range(begin + 5), limit=begin + 5)
    with pytest.raises(UserError, match=f"context: expected at most {begin + 5} steps"):
        memory.step(at(tokens, begin + 5))
    with pytest.raises(UserError, match="running episode of at most 3 steps, saw 5"):
        memory.make_room(3)
    assert memory.length == begin + 5
    memory.make_room(5)
    assert memory.length == 5
    assert torch.equal(memory.tokens.time[0], torch.arange(5))


def test_a_new_trial_remembers_nothing():
    model, tokens = small_model(), made_up_trials(1, STEPS)
    memory = played(model, tokens, range(50))
    memory.make_room(30)
    memory.encode()
    memory.clear()
    assert memory.make_room(30) == (0, 0)
    memory.encode()
    fresh = TrialMemory(model)
    for t in range(20):
        assert torch.equal(memory.step(at(tokens, t)).logits, fresh.step(at(tokens, t)).logits)


def test_after_all_is_forgotten_a_trial_begins_with_whatever_comes():
    model, tokens = small_model(), made_up_trials(1, STEPS)
    begin = starts(tokens)[2]
    memory = played(model, tokens, range(begin))
    assert memory.make_room(0, running=False).steps == begin
    alone = Tokens(*(part[:, begin:] for part in tokens))
    expected = model(alone._replace(episode=alone.episode - 2)).logits
    for t in range(STEPS - begin):
        ours = memory.step(at(alone, t)).logits
        torch.testing.assert_close(ours, expected[:, t], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inter_episode", [True, False])
def test_a_restart_forgets_nothing(inter_episode, dtype):
    model, tokens = small_model(inter_episode=inter_episode), made_up_trials(1, STEPS)
    memory = played(model, tokens, range(50), dtype=dtype)
    memory.make_room(35)
    memory.encode()
    other = played(model, made_up_trials(1, 10, seed=1), range(10), dtype=dtype)
    other.load(memory.save())
    for t in range(50, STEPS):
        ours, theirs = memory.step(at(tokens, t)), other.step(at(tokens, t))
        assert torch.equal(ours.logits, theirs.logits)
    assert other.make_room(20) == memory.make_room(20)


def test_a_memory_of_another_model_is_refused():
    model, tokens = small_model(), made_up_trials(1, STEPS)
    blob = played(model, tokens, range(30)).save()
    changed = small_model()
    changed.actor.bias.data[0] += 1.0
    with pytest.raises(UserError, match="memory: expected that of relic/"):
        TrialMemory(changed).load(blob)
    with pytest.raises(UserError, match="memory: dtype: expected bfloat16"):
        TrialMemory(model, dtype=torch.bfloat16).load(blob)
    with pytest.raises(UserError, match="context: expected at most 20 steps, saw 30"):
        TrialMemory(model, capacity=4, limit=20).load(blob)
    with pytest.raises(UserError, match="damaged blob"):
        TrialMemory(model).load(blob[:100])


def test_codes_of_cells_must_fit_the_stored_form():
    with pytest.raises(ValueError, match="code_count"):
        small_config(code_count=40_000)
