"""A causal transformer over many episodes, for whole sequences and for one step at a time.

Pre-norm blocks without biases: attention with sinks, then a gated feed-forward net (GeGLU, arXiv
2002.05202), as in arXiv 2410.02751. Both ways of calling give the same numbers:

    outputs = net(x, episode)                      # (B, n, W), for training
    cache = net.new_cache(batch=B)
    output = net.step(x[:, t], cache, episode[:, t])   # (B, W), for t = 0, 1, ...
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_rl.core.ranges import check_range
from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.decoding import NORM_EPS, BlockWeights, extend_block, normed
from embodied_rl.nn.episodes import Rotation, rotation, turns
from embodied_rl.nn.kv_cache import CacheShape, KVCache
from embodied_rl.nn.sink_attention import MODES, NONE, TOKEN, SinkAttention, causal_mask, sink_share

WEIGHT_STD = 0.02
PIECE = 512  # tokens that are put behind a past at once: bounds the mask


@dataclass(frozen=True)
class TransformerSettings:
    """Shape of the network.

    Attributes:
        mlp: width inside the feed-forward net.
        sink_mode: one of `sink_attention.MODES`.
        sinks: number of sinks; with the mode "none" there are none.
        inter_episode: whether a step sees earlier episodes; without, each episode is on its own.
    """

    width: int = 64
    heads: int = 4
    layers: int = 2
    mlp: int = 256
    sink_mode: str = "kv"
    sinks: int = 1
    inter_episode: bool = True

    def __post_init__(self) -> None:
        check_range(self, "width", "heads", "layers", "mlp", "sinks", least=1)
        if self.width % (2 * self.heads):
            expected = f"a multiple of 2 * heads = {2 * self.heads}"
            raise ValueError(f"width: expected {expected}, saw {self.width}")
        if self.sink_mode not in MODES:
            raise ValueError(f"sink_mode: expected one of {MODES}, saw {self.sink_mode!r}")

    @property
    def cache_shape(self) -> CacheShape:
        """Of the cache that such a network fills."""
        sinks = 0 if self.sink_mode == NONE else self.sinks
        return CacheShape(self.layers, self.heads, self.width // self.heads, sinks)


class GatedMlp(nn.Module):
    """``down(gelu(gate x) * up x)``; gate and up in one matrix."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., W)`` -> ``(..., W)``."""
        # two products: the gradients of one would have to be put together again
        gate, up = (F.linear(x, weight) for weight in self.gate_up.weight.chunk(2))
        return self.down(F.gelu(gate, approximate="tanh") * up)


