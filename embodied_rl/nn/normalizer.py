"""Min-max normalisation to [-1, 1], kept as tensors so that it travels with the weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class MinMax(nn.Module):
    """Maps each dimension of a vector linearly from its range in the data to [-1, 1].

    A dimension that (almost) never moves would divide by its own noise, so a range below
    `min_range` is widened around its centre: such a dimension then stays near 0 instead of filling
    [-1, 1]. Diffusion clips its samples to [-1, 1], hence limits and not mean and variance.
    """

    low: Tensor
    high: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("low", -torch.ones(dim))
        self.register_buffer("high", torch.ones(dim))

    def fit(self, rows: np.ndarray, min_range: float = 1e-4) -> None:
        """Sets the limits from `rows` (N, D); every value must be finite."""
        if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != self.low.shape[0]:
            raise ValueError(f"expected (N > 0, {self.low.shape[0]}) rows, got {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError("NaN or Inf in the rows that set the normaliser's limits")
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        centre, half = (low + high) / 2, np.maximum((high - low) / 2, min_range / 2)
        self.low.copy_(torch.from_numpy(centre - half))
        self.high.copy_(torch.from_numpy(centre + half))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) in the data's unit -> (..., D) in [-1, 1] for values seen in the data."""
        return (x - self.low) * (2.0 / (self.high - self.low)) - 1.0

    def inverse(self, y: Tensor) -> Tensor:
        """(..., D) in [-1, 1] -> (..., D) in the data's unit."""
        return (y + 1.0) * ((self.high - self.low) / 2.0) + self.low
