"""Decoding steps of our transformer for `relic_latency`, in a process of its own.

Settings: ``context`` steps that are in the cache, ``dtype`` of the cache, ``threads``, and the
`TransformerSettings`. What the cache holds is noise: it does not change what a step costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from _step_server import resident_mb, serve

from embodied_rl.nn.episodes import EpisodePositions
from embodied_rl.nn.episodic_transformer import EpisodicTransformer, TransformerSettings
from embodied_rl.nn.kv_cache import KVCache

HORIZON = 512  # most steps of an episode
PIECE = 64  # tokens of noise that are written at once: little beside the smallest cache


def _make(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Callable[[], object]]]:
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    shape = TransformerSettings(**{f.name: settings[f.name] for f in fields(TransformerSettings)})
    net, positions = EpisodicTransformer(shape).eval(), EpisodePositions(HORIZON, shape.width)
    dtype = getattr(torch, settings["dtype"])
    _step(net, positions, _filled(net, 2 * PIECE, dtype))()  # what torch needs for itself
    before = resident_mb()
    cache = _filled(net, settings["context"], dtype)
    step = _step(net, positions, cache)
    step()
    tokens = settings["context"] + 1
    description = {
        "before_mb": before,
        "memory_mb": resident_mb() - before,
        "computed_mb": shape.cache_shape.bytes_for(1, tokens, dtype) / 2**20,
    }
    return description, {"step": step}


def _filled(net: EpisodicTransformer, tokens: int, dtype: torch.dtype) -> KVCache:
    """A cache of one sequence with room for one more token."""
    cache = net.new_cache(capacity=tokens + 1, limit=tokens + 1, dtype=dtype)
    heads, head_dim = cache.shape.heads, cache.shape.head_dim
    while cache.length < tokens:
        count = min(PIECE, tokens - cache.length)
        cache.reserve(torch.arange(cache.length, cache.length + count)[None] // HORIZON)
        for layer in range(cache.shape.layers):
            cache.write(layer, torch.randn(2, 1, heads, count, head_dim))
        cache.advance(count)
    return cache


def _step(
    net: EpisodicTransformer, positions: EpisodePositions, cache: KVCache
) -> Callable[[], object]:
    """One step, taken back afterwards: the next one sees a context of the same length."""
    token = torch.randn(1, net.settings.width)
    episode, time = torch.tensor([cache.length // HORIZON]), torch.tensor([7])

    @torch.inference_mode()
    def step() -> None:
        net.step(token + positions(time), cache, episode)
        cache.drop_newest(1)

    return step


if __name__ == "__main__":
    serve(_make)
