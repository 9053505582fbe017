"""The transformer that predicts clean (or noise) action tokens from noised ones and the frames
seen so far.

Layout (one sample): action tokens in time order, `past` of them before now; memory = one token for
the diffusion step, then one for each frame. Token i belongs to frame `i + frames - 1 - past` (or
the newest frame, for now and the future) and sees no later frame: each token is behaviour cloning
with the history that was known when its action was taken.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from embodied_rl.nn.attention import DecoderLayer, KeysValues, additive_mask


def sinusoidal(steps: Tensor, width: int) -> Tensor:
    """Diffusion steps (B,) -> (B, width): sines and cosines of geometric frequencies."""
    half = width // 2
    scale = math.log(10_000.0) / (half - 1)
    angles = steps.float()[:, None] * torch.exp(torch.arange(half, device=steps.device) * -scale)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def token_frames(tokens: int, past: int, frames: int) -> Tensor:
    """Index (tokens,) of the newest frame that each action token may see."""
    return torch.clamp(torch.arange(tokens) + frames - 1 - past, max=frames - 1)


class ActionDenoiser(nn.Module):
    """Transformer decoder over action tokens, given a diffusion step and a window of frames."""

    self_mask: Tensor
    cross_mask: Tensor

    def __init__(
        self,
        action_dim: int,
        frame_dim: int,
        *,
        tokens: int,
        past: int,
        frames: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if not 0 <= past < min(tokens, frames):
            raise ValueError(
                f"{past} past tokens need more of both, tokens {tokens} and frames {frames}"
            )
        self.width = width
        self.action_in = nn.Linear(action_dim, width)
        self.action_position = nn.Parameter(torch.zeros(tokens, width))
        self.frame_in = nn.Linear(frame_dim, width)
        self.memory_position = nn.Parameter(torch.zeros(1 + frames, width))
        # No attention among frames: each memory token depends on its own frame alone, so a token
        # cannot see a later frame by a detour, and the frames' part never depends on the diffusion
        # step.
        self.memory_mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width)
        )
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, action_dim)
        causal = torch.ones(tokens, tokens).tril().bool()
        seen = token_frames(tokens, past, frames)[:, None] >= torch.arange(-1, frames)[None, :]
        self.register_buffer("self_mask", additive_mask(causal), persistent=False)
        self.register_buffer("cross_mask", additive_mask(seen), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.action_position, std=0.02)
        nn.init.normal_(self.memory_position, std=0.02)

    def _project(self, memory: Tensor) -> list[KeysValues]:
        memory = self.memory_mlp(memory)
        return [layer.attend_cross.project(memory) for layer in self.layers]

    def remember(self, frames: Tensor) -> list[KeysValues]:
        """Embeddings (B, F, E) -> keys and values a layer; one call serves all diffusion steps."""
        return self._project(self.frame_in(frames) + self.memory_position[1:])

    def clock(self, step: Tensor) -> list[KeysValues]:
        """Steps (B,) -> keys and values a layer of the token that tells the diffusion step. They
        depend on nothing else, so one call serves all control steps."""
        return self._project((sinusoidal(step, self.width) + self.memory_position[0])[:, None])

    def denoise(self, noisy: Tensor, clock: list[KeysValues], memory: list[KeysValues]) -> Tensor:
        """noisy (B, T, A), the step from `clock`, the frames from `remember` -> prediction
        (B, T, A). Clock and memory may both be of one sample, which all B then share."""
        x = self.action_in(noisy) + self.action_position
        for layer, time, seen in zip(self.layers, clock, memory, strict=True):
            x = layer(x, seen.with_first(time), self.self_mask, self.cross_mask)
        return self.action_out(self.norm(x))

    def forward(self, noisy: Tensor, step: Tensor, frames: Tensor) -> Tensor:
        """noisy (B, T, A), step (B,), frames (B, F, E) -> prediction (B, T, A)."""
        return self.denoise(noisy, self.clock(step), self.remember(frames))
