"""Causal self-attention in which a head may attend to nothing (Sink-KV, arXiv 2410.02751, 3.2).

Softmax weights sum to one, so a head that finds nothing of use must still read something. ``s``
extra keys and values, which belong to no token, stand in front of every sequence: with ``K = V =
0`` this is exactly exp(x) / (1 + sum exp(x)).

======= ================ ================ ==================================================
mode    sink keys        sink values
======= ================ ================ ==================================================
none    -                -                plain attention
k0v0    0                0                softmax with one added to its denominator
kv0     learned          0
k0v     0                learned
kv      learned          learned
token   of learned input tokens           they pass through the layers (arXiv 2309.17453), see
                                          `EpisodicTransformer.sinks`
======= ================ ================ ==================================================

Queries and keys are turned by the episode index, sinks are not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.episodes import Rotation, paired, rotate, turn_planes

NONE, K0V0, KV0, K0V, KV, TOKEN = MODES = ("none", "k0v0", "kv0", "k0v", "kv", "token")


def causal_mask(queries: int, slots: int, device: torch.device | str = "cpu") -> Tensor:
    """``(queries, slots)`` bool, True where attention is allowed: the last query sees all slots,
    the one before all but the last, and so on."""
    allowed = torch.ones(queries, slots, dtype=torch.bool, device=device)
    return allowed.tril_(slots - queries)


def attend(query: Tensor, memory: KeysValues, mask: Tensor | None = None) -> Tensor:
    """Causal attention of the newest ``n`` tokens.

    Args:
        query: ``(B, H, n, Dh)``.
        memory: ``(B, H, S, Dh)``, S >= n; its last ``n`` are those of the queries' own tokens, and
            all before them (sinks, past) are seen by every query.
        mask: bool, broadcast to ``(B, H, n, S)``, True where attention is allowed; must itself be
            causal. None stands for `causal_mask`.

    Returns:
        ``(B, H, n, Dh)`` in the dtype of the memory.
    """
    query = query.to(memory.keys.dtype)
    count = query.shape[2]
    ahead = memory.keys.shape[2] - count
    if mask is None and count > 1 and ahead >= count:
        mask = causal_mask(count, ahead + count, query.device)
    if mask is not None or count == 1:
        return F.scaled_dot_product_attention(query, *memory, attn_mask=mask)
    # The kernel's own causal form, which skips the upper half, needs a square matrix: queries of
    # zeros stand for the few slots ahead. It is the faster way up to a matrix twice as wide.
    padded = F.pad(query, (0, 0, ahead, 0)) if ahead else query
    return F.scaled_dot_product_attention(padded, *memory, is_causal=True)[:, :, ahead:]


def sink_share(query: Tensor, lse: Tensor, sink_keys: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the attention the sinks take, and how they divide it among themselves.

    Args:
        query: ``(B, H, n, Dh)``.
        lse: ``(B, H, n)``, log-sum-exp of the scaled scores of the tokens.
        sink_keys: ``(1 or B, H, s, Dh)``.

    Returns:
        ``(B, H, n)`` within [0, 1], and ``(B, H, n, s)``, which sums to 1.
    """
    scores = query @ sink_keys.transpose(-1, -2) * query.shape[-1] ** -0.5
    return torch.sigmoid(scores.logsumexp(dim=-1) - lse), scores.softmax(dim=-1)


def add_sinks(output: Tensor, lse: Tensor, query: Tensor, sinks: KeysValues) -> Tensor:
    """Attention with sinks, from that without: ``w * output + (1 - w) * (the sinks' values)``.

    For attention kernels that return the log-sum-exp of their scores, such as those that split a
    long context; `attend` needs none, for it sees the sinks as slots.

    Args:
        output: ``(B, H, n, Dh)`` and ``lse`` ``(B, H, n)``, of the tokens alone.
    """
    share, among = sink_share(query, lse, sinks.keys)
    return torch.lerp(output, among @ sinks.values, share[..., None])


class SinkAttention(nn.Module):
    """Multi-head self-attention without biases; weights of queries, keys, values in one matrix."""

    sink_keys: Tensor
    sink_values: Tensor

    def __init__(self, width: int, heads: int, mode: str, sinks: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width: expected a multiple of 2 * heads = {2 * heads}, saw {width}")
        if mode not in MODES:
            raise ValueError(f"sink_mode: expected one of {MODES}, saw {mode!r}")
        self.heads, self.mode = heads, mode
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        if mode not in (NONE, TOKEN):
            shape = (1, heads, sinks, width // heads)
            for name, learned in (
                ("sink_keys", mode in (KV0, KV)),
                ("sink_values", mode in (K0V, KV)),
            ):
                zeros = torch.zeros(shape)
                if learned:
                    self.register_parameter(name, nn.Parameter(zeros))
                else:
                    self.register_buffer(name, zeros)

    def sinks(self) -> KeysValues | None:
        """``(1, H, s, Dh)``; None where this layer has none of its own."""
        if self.mode in (NONE, TOKEN):
            return None
        return KeysValues(self.sink_keys, self.sink_values)

    def project(self, x: Tensor, turn: Rotation) -> Tensor:
        """``(B, n, W)`` -> turned queries and keys, and values, ``(3, B, H, n, Dh)``, in the order
        of dimensions that a cache has."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        return rotate(qkv, turn).permute(2, 0, 3, 1, 4)

    def forward(
        self,
        x: Tensor,
        by: Tensor,
        sinks: KeysValues | None,
        mask: Tensor | None,
        first: int = 0,
    ) -> Tensor:
        """Whole sequences ``(B, n, W)`` -> ``(B, n - first, W)``, of tokens from ``first`` on.

        Products of queries and keys do not depend on the order of their dimensions: in that of
        `paired` a turn is one multiplication.

        Args:
            by: of `episodes.turns`, ``(B, n, W / 2)``.
            sinks: ``(1, H, s, Dh)``, in the order of dimensions that a cache has.
            mask: as in `attend`, of the tokens from ``first`` on.
        """
        order = paired(x.shape[-1] // self.heads, x.device)
        weights = self.qkv.weight.unflatten(0, (3, self.heads, -1))
        to_query, to_keys = weights[:2, :, order].flatten(1, 2)
        query = turn_planes(F.linear(x[:, first:], to_query), by[:, first:])
        keys = turn_planes(F.linear(x, to_keys), by)
        values = F.linear(x, weights[2].flatten(0, 1))
        if sinks is not None:
            keys = _behind(sinks.keys[..., order], keys)
            values = _behind(sinks.values, values)
        query, *memory = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, keys, values)
        )
        return self.out(attend(query, KeysValues(*memory), mask).transpose(1, 2).flatten(2))


def _behind(sinks: Tensor, own: Tensor) -> Tensor:
    """``(1, H, s, Dh)`` in front of ``(B, n, W)`` -> ``(B, s + n, W)``."""
    rows = sinks.transpose(1, 2).flatten(2)
    return torch.cat([rows.expand(len(own), -1, -1), own], dim=1)
