"""The diffusion process of a policy: noised targets (DDPM, arXiv 2006.11239 eq. 4), deterministic
sampling in a few steps (DDIM, arXiv 2010.02502 eq. 12), on a cosine schedule (arXiv 2102.09672).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

PREDICTIONS = ("sample", "epsilon")
_OFFSET, _LARGEST_BETA = 0.008, 0.999  # of the cosine schedule (2102.09672, section 3.2)


class Diffusion:
    """The forward process and its sampler. Clean samples lie in [-1, 1].

    Which steps DDIM visits matters. A network that predicts the clean sample may start at the very
    last step ("trailing": 99, 89, ... 9), where the input is pure noise, as it is in sampling. A
    network that predicts the noise must not: there its first estimate is divided by
    sqrt(alpha_bar) = 5e-4; it starts one stride lower ("leading": 90, 80, ... 0).
    """

    def __init__(self, *, steps: int, sampling_steps: int, prediction: str) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction {prediction!r}: expected one of {PREDICTIONS}")
        self.steps = steps
        self.prediction = prediction
        self.alpha_bar = cosine_alpha_bar(steps)  # (steps,) what is left of the sample's power
        self._stride = steps // sampling_steps
        if prediction == "sample":
            ratio = steps / sampling_steps
            self.timesteps = [round(steps - i * ratio) - 1 for i in range(sampling_steps)]
        else:
            self.timesteps = [i * self._stride for i in reversed(range(sampling_steps))]

    def corrupt(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One step and one noise a sample: clean (B, T, A) -> noisy, step (B,), target.

        They are drawn on the generator's device: with one of the CPU a run draws the same numbers
        wherever it is computed.
        """
        drawn = {"generator": generator, "device": generator.device}
        noise = torch.randn(clean.shape, **drawn).to(clean.device)
        step = torch.randint(0, self.steps, (clean.shape[0],), **drawn).to(clean.device)
        alpha_bar = self.alpha_bar.to(clean)[step].view(-1, *[1] * (clean.ndim - 1))
        noisy = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise
        return noisy, step, clean if self.prediction == "sample" else noise

    def sample(self, noise: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Deterministic DDIM from `noise` (B, T, A); `predict(noisy, step (B,))` is the network."""
        x = noise
        for step in self.timesteps:
            time = torch.full((x.shape[0],), step)  # of the CPU: reading it must not wait for a GPU
            x = self._denoised(x, predict(x, time), step)
        return x

    def _denoised(self, x: Tensor, output: Tensor, step: int) -> Tensor:
        """One step of DDIM without fresh noise (sigma = 0)."""
        before = step - self._stride
        now = self.alpha_bar[step]
        then = self.alpha_bar[before] if before >= 0 else torch.tensor(1.0)
        if self.prediction == "sample":
            clean = output
            noise = (x - now**0.5 * clean) / (1 - now) ** 0.5
        else:
            clean = (x - (1 - now) ** 0.5 * output) / now**0.5
            noise = output
        return then**0.5 * clean.clamp(-1.0, 1.0) + (1 - then) ** 0.5 * noise


def cosine_alpha_bar(steps: int) -> Tensor:
    """``(steps,)`` float32: the product of 1 - beta up to each step (2102.09672 eq. 17)."""

    def kept(time: float) -> float:
        return math.cos((time + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2

    betas = [
        min(1 - kept((step + 1) / steps) / kept(step / steps), _LARGEST_BETA)
        for step in range(steps)
    ]
    return torch.cumprod(1.0 - torch.tensor(betas, dtype=torch.float32), dim=0)
