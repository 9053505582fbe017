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


def test_sampling_is_deterministic_and_equals_diffusers():
    diffusion = Diffusion(steps=100, sampling_steps=5, prediction="sample")
    weight = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))

    def network(x, t):
        return torch.tanh(x @ weight + t[:, None, None] / 100)

    noise = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(2))
    first, second = diffusion.sample(noise, network), diffusion.sample(noise, network)
    assert torch.equal(first, second)
    theirs = DDIMScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(5)
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(network(x, t[None]), t, x).prev_sample
    torch.testing.assert_close(first, x)
    ours = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    np.testing.assert_allclose(ours.numpy(), alpha_bar(100), rtol=1e-3, atol=1e-6)


def test_unknown_prediction():
    with pytest.raises(ValueError, match="velocity"):
        Diffusion(steps=10, sampling_steps=5, prediction="velocity")
