"""The memory of a trial under way: keys and values of its steps, and the steps themselves.

The steps are kept so that all of them can be encoded again after the oldest episodes were dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from embodied_rl.core.checkpoint import pack_memory, unpack_memory
from embodied_rl.core.errors import UserError
from embodied_rl.nn.fingerprint import weights_fingerprint
from embodied_rl.nn.kv_cache import GrowingTensor
from embodied_rl.policies.relic.config import POLICY, RelicConfig
from embodied_rl.policies.relic.model import Outputs, RelicModel
from embodied_rl.policies.relic.tokens import Tokens


class Dropped(NamedTuple):
    """What was forgotten to make room."""

    episodes: int
    steps: int


class TrialMemory:
    """One trial's context for ``model``, of at most ``limit`` steps.

    Attributes:
        cache: keys and values, in ``dtype``.
        owner: names the model, down to its weights.
    """

    def __init__(
        self,
        model: RelicModel,
        *,
        capacity: int = 256,
        limit: int = 65_536,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._model = model
        self.cache = model.new_cache(capacity=capacity, limit=limit, dtype=dtype)
        device = self.cache.episodes.device
        self._tokens = Tokens(
            *(
                GrowingTensor((1, self.cache.capacity, *shape), 1, kind, device)
                for shape, kind in _token_shapes(model.config)
            )
        )
        # the cache numbers episodes from the oldest one that was there when it was last encoded
        self._first_episode = 0
        self.owner = f"{POLICY}/{weights_fingerprint(model, repr(model.config))}"

    @property
    def length(self) -> int:
        """Steps held."""
        return self.cache.length

    @property
    def nbytes(self) -> int:
        """Allocated bytes: keys, values, steps."""
        return self.cache.nbytes + sum(part.data.nbytes for part in self._tokens)

    @property
    def tokens(self) -> Tokens:
        """The steps held, ``(1, length)``."""
        cells, *rest = (part.data[:, : self.length] for part in self._tokens)
        return Tokens(cells.long(), *rest)

    def step(self, tokens: Tokens) -> Outputs:
        """Takes in the next step ``(1,)`` and says what the network thinks of it.

        Raises:
            UserError: the context is full (`make_room` is what helps), or the episode longer than
                the model's horizon.
        """
        if not self.length:
            self._first_episode = int(tokens.episode[0])
        outputs = self._model.step(self._renumbered(tokens), self.cache)
        self._grow(self.length - 1)
        for held, part in zip(self._tokens, tokens):
            held.data[:, self.length - 1] = part
        return outputs

    def _grow(self, used: int) -> None:
        for held in self._tokens:
            if held.data.shape[1] < self.cache.capacity:
                held.grow(self.cache.capacity, used)

    def _renumbered(self, tokens: Tokens) -> Tokens:
        return tokens._replace(episode=tokens.episode - self._first_episode)

    def clear(self) -> None:
        """A new trial."""
        self.cache.clear()
        self._first_episode = 0

    def make_room(self, keep: int, running: bool = True) -> Dropped:
        """Forgets whole episodes, oldest first, until at most ``keep`` steps are left.

        Args:
            running: the newest episode goes on, and cannot be forgotten.

        What stays is as it was encoded, with what it had gathered from the forgotten episodes.
        That takes milliseconds; to encode it anew, which grows with the square of the context, is
        for a moment when the robot stands: `encode`.

        Raises:
            UserError: a running episode alone has more than ``keep`` steps.
        """
        starts = (self.tokens.time[0] == 0).nonzero()[:, 0].tolist() + [self.length]
        count = next(i for i, start in enumerate(starts) if self.length - start <= keep)
        if running and 0 < self.length == starts[count]:
            raise UserError(
                f"context: expected a running episode of at most {keep} steps, saw "
                f"{self.length - starts[-2]}; begin a new episode or raise the limit"
            )
        held = self.length
        self.cache.drop_oldest(starts[count])
        for part in self._tokens:
            part.drop(0, starts[count], held)
        return Dropped(count, starts[count])

    @property
    def stale(self) -> bool:
        """Whether what is held was encoded with episodes in view that are forgotten by now."""
        oldest = self._tokens.episode.data[0, 0]
        return self.length > 0 and int(oldest) != self._first_episode

    def encode(self) -> None:
        """Encodes all that is held anew, as if the trial had begun with its oldest kept episode,
        and with the model's present weights. Episodes are then numbered from that one on."""
        tokens = self.tokens
        self.cache.clear()
        self._model.write_sinks(self.cache)
        if tokens.time.shape[1]:
            self._first_episode = int(tokens.episode[0, 0])
            self._model.extend(self._renumbered(tokens), self.cache)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Plain fields and arrays of all that is held; `restore` takes them back."""
        fields, arrays = self.cache.state()
        steps = {
            f"token_{name}": part.data[:, : self.length].cpu().numpy()
            for name, part in self._tokens._asdict().items()
        }
        return {**fields, "first_episode": self._first_episode}, {**arrays, **steps}

    def restore(self, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Puts back what `state` gave; what was held is forgotten.

        Raises:
            UserError: of another shape or dtype, or longer than the limit; then nothing has
                changed.
        """
        self.cache.restore(fields, arrays)
        self._first_episode = fields["first_episode"]
        self._grow(0)
        for name, held in self._tokens._asdict().items():
            part = torch.from_numpy(np.array(arrays[f"token_{name}"]))
            held.data[:, : self.length] = part

    def save(self) -> bytes:
        """`state` as a blob that `load` of the same model's memory takes."""
        return pack_memory(self.owner, *self.state())

    def load(self, blob: bytes) -> None:
        """Puts back what `save` gave; what was held is forgotten.

        Raises:
            UserError: damaged, of another model or dtype, or longer than the limit.
        """
        self.restore(*unpack_memory(self.owner, blob))


def _token_shapes(config: RelicConfig) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Of one step's parts as they are stored; codes of cells are small numbers."""
    whole, real = torch.int64, torch.float32
    cells = ((config.cell_count,), torch.int16)
    return [
        cells,
        ((config.feature_count,), real),
        ((), whole),
        ((), real),
        ((), whole),
        ((), whole),
    ]
