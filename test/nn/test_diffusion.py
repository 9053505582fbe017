import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from embodied_rl.nn.diffusion import Diffusion


def alpha_bar(steps: int) -> np.ndarray:
    """Nichol & Dhariwal's squared cosine, beta at most 0.999, written out anew."""
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_corrupt_equals_the_closed_form(prediction):
    diffusion = Diffusion(steps=100, sampling_steps=10, prediction=prediction)
    clean = torch.randn(64, 3, 2)
    noisy, step, target = diffusion.corrupt(clean, torch.Generator().manual_seed(5))
    bar = torch.from_numpy(alpha_bar(100)).float()[step][:, None, None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        noisy, bar.sqrt() * clean + (1 - bar).sqrt() * noise, atol=2e-4, rtol=0
    )
    torch.testing.assert_close(target, clean if prediction == "sample" else noise)
    assert step.min() >= 0 and step.max() <= 99


def test_visited_steps():
    trailing = Diffusion(steps=100, sampling_steps=10, prediction="sample").timesteps
    leading = Diffusion(steps=100, sampling_steps=10, prediction="epsilon").timesteps
    assert trailing == list(range(99, 0, -10))
    assert leading == list(range(90, -1, -10))


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_sampling_recovers_what_a_perfect_network_knows(prediction):
    """With the true answer as the prediction, DDIM ends at the clean sample, whatever the noise."""
    diffusion = Diffusion(steps=100, sampling_steps=10, prediction=prediction)
    clean = torch.rand(2, 3, 2) * 1.6 - 0.8
    bars = torch.from_numpy(alpha_bar(100)).float()

    def perfect(x, t):
        bar = bars[t][:, None, None]
        return clean if prediction == "sample" else (x - bar.sqrt() * clean) / (1 - bar).sqrt()

    noise = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(diffusion.sample(noise, perfect), clean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("steps, sampling_steps", [(100, 10), (100, 5), (50, 7), (16, 16)])
@pytest.mark.parametrize("prediction, spacing", [("sample", "trailing"), ("epsilon", "leading")])
def test_equals_diffusers_to_the_bit(steps, sampling_steps, prediction, spacing):
    diffusion = Diffusion(steps=steps, sampling_steps=sampling_steps, prediction=prediction)
    common = {
        "num_train_timesteps": steps,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": prediction,
        "clip_sample": True,
    }
    forward = DDPMScheduler(**common)
    assert torch.equal(diffusion.alpha_bar, forward.alphas_cumprod)
    clean = torch.randn(32, 4, 2, generator=torch.Generator().manual_seed(3))
    noisy, step, _ = diffusion.corrupt(clean, torch.Generator().manual_seed(4))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    assert torch.equal(noisy, forward.add_noise(clean, noise, step))
    sampler = DDIMScheduler(**common, timestep_spacing=spacing, set_alpha_to_one=True)
    sampler.set_timesteps(sampling_steps)
    assert diffusion.timesteps == sampler.timesteps.tolist()
    weight = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))

    def network(x, t):
        return torch.tanh(x @ weight + t[:, None, None] / steps)

    x = noise
    for t in sampler.timesteps:
        x = sampler.step(network(x, t.expand(len(x))), int(t), x, eta=0.0).prev_sample
    assert torch.equal(diffusion.sample(noise, network), x)


def test_unknown_prediction():
    with pytest.raises(ValueError, match="velocity"):
        Diffusion(steps=10, sampling_steps=5, prediction="velocity")