class Block(nn.Module):
    """Attention and feed-forward net, each behind its own norm and around it a way past."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        width = settings.width
        self.norm_attention = nn.RMSNorm(width, eps=NORM_EPS)
        self.attention = SinkAttention(width, settings.heads, settings.sink_mode, settings.sinks)
        self.norm_mlp = nn.RMSNorm(width, eps=NORM_EPS)
        self.mlp = GatedMlp(width, settings.mlp)

    def forward(
        self,
        x: Tensor,
        by: Tensor,
        sinks: KeysValues | None,
        mask: Tensor | None,
        first: int = 0,
    ) -> Tensor:
        """``(B, n, W)`` -> ``(B, n - first, W)``; as `SinkAttention`."""
        x = x[:, first:] + self.attention(self.norm_attention(x), by, sinks, mask, first)
        return x + self.mlp(self.norm_mlp(x))

    @property
    def weights(self) -> BlockWeights:
        """For decoding."""
        attention, mlp = self.attention, self.mlp
        return BlockWeights(
            self.norm_attention.weight, attention.qkv.weight, attention.out.weight,
            self.norm_mlp.weight, mlp.gate_up.weight, mlp.down.weight,
        )  # fmt: skip


class EpisodicTransformer(nn.Module):
    """Blocks with a norm behind the last; tokens and their positions come from the caller."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.norm = nn.RMSNorm(settings.width, eps=NORM_EPS)
        self._gathered: list[BlockWeights] = []
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=WEIGHT_STD)
        if settings.sink_mode == TOKEN:
            drawn = WEIGHT_STD * torch.randn(settings.sinks, settings.width)
            self.sink_tokens = nn.Parameter(drawn)

    def sinks(self) -> list[KeysValues] | None:
        """Each layer's sinks ``(1, H, s, Dh)``, for the present weights; None without any.

        Sink tokens see only each other, and no token changes them: their keys and values are
        constants of the weights, the same in training and in decoding.
        """
        if self.settings.sink_mode == NONE:
            return None
        if self.settings.sink_mode != TOKEN:
            return [block.attention.sinks() for block in self.blocks]
        x = self.sink_tokens[None]
        index = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
        turn, by, found = self._turn(index), self._turns(index), []
        for block in self.blocks:
            _, *own = block.attention.project(block.norm_attention(x), turn)
            found.append(KeysValues(*own))
            x = block(x, by, None, None)
        return found

    def forward(
        self, x: Tensor, episode: Tensor, mask: Tensor | None = None, *, first: int = 0
    ) -> Tensor:
        """Whole sequences, with gradients.

        Args:
            x: ``(B, n, W)`` tokens with their positions.
            episode: ``(B, n)`` int64, never falling along a sequence.
            mask: ``(B, n, n)`` bool, True where a row may see a column, beside causality, which
                always holds, and ``inter_episode``. Sinks are always seen.
            first: the first token whose output is wanted; in the last block, those before it are
                nothing but keys and values.

        Returns:
            ``(B, n - first, W)``.
        """
        by = self._turns(episode)
        allowed = self._sequence_mask(episode, mask)
        *sinks, last_sinks = self.sinks() or [None] * len(self.blocks)
        for block, own in zip(self.blocks, sinks):
            x = block(x, by, own, allowed)
        wanted = None if allowed is None else allowed[:, :, first:]
        return self.norm(self.blocks[-1](x, by, last_sinks, wanted, first))

    def new_cache(
        self,
        *,
        batch: int = 1,
        capacity: int = 256,
        limit: int = 65_536,
        dtype: torch.dtype = torch.float32,
    ) -> KVCache:
        """An empty cache for this network, sinks in it, where the weights are."""
        device = self.norm.weight.device
        cache = KVCache(
            self.settings.cache_shape,
            batch=batch, capacity=capacity, limit=limit, dtype=dtype, device=device,
        )  # fmt: skip
        self.write_sinks(cache)
        return cache

    @torch.no_grad()
    def write_sinks(self, cache: KVCache) -> None:
        """The sinks of the present weights into ``cache``."""
        sinks = self.sinks()
        if sinks is not None:
            cache.write_sinks(sinks)

    @torch.no_grad()
    def step(self, x: Tensor, cache: KVCache, episode: Tensor) -> Tensor:
        """One token ``(B, W)`` of the episodes ``(B,)`` -> ``(B, W)``; the cache grows by one."""
        return self._extend(x[:, None], cache, episode[:, None])[:, 0]

    @torch.no_grad()
    def extend(self, x: Tensor, cache: KVCache, episode: Tensor) -> Tensor:
        """The next tokens ``(B, m, W)`` at once -> ``(B, m, W)``: what ``m`` steps would give."""
        if cache.length == 0 and self.settings.inter_episode:
            return self._extend(x, cache, episode)
        pieces = zip(x.split(PIECE, dim=1), episode.split(PIECE, dim=1))
        return torch.cat([self._extend(part, cache, index) for part, index in pieces], dim=1)

    def _extend(self, x: Tensor, cache: KVCache, episode: Tensor) -> Tensor:
        cache.reserve(episode)
        cache.queries = []
        if cache.turned is None or not torch.equal(cache.turned[0], episode):
            cache.turned = episode.clone(), self._turn(episode)
        turn = cache.turned[1]
        allowed = None if self.settings.inter_episode else self._cached_mask(cache, episode)
        new = x.flatten(0, 1)
        for layer, weights in enumerate(self._weights()):
            new = extend_block(new, weights, turn, cache, layer, allowed)
        cache.advance(x.shape[1])
        return normed(new, self.norm.weight).view_as(x)

    def _weights(self) -> list[BlockWeights]:
        """The parameters, gathered once; anew where the network was given other ones."""
        if not self._gathered or self._gathered[0].qkv is not self.blocks[0].attention.qkv.weight:
            self._gathered = [block.weights for block in self.blocks]
        return self._gathered

    @torch.no_grad()
    def sink_mass(self, cache: KVCache) -> Tensor:
        """``(L, B, H)``: the share of the newest token's attention that went to the sinks.

        With ``inter_episode`` off the tokens of earlier episodes are left out, as in the step.

        Raises:
            ValueError: no step has been made with this cache since it was made or loaded.
        """
        if not cache.queries:
            raise ValueError("no step yet: the newest token's queries are not known")
        count = self.settings.cache_shape.sinks
        shares = []
        for layer, query in enumerate(cache.queries):
            keys = cache.seen(layer).keys.to(query.dtype)
            scores = (query @ keys.transpose(-1, -2))[:, :, 0] * keys.shape[-1] ** -0.5
            if not self.settings.inter_episode:
                other = cache.episodes != cache.episodes[:, -1:]
                scores[..., count:].masked_fill_(other[:, None], float("-inf"))
            lse = scores[..., count:].logsumexp(dim=-1, keepdim=True)
            if not count:
                shares.append(torch.zeros_like(lse[..., 0]))
                continue
            shares.append(sink_share(query, lse, keys[:, :, :count])[0][..., 0])
        return torch.stack(shares)

    def _turn(self, episode: Tensor) -> Rotation:
        """For tokens beside a cache."""
        return rotation(self._index(episode), self._head_dim, self.norm.weight.dtype)

    def _turns(self, episode: Tensor) -> Tensor:
        """For whole sequences."""
        heads, dtype = self.settings.heads, self.norm.weight.dtype
        return turns(self._index(episode), heads, self._head_dim, dtype)

    def _index(self, episode: Tensor) -> Tensor:
        """Without attention over episodes the index says nothing: all angles are zero."""
        return episode if self.settings.inter_episode else torch.zeros_like(episode)

    @property
    def _head_dim(self) -> int:
        return self.settings.cache_shape.head_dim

    def _sequence_mask(self, episode: Tensor, mask: Tensor | None) -> Tensor | None:
        """``(B, 1, n, s + n)``; None where plain causality is all."""
        if mask is None and self.settings.inter_episode:
            return None
        length = episode.shape[1]
        allowed = causal_mask(length, length, episode.device)
        if not self.settings.inter_episode:
            allowed = allowed & (episode[:, :, None] == episode[:, None, :])
        if mask is not None:
            allowed = allowed & mask
        return self._with_sinks(allowed.expand(len(episode), -1, -1))

    def _cached_mask(self, cache: KVCache, episode: Tensor) -> Tensor:
        """``(B, 1, m, s + length + m)``: the same episode, no later than the token itself."""
        new = episode.shape[1]
        known = torch.cat([cache.episodes, episode.to(torch.int32)], dim=1)
        same = episode[:, :, None] == known[:, None, :]
        return self._with_sinks(same & causal_mask(new, known.shape[1], episode.device))

    def _with_sinks(self, allowed: Tensor) -> Tensor:
        """``(B, n, S)`` -> ``(B, 1, n, s + S)``: columns in front that all may see."""
        return F.pad(allowed, (self.settings.cache_shape.sinks, 0), value=True)[:, None]
