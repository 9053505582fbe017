"""The next tokens of an `EpisodicTransformer` whose past is in a cache, without gradients.

The same numbers as its blocks give, from the same weights. A step of one token costs as much in
calls as in arithmetic, so there are as few here, of as few kinds, as can be: no modules are called
(an eighth of a step with 1,024 tokens of context), the way past is added by the product itself,
queries, keys and values are turned at once and written at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_rl.nn.episodes import Rotation, rotate
from embodied_rl.nn.kv_cache import KVCache
from embodied_rl.nn.sink_attention import attend

NORM_EPS = 1e-6


class BlockWeights(NamedTuple):
    """A block's parameters themselves, no copies: they may be trained on."""

    norm_attention: Tensor  # (W,)
    qkv: Tensor  # (3 W, W)
    out: Tensor  # (W, W)
    norm_mlp: Tensor  # (W,)
    gate_up: Tensor  # (2 * inner, W)
    down: Tensor  # (W, inner)


@lru_cache
def _mean(width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """What a vector is multiplied by for its mean, and what is added to it."""
    with torch.inference_mode(False):  # kept for calls in any mode
        mean = torch.full((width,), 1.0 / width, dtype=dtype, device=device)
        return mean, torch.full((1,), NORM_EPS, dtype=dtype, device=device)


def normed(x: Tensor, weight: Tensor) -> Tensor:
    """RMS norm of tokens ``(N, W)``, for which torch has no kernel on a processor."""
    mean, least = _mean(x.shape[1], x.dtype, x.device)
    return x * torch.addmv(least, x * x, mean).rsqrt_()[:, None] * weight


def extend_block(
    x: Tensor,
    weights: BlockWeights,
    turn: Rotation,
    cache: KVCache,
    layer: int,
    mask: Tensor | None,
) -> Tensor:
    """One block on the next ``m`` tokens of B sequences, ``(B * m, W)`` -> as many.

    Args:
        turn: of the tokens ``(B, m)``.
        mask: as in `attend`.
    """
    batch, count = turn.own.shape[:2]
    qkv = F.linear(normed(x, weights.norm_attention), weights.qkv)
    qkv = rotate(qkv.view(batch, count, 3, cache.shape.heads, -1), turn).permute(2, 0, 3, 1, 4)
    cache.queries.append(qkv[0, :, :, -1:])
    heads = attend(qkv[0], cache.write(layer, qkv[1:]), mask)
    heads = heads.transpose(1, 2).reshape(x.shape).to(x.dtype)
    x = torch.addmm(x, heads, weights.out.t())
    gate, up = F.linear(normed(x, weights.norm_mlp), weights.gate_up).chunk(2, dim=1)
    return torch.addmm(x, F.gelu(gate, approximate="tanh") * up, weights.down.t())
