"""Noise schedules of `diffusers`: DDPM noises training targets, DDIM samples in a few steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

PREDICTIONS = ("sample", "epsilon")


class Diffusion:
    """The forward process and its sampler, with the training betas in both.

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
        common = {
            "num_train_timesteps": steps,
            "beta_schedule": "squaredcos_cap_v2",
            "prediction_type": prediction,
            "clip_sample": True,
        }
        spacing = "trailing" if prediction == "sample" else "leading"
        self._forward = DDPMScheduler(**common, variance_type="fixed_small")
        self._sampler = DDIMScheduler(**common, timestep_spacing=spacing, set_alpha_to_one=True)
        self._sampler.set_timesteps(sampling_steps)

    @property
    def timesteps(self) -> list[int]:
        """The steps that sampling visits, noisiest first."""
        return [int(t) for t in self._sampler.timesteps]

    def corrupt(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One step and one noise a sample: clean (B, T, A) -> noisy, step (B,), target.

        They are drawn on the generator's device: with one of the CPU a run draws the same numbers
        wherever it is computed.
        """
        drawn = {"generator": generator, "device": generator.device}
        noise = torch.randn(clean.shape, **drawn).to(clean.device)
        step = torch.randint(0, self.steps, (clean.shape[0],), **drawn).to(clean.device)
        noisy = self._forward.add_noise(clean, noise, step)
        return noisy, step, clean if self.prediction == "sample" else noise

    def sample(self, noise: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Deterministic DDIM from `noise` (B, T, A); `predict(noisy, step (B,))` is the network."""
        x = noise
        for t in self._sampler.timesteps:
            output = predict(x, t.expand(x.shape[0]))
            x = self._sampler.step(output, int(t), x, eta=0.0).prev_sample
        return x
