"""From the streams of one frame to one embedding: the concatenation of what each stream's encoder
makes.

State vectors are normalised and flattened. A camera gets an encoder of its own that maps
(N, H, W, 3) to (N, D); nothing downstream changes, because a policy sees only the concatenation.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import Tensor, cat, nn

from embodied_rl.nn.normalizer import MinMax


class VectorEncoder(nn.Module):
    """A numeric stream, flattened and mapped to [-1, 1]: limits to fit, nothing to learn."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.dim = prod(shape)
        self.limits = MinMax(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, *shape) -> (N, dim)."""
        return self.limits(x.reshape(x.shape[0], self.dim))


class FrameEncoder(nn.Module):
    """One embedding a frame. The order of `encoders` is the order of the concatenation."""

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(dict(encoders))
        self.dim = sum(int(e.dim) for e in self.streams.values())

    def forward(self, frames: Mapping[str, Tensor]) -> Tensor:
        """{key: (B, F, *shape)} -> (B, F, dim). Every frame is encoded on its own."""
        parts = []
        for key, encoder in self.streams.items():
            x = frames[key]
            batch, length = x.shape[:2]
            encoded = encoder(x.reshape(batch * length, *x.shape[2:]))
            parts.append(encoded.reshape(batch, length, -1))
        return cat(parts, dim=-1)
