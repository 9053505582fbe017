"""Keys and values of the past, kept in memory that is allocated ahead of time.

A decoding step writes one slot and reads a slice: nothing is concatenated, nothing copied. Slots
``0 .. sinks - 1`` hold the sinks (see `sink_attention`), so one attention call sees them and the
past alike. Memory doubles when it is full, up to a limit that the owner chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.errors import UserError
from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.episodes import Rotation

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class GrowingTensor:
    """A tensor with room to spare along one dimension; what lies past the used part is undefined.

    Attributes:
        data: the allocated tensor.
    """

    def __init__(
        self, shape: Sequence[int], dim: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.dim = dim
        self.data = _allocate(shape, dtype, device)

    def grow(self, slots: int, used: int) -> None:
        """Room for ``slots``; the first ``used`` are kept."""
        shape = list(self.data.shape)
        shape[self.dim] = slots
        larger = _allocate(shape, self.data.dtype, self.data.device)
        larger.narrow(self.dim, 0, used).copy_(self.data.narrow(self.dim, 0, used))
        self.data = larger

    def drop(self, start: int, count: int, used: int) -> None:
        """Removes slots ``start .. start + count - 1``; the later used ones move down."""
        rest = used - start - count
        # source and destination overlap, so the source is copied first
        moved = self.data.narrow(self.dim, start + count, rest).clone()
        self.data.narrow(self.dim, start, rest).copy_(moved)


def _allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    # A tensor made inside inference mode could not be written to outside of it.
    with torch.inference_mode(False):
        return torch.empty(tuple(shape), dtype=dtype, device=device)


@dataclass(frozen=True)
class CacheShape:
    """What a cache must share with the model that fills it."""

    layers: int
    heads: int
    head_dim: int
    sinks: int

    def bytes_for(self, batch: int, tokens: int, dtype: torch.dtype) -> int:
        """Of a cache with room for ``tokens``: keys, values, and the tokens' episode indices."""
        values = self.layers * 2 * self.heads * (self.sinks + tokens) * self.head_dim
        return batch * (values * dtype.itemsize + tokens * torch.int32.itemsize)


