"""The cache of keys and values: growth, limit, bytes, dropping, and the way to a file and back."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import torch

from embodied_rl.core.checkpoint import pack_memory, unpack_memory
from embodied_rl.core.errors import UserError
from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.kv_cache import CacheShape, KVCache

SHAPE = CacheShape(layers=3, heads=2, head_dim=4, sinks=2)


def filled(tokens: int, batch: int = 2, **options) -> KVCache:
    """Token t of layer l holds the number ``100 l + t`` everywhere; sinks hold -1."""
    cache = KVCache(SHAPE, batch=batch, **{"capacity": 4, **options})
    sink = torch.full((1, 2, 2, 4), -1.0)
    cache.write_sinks([KeysValues(sink, 2 * sink)] * 3)
    for t in range(tokens):
        put(cache, t)
    return cache


def put(cache: KVCache, t: int) -> None:
    cache.reserve(torch.full((cache.batch, 1), t // 5))
    for layer in range(3):
        keys = torch.full((cache.batch, 2, 1, 4), 100.0 * layer + t)
        cache.write(layer, torch.stack([keys, -keys]))
    cache.advance(1)


def held(cache: KVCache, layer: int) -> list[float]:
    """The number of each slot; all of a slot must be that number."""
    keys, values = cache.seen(layer)
    slots = keys[0, 0, :, 0]
    assert torch.equal(keys, slots[:, None].expand_as(keys).to(keys.dtype))
    assert torch.equal(values[:, :, 2:], -keys[:, :, 2:])
    return slots.tolist()


def test_growth_keeps_what_is_held():
    cache = filled(23)
    assert (cache.length, cache.capacity) == (23, 32)
    for layer in range(3):
        assert held(cache, layer) == [-1, -1, *(100 * layer + t for t in range(23))]
    assert cache.episodes.tolist() == [[t // 5 for t in range(23)]] * 2


def test_a_step_within_the_capacity_moves_nothing():
    cache = filled(5)
    before = [cache.seen(layer).keys.data_ptr() for layer in range(3)]
    put(cache, 5)
    assert [cache.seen(layer).keys.data_ptr() for layer in range(3)] == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [0, 4, 5, 23])
def test_bytes_are_those_of_the_shapes(tokens, dtype):
    cache = filled(tokens, dtype=dtype)
    assert cache.nbytes == SHAPE.bytes_for(2, cache.capacity, dtype)
    slots = cache.capacity + 2
    expected = 3 * 2 * 2 * 2 * slots * 4 * dtype.itemsize + 2 * cache.capacity * 4
    assert cache.nbytes == expected


def test_the_limit_is_reached_exactly_and_never_passed():
    cache = filled(10, capacity=4, limit=11)
    put(cache, 10)
    assert (cache.length, cache.capacity) == (11, 11)
    with pytest.raises(UserError, match="context: expected at most 11 steps, saw 12"):
        put(cache, 11)
    assert cache.length == 11
    assert held(cache, 0) == [-1, -1, *range(11)]


def test_oldest_and_newest_are_dropped_and_sinks_stay():
    cache = filled(12)
    cache.drop_oldest(5)
    assert held(cache, 1) == [-1, -1, *range(105, 112)]
    assert cache.episodes.tolist() == [[1, 1, 1, 1, 1, 2, 2]] * 2
    cache.drop_newest(2)
    assert held(cache, 2) == [-1, -1, *range(205, 210)]
    put(cache, 50)
    assert held(cache, 0) == [-1, -1, *range(5, 10), 50]
    cache.clear()
    assert held(cache, 0) == [-1, -1]
    for drop in (cache.drop_oldest, cache.drop_newest):
        with pytest.raises(ValueError, match="expected 0 to 0, saw 1"):
            drop(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_to_bytes_and_back(dtype):
    cache = filled(9, dtype=dtype)
    blob = pack_memory("owner", *cache.state())
    other = filled(3, dtype=dtype, capacity=16)
    other.restore(*unpack_memory("owner", blob))
    assert other.length == 9
    for layer in range(3):
        assert held(other, layer) == held(cache, layer)
    assert torch.equal(other.episodes, cache.episodes)
    put(other, 9)
    put(cache, 9)
    assert held(other, 2) == held(cache, 2)


def test_a_state_of_another_cache_is_refused():
    state = filled(9).state()
    for other, key in (
        (KVCache(CacheShape(3, 2, 4, 1), batch=2, capacity=4), "sinks"),
        (KVCache(CacheShape(2, 2, 4, 2), batch=2, capacity=4), "layers"),
        (KVCache(SHAPE, batch=1, capacity=4), "batch"),
        (KVCache(SHAPE, batch=2, capacity=4, dtype=torch.bfloat16), "dtype"),
    ):
        with pytest.raises(UserError, match=f"memory: {key}: expected"):
            other.restore(*state)
    small = filled(3, limit=8)
    with pytest.raises(UserError, match="context: expected at most 8 steps, saw 9"):
        small.restore(*state)
    assert held(small, 0) == [-1, -1, 0, 1, 2]


def test_what_is_made_in_inference_mode_can_be_used_outside():
    with torch.inference_mode():
        cache = filled(5)
    put(cache, 5)
    assert held(cache, 0) == [-1, -1, *range(6)]


@pytest.mark.parametrize("option", [{"dtype": torch.float16}, {"capacity": 9, "limit": 8}])
def test_options_that_cannot_be_are_named(option):
    with pytest.raises(ValueError, match="expected"):
        KVCache(SHAPE, **option)


def test_steps_leave_nothing_behind():
    cache = filled(100, capacity=4096)
    gc.collect()
    tracemalloc.start()
    for t in range(100, 200):
        put(cache, t)
    early = tracemalloc.get_traced_memory()[0]
    for t in range(200, 1200):
        put(cache, t)
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert late - early < 50_000
    assert cache.nbytes == SHAPE.bytes_for(2, 4096, torch.float32)
