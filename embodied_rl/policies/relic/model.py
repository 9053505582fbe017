"""The network of ReLIC: what a robot is told of its steps in, scores of actions and values out.

    map crop, features, previous reward and action -> linear -> + position in the episode
    -> transformer over all episodes of the trial -> linear -> actor, critic

Whole trials are evaluated for training (`forward`, `evaluate`), one step at a time for acting
(`step`, with a cache of keys and values); both give the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_rl.nn.episodes import EpisodePositions
from embodied_rl.nn.episodic_transformer import EpisodicTransformer
from embodied_rl.nn.kv_cache import KVCache
from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.recall import Recall
from embodied_rl.policies.relic.tokens import Tokens
from embodied_rl.training.ppo import Evaluation


class CropEmbedding(nn.Module):
    """A map crop of codes: ``(..., C)`` int64 -> ``(..., crop_width)``."""

    def __init__(self, cells: int, codes: int, code_width: int, width: int) -> None:
        super().__init__()
        self.codes = nn.Embedding(codes, code_width)
        self.linear = nn.Linear(cells * code_width, width)

    def forward(self, cells: Tensor) -> Tensor:
        # What each code adds in each cell, (crop_width, C * codes). It is picked by a product, for
        # the gradient of looking up single codes takes longer than those of two products.
        codes = self.codes.weight
        added = self.linear.weight.unflatten(1, (-1, codes.shape[1])) @ codes.T
        shown = codes.new_zeros(*cells.shape, len(codes)).scatter_(-1, cells[..., None], 1.0)
        return F.relu(F.linear(shown.flatten(-2), added.flatten(1), self.linear.bias))


class Outputs(NamedTuple):
    """Of each step: scores of the actions ``(..., A)`` and the value ``(...)``."""

    logits: Tensor
    value: Tensor


class RelicModel(nn.Module):
    """An `ActorCritic` of `training.ppo` on whole trials, whose observation is :class:`Tokens`."""

    def __init__(self, config: RelicConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.feature_count + int(config.previous_reward) + config.action_count + 1
        self.crop: CropEmbedding | None = None
        if config.cell_count:
            self.crop = CropEmbedding(
                config.cell_count, config.code_count, config.code_width, config.crop_width
            )
            inputs += config.crop_width
        self.token = nn.Linear(inputs, config.width)
        self.positions = EpisodePositions(config.horizon, config.width)
        self.transformer = EpisodicTransformer(config.transformer)
        self.out = nn.Linear(config.width, config.width)
        self.actor = nn.Linear(config.width, config.action_count)
        self.critic = nn.Linear(config.width, 1)
        self.recall: Recall | None = None
        if config.landmarks is not None:
            self.recall = Recall(config.width, config.landmarks)
        # Nearly equal odds at the beginning: nothing is known about any action.
        for head, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            nn.init.orthogonal_(head.weight, gain)
            nn.init.zeros_(head.bias)

    def embed(self, tokens: Tokens) -> Tensor:
        """Steps ``(...)`` -> ``(..., W)``, position in the episode included.

        Raises:
            UserError: an episode is longer than the model's horizon.
        """
        parts = [] if self.crop is None else [self.crop(tokens.cells)]
        parts.append(tokens.features)
        if self.config.previous_reward:
            parts.append(tokens.reward[..., None])
        parts.append(F.one_hot(tokens.action, self.config.action_count + 1).float())
        return self.token(torch.cat(parts, dim=-1)) + self.positions(tokens.time)

    def forward(self, tokens: Tokens) -> Outputs:
        """Whole trials ``(B, T)``, with gradients through all steps."""
        return self._heads(self.transformer(self.embed(tokens), tokens.episode))

    def study(self, tokens: Tokens, first: int = 0) -> tuple[Outputs, Tensor]:
        """As `forward`, and the loss of recall of each step, 0 without such a part; of the steps
        from ``first`` on, ``(B, T - first)``."""
        hidden = self.transformer(self.embed(tokens), tokens.episode, first=first)
        loss = torch.zeros(hidden.shape[:2], device=hidden.device)
        if self.recall is not None:
            loss = self.recall.loss(hidden, tokens.features)
        return self._heads(hidden), loss

    def evaluate(self, observation: Tokens, action: Tensor) -> Evaluation:
        """Whole trials ``(T, B)``, time first, and the actions taken in their last ``n`` steps
        ``(n, B)``; the auxiliary loss is that of recall."""
        tokens = Tokens(*(part.transpose(0, 1) for part in observation))
        (logits, value), recall = self.study(tokens, len(observation.action) - len(action))
        log_p = logits.log_softmax(dim=-1)
        chosen = log_p.gather(-1, action.T[..., None])[..., 0]
        entropy = -(log_p.exp() * log_p).sum(dim=-1)
        return Evaluation(chosen.T, entropy.T, value.T, recall.T)

    def new_cache(
        self,
        *,
        batch: int = 1,
        capacity: int = 256,
        limit: int = 65_536,
        dtype: torch.dtype = torch.float32,
    ) -> KVCache:
        """Of trials that have not begun, in steps, with the sinks of the present weights."""
        return self.transformer.new_cache(batch=batch, capacity=capacity, limit=limit, dtype=dtype)

    def write_sinks(self, cache: KVCache) -> None:
        """The sinks of the present weights into ``cache``. After a change of weights the rest of it
        is that of another network too, and is to be made anew: `clear` it, then `extend`."""
        self.transformer.write_sinks(cache)

    @torch.no_grad()
    def step(self, tokens: Tokens, cache: KVCache) -> Outputs:
        """The next step ``(B,)`` of the trials whose past is in ``cache``, which takes it in.

        Raises:
            UserError: the episode or the context is longer than it may be.
        """
        return self._heads(self.transformer.step(self.embed(tokens), cache, tokens.episode))

    @torch.no_grad()
    def extend(self, tokens: Tokens, cache: KVCache) -> Outputs:
        """The next steps ``(B, m)`` at once; what ``m`` calls of `step` would give."""
        return self._heads(self.transformer.extend(self.embed(tokens), cache, tokens.episode))

    def _heads(self, hidden: Tensor) -> Outputs:
        hidden = self.out(hidden)
        return Outputs(self.actor(hidden), self.critic(hidden)[..., 0])
