"""The PTP network: frame encoder, action limits and denoiser, with its loss and its sampler."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.denoiser import ActionDenoiser
from embodied_rl.nn.diffusion import Diffusion
from embodied_rl.nn.encoders import make_frame_encoder
from embodied_rl.nn.normalizer import MinMax
from embodied_rl.policies.ptp.config import PtpConfig


class PtpModel(nn.Module):
    """B samples, F = `config.history` frames, T = `config.tokens` actions of A dimensions."""

    def __init__(
        self, config: PtpConfig, shapes: Mapping[str, tuple[int, ...]], action_dim: int
    ) -> None:
        """`shapes` holds the shape of one value of each stream in `config.streams`.

        Raises:
            UserError: a camera without an encoder, or one that does not fit the image.
        """
        super().__init__()
        self.config = config
        self.action_dim = action_dim
        self.encoder = make_frame_encoder({k: shapes[k] for k in config.streams}, config.encoders)
        self.actions = MinMax(action_dim)
        self.denoiser = ActionDenoiser(
            action_dim,
            self.encoder.dim,
            tokens=config.tokens,
            past=config.past,
            frames=config.history,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
        )
        self.diffusion = Diffusion(
            steps=config.diffusion_steps,
            sampling_steps=config.sampling_steps,
            prediction=config.prediction,
        )

    def loss(
        self,
        frames: Mapping[str, Tensor],
        actions: Tensor,
        known: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean squared error over the supervised tokens.

        Args:
            frames: {key: (B, F, *shape)} in the data's units.
            actions: (B, T, A) position targets; where not `known`, any finite value.
            known: (B, T) whether that action was recorded; the others carry no loss.
        """
        return self.head_loss(self.encoder(frames), actions, known, generator)

    def head_loss(
        self, embeddings: Tensor, actions: Tensor, known: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The same loss from embeddings (B, F, E), which another stage has made."""
        clean = self.actions(actions)
        noisy, step, target = self.diffusion.corrupt(clean, generator)
        predicted = self.denoiser(noisy, step, embeddings)
        first = self.config.first_supervised
        weight = known[:, first:].to(predicted.dtype)
        errors = (predicted - target)[:, first:].square().mean(dim=-1)
        return (errors * weight).sum() / weight.sum().clamp(min=1.0)

    def head(self) -> nn.Module:
        """What follows the encoder, as a module of its own; it shares the tensors."""
        return nn.ModuleDict({"actions": self.actions, "denoiser": self.denoiser})

    def clocks(self) -> dict[int, list[KeysValues]]:
        """What `sample` needs to know of the diffusion steps; the same until the weights change."""
        device = self.denoiser.action_position.device
        return {
            t: self.denoiser.clock(torch.tensor([t], device=device))
            for t in self.diffusion.timesteps
        }

    def sample(
        self,
        embeddings: Tensor,
        noise: Tensor,
        clocks: Mapping[int, list[KeysValues]] | None = None,
    ) -> Tensor:
        """Action tokens (B, T, A) in the data's units.

        Args:
            embeddings: (B, F, E), or (1, F, E) for B candidates from the same frames.
            noise: (B, T, A).
            clocks: from `clocks`, to save making them anew.
        """
        memory = self.denoiser.remember(embeddings)
        known = self.clocks() if clocks is None else clocks

        def predict(noisy: Tensor, step: Tensor) -> Tensor:
            return self.denoiser.denoise(noisy, known[int(step[0])], memory)

        return self.actions.inverse(self.diffusion.sample(noise, predict))
