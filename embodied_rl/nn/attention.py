"""A pre-norm transformer decoder whose cross-attention keys and values can be made ahead of time.

Equal to `torch.nn.TransformerDecoderLayer(norm_first=True, activation="gelu")` number for number
(a test holds it to that); torch's own module projects the memory anew on every call, and a
diffusion policy calls it ten times with the same observations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeysValues(NamedTuple):
    """Projected memory of one layer, split into heads: (B, heads, M, width / heads) each."""

    keys: Tensor
    values: Tensor

    def expand(self, batch: int) -> KeysValues:
        """One memory (B = 1) seen by `batch` queries, without a copy."""
        if self.keys.shape[0] == batch:
            return self
        return KeysValues(*(part.expand(batch, -1, -1, -1) for part in self))

    def with_first(self, first: KeysValues) -> KeysValues:
        """This memory with the tokens of `first` (of B samples or of 1) put in front."""
        first = first.expand(self.keys.shape[0])
        return KeysValues(
            torch.cat([first.keys, self.keys], dim=2), torch.cat([first.values, self.values], dim=2)
        )


class Attention(nn.Module):
    """Multi-head attention with an additive mask."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, W) -> (B, heads, N, W / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project(self, memory: Tensor) -> KeysValues:
        """Keys and values of memory tokens (B, M, W)."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return KeysValues(self._split(keys), self._split(values))

    def forward(self, x: Tensor, memory: KeysValues, mask: Tensor) -> Tensor:
        """x (B, N, W), memory of B or of 1, additive mask (N, M): 0 where allowed, -inf where not
        -> (B, N, W)."""
        memory = memory.expand(x.shape[0])
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(
            self._split(self.query(x)), memory.keys, memory.values, attn_mask=mask, dropout_p=drop
        )
        return self.out(y.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and a feed-forward net, each behind its own layer norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_ff = (nn.LayerNorm(width) for _ in range(3))
        self.attend_self = Attention(width, heads, dropout)
        self.attend_cross = Attention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()  # called 120 times a chunk

    def forward(
        self, x: Tensor, memory: KeysValues, self_mask: Tensor, cross_mask: Tensor
    ) -> Tensor:
        """x (B, N, W) -> (B, N, W)."""
        y = self.norm_self(x)
        x = x + self.drop(self.attend_self(y, self.attend_self.project(y), self_mask))
        x = x + self.drop(self.attend_cross(self.norm_cross(x), memory, cross_mask))
        y = self.drop(F.gelu(self.up(self.norm_ff(x))))
        return x + self.drop(self.down(y))


def additive_mask(allowed: Tensor) -> Tensor:
    """bool (N, M), True where attention is allowed -> float (N, M), 0 there and else -inf."""
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))
