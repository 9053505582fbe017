"""Where a step stands in a sequence of episodes, and how a network is told.

Within an episode a step has a learned position, added to its token; the episode's own index turns
queries and keys by an angle (rotary embedding, arXiv 2104.09864), so attention knows how many
episodes ago something happened and nothing else about when (arXiv 2410.02751, section 3).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from embodied_rl.core.errors import UserError

ROTARY_BASE = 1e4


class EpisodePositions(nn.Module):
    """A learned vector for each step of an episode of at most ``horizon`` steps."""

    def __init__(self, horizon: int, width: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.table = nn.Embedding(horizon, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, position: Tensor) -> Tensor:
        """``(...)`` int64 -> ``(..., width)``.

        Raises:
            UserError: an episode is longer than the table.
        """
        longest = int(position.max()) + 1
        if longest > self.horizon:
            raise UserError(
                f"episode: expected at most {self.horizon} steps (the model's position table), "
                f"saw step {longest}; begin a new episode in time"
            )
        return self.table(position)


def paired(head_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """``(Dh,)``: the order of dimensions in which the two of each plane are neighbours."""
    return torch.arange(head_dim, device=device).view(2, -1).T.flatten()


def turns(index: Tensor, heads: int, head_dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What `rotation` does to a query or key, as complex numbers ``(B, n, heads * Dh / 2)``."""
    angle = index[:, :, None] * _frequencies(head_dim, index.device)
    turned = torch.polar(torch.ones_like(angle), angle)
    return turned.to(dtype.to_complex()).repeat(1, 1, heads)


def turn_planes(x: Tensor, by: Tensor) -> Tensor:
    """Queries or keys ``(B, n, W)``, each head in the order of `paired`, turned by `turns`."""
    planes = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(planes * by).flatten(-2)


class Rotation(NamedTuple):
    """What turns the queries and keys of B sequences by their angles and leaves values as they are:
    ``(B, n, 3, 1, Dh)`` each, factors of a number and of the other one in its plane."""

    own: Tensor
    other: Tensor


@lru_cache
def _frequencies(head_dim: int, device: torch.device) -> Tensor:
    """Radians a unit of the index, ``(Dh / 2,)`` float64."""
    with torch.inference_mode(False):  # kept for calls in any mode
        half = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
        return ROTARY_BASE ** (-half / head_dim)


def rotation(index: Tensor, head_dim: int, dtype: torch.dtype = torch.float32) -> Rotation:
    """Angles of whole numbers ``(B, n)``, for heads of ``head_dim`` (even) dimensions.

    Computed in double precision: an index of 10^5 would leave single precision two digits.
    """
    angle = index[:, :, None, None, None] * _frequencies(head_dim, index.device)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    own = torch.cat([cos, cos], dim=-1).expand(-1, -1, 2, -1, -1)
    other = torch.cat([-sin, sin], dim=-1).expand(-1, -1, 2, -1, -1)
    still = own[:, :, :1]
    return Rotation(
        torch.cat([own, torch.ones_like(still)], dim=2),
        torch.cat([other, torch.zeros_like(still)], dim=2),
    )


def rotate(qkv: Tensor, by: Rotation) -> Tensor:
    """Queries, keys and values ``(B, n, 3, H, Dh)``, the former two turned: dimensions ``i`` and
    ``i + Dh / 2`` are one plane."""
    return torch.addcmul(qkv * by.own, qkv.roll(qkv.shape[-1] // 2, dims=-1), by.other)