class KVCache:
    """Keys and values of ``layers`` layers for ``batch`` sequences that grow together.

    Args:
        capacity: tokens (without the sinks) to allocate room for at once.
        limit: tokens that it will ever hold.
        dtype: float32 or bfloat16.

    Attributes:
        length: tokens held, the same in every layer and sequence.
        queries: each layer's queries of the newest token, for `EpisodicTransformer.sink_mass`.
        turned: episodes of the newest tokens ``(B, m)`` and how their queries and keys were turned,
            which the next step of the same episodes needs again.
    """

    def __init__(
        self,
        shape: CacheShape,
        *,
        batch: int = 1,
        capacity: int = 256,
        limit: int = 65_536,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if dtype not in DTYPES.values():
            raise ValueError(f"dtype: expected one of {sorted(DTYPES)}, saw {dtype}")
        if not 1 <= capacity <= limit:
            raise ValueError(f"capacity: expected 1 to limit = {limit}, saw {capacity}")
        self.shape, self.batch, self.limit, self.length = shape, batch, limit, 0
        self.capacity, self.dtype = capacity, dtype
        slots = (2, batch, shape.heads, shape.sinks + capacity, shape.head_dim)
        self._layers = [GrowingTensor(slots, 3, dtype, device) for _ in range(shape.layers)]
        self._episodes = GrowingTensor((batch, capacity), 1, torch.int32, device)
        self.queries: list[Tensor] = []
        self.turned: tuple[Tensor, Rotation] | None = None

    @property
    def device(self) -> torch.device:
        """Where it lies: that of the network's weights."""
        return self._episodes.data.device

    @property
    def nbytes(self) -> int:
        """Allocated bytes; equal to ``shape.bytes_for(batch, capacity, dtype)``."""
        return sum(g.data.nbytes for g in (*self._layers, self._episodes))

    @property
    def episodes(self) -> Tensor:
        """``(B, length)`` int32: the index of each token's episode."""
        return self._episodes.data[:, : self.length]

    def write_sinks(self, sinks: Sequence[KeysValues]) -> None:
        """One entry a layer, ``(1, H, sinks, Dh)``; anew after every change of the weights."""
        for layer, (keys, values) in zip(self._layers, sinks, strict=True):
            layer.data[0, :, :, : self.shape.sinks] = keys
            layer.data[1, :, :, : self.shape.sinks] = values

    def reserve(self, episode: Tensor) -> None:
        """Makes room for the next ``m`` tokens, of the episodes ``(B, m)``.

        Raises:
            UserError: more than ``limit`` tokens.
        """
        wanted = self.length + episode.shape[1]
        self._check_room(wanted)
        if wanted > self.capacity:
            # one layer after the other: only one is held twice at a time
            self.capacity = min(max(2 * self.capacity, wanted), self.limit)
            sinks = self.shape.sinks
            for layer in self._layers:
                layer.grow(sinks + self.capacity, sinks + self.length)
            self._episodes.grow(self.capacity, self.length)
        self._episodes.data[:, self.length : wanted] = episode

    def _check_room(self, tokens: int) -> None:
        if tokens > self.limit:
            raise UserError(
                f"context: expected at most {self.limit} steps, saw {tokens}; drop the oldest "
                "episodes or raise the limit"
            )

    def write(self, layer: int, new: Tensor) -> KeysValues:
        """Puts the keys and values ``(2, B, H, m, Dh)`` of ``m`` tokens behind the held ones;
        `advance` makes them count.

        Returns:
            Views of all that they may see: sinks, past, themselves ``(B, H, S, Dh)``.
        """
        begin, count = self.shape.sinks + self.length, new.shape[3]
        data = self._layers[layer].data
        data.narrow(3, begin, count).copy_(new)
        return KeysValues(*data.narrow(3, 0, begin + count).unbind())

    def seen(self, layer: int) -> KeysValues:
        """Views of the sinks and all held tokens ``(B, H, sinks + length, Dh)``."""
        data = self._layers[layer].data
        return KeysValues(*data.narrow(3, 0, self.shape.sinks + self.length).unbind())

    def advance(self, count: int) -> None:
        """The next ``count`` tokens have been written in every layer."""
        self.length += count

    def clear(self) -> None:
        """Forgets all tokens, keeps sinks and memory."""
        self.length = 0
        self.queries = []

    def drop_newest(self, count: int) -> None:
        """Takes back the newest ``count`` tokens."""
        if not 0 <= count <= self.length:
            raise ValueError(f"count: expected 0 to {self.length}, saw {count}")
        self.length -= count
        self.queries = []

    def drop_oldest(self, count: int) -> None:
        """Forgets the oldest ``count`` tokens; the later ones stay as they were encoded.

        Their rotary angles stay right, for only differences of episodes count. From the second
        layer on they still carry what they had gathered from the forgotten ones.
        """
        if not 0 <= count <= self.length:
            raise ValueError(f"count: expected 0 to {self.length}, saw {count}")
        sinks = self.shape.sinks
        for layer in self._layers:
            layer.drop(sinks, count, sinks + self.length)
        self._episodes.drop(0, count, self.length)
        self.length -= count

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Plain fields and arrays of what is held; `restore` takes them back."""
        held = self.shape.sinks + self.length
        arrays = {"episodes": self.episodes.cpu().numpy()}
        for index, layer in enumerate(self._layers):
            part = layer.data[:, :, :, :held].cpu().contiguous()
            # numpy has no bfloat16: its bytes travel as 16-bit integers
            raw = part if part.dtype == torch.float32 else part.view(torch.int16)
            arrays[f"layer_{index}"] = raw.numpy()
        fields = {
            **asdict(self.shape),
            "batch": self.batch,
            "length": self.length,
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        return fields, arrays

    def restore(self, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """What `state` gave, of a cache of this shape and dtype; what was held is forgotten.

        Raises:
            UserError: of another shape or dtype, or more tokens than this cache's limit; then
                nothing has changed.
        """
        own, _ = KVCache(self.shape, batch=self.batch, capacity=1, dtype=self.dtype).state()
        for key, expected in own.items():
            if key != "length" and fields.get(key) != expected:
                raise UserError(
                    f"memory: {key}: expected {expected} as in this model, saw {fields.get(key)}"
                )
        episodes = torch.from_numpy(np.array(arrays["episodes"]))
        self._check_room(episodes.shape[1])
        self.clear()
        self.reserve(episodes)
        held = self.shape.sinks + episodes.shape[1]
        for index, layer in enumerate(self._layers):
            raw = torch.from_numpy(np.array(arrays[f"layer_{index}"]))
            layer.data[:, :, :, :held] = raw.view(self.dtype)
        self.advance(episodes.shape[1])
