"""Seeded sensor noise."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

NOISE_BLOCK = 64  # samples drawn at a time, because one draw costs as much as ten


class SensorNoise:
    """Gaussian noise of one stream: of a seed and a stream's key always the same."""

    def __init__(self, key: str, sigma: float, shape: tuple[int, ...]):
        self._stream_number, self._sigma = zlib.crc32(key.encode()), sigma
        self._shape = (NOISE_BLOCK, *shape)
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, self._stream_number])
        self.rows = self._draw()  # one row a sample, in the stream's shape

    def _draw(self) -> Iterator[np.ndarray]:
        while True:
            yield from self._sigma * self._rng.standard_normal(self._shape)
