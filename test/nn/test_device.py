"""Devices: names, refusals, and networks that make every tensor where their weights are.

There need not be a GPU: on the device "meta" torch computes shapes alone, but it refuses to mix
tensors of two devices exactly as CUDA does.
"""

from __future__ import annotations

import pytest
import torch

from embodied_rl.core.errors import UserError
from embodied_rl.nn.denoiser import ActionDenoiser
from embodied_rl.nn.device import choose_device, device_of, moved
from embodied_rl.nn.diffusion import Diffusion
from embodied_rl.nn.encoders import make_frame_encoder
from embodied_rl.nn.vision import ImageSettings

META = torch.device("meta")


def test_auto_is_a_gpu_only_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda", 0, "saw 'cuda' with no CUDA device; use auto"),
        ("cuda:2", 2, "saw 'cuda:2' with 2 CUDA devices; use auto"),
        ("gpu", 1, "expected auto, cpu, cuda or cuda:N, saw 'gpu'"),
        ("meta", 1, "expected auto, cpu, cuda or cuda:N, saw 'meta'"),
    ],
)
def test_devices_that_are_not_here_are_refused(monkeypatch, name, count, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=message):
        choose_device(name)


def test_device_of_a_module():
    assert device_of(torch.nn.Linear(2, 3).to(META)) == META
    assert device_of(torch.nn.BatchNorm1d(2, affine=False).to(META)) == META, "buffers alone"
    assert device_of(torch.nn.ReLU()) == torch.device("cpu")


@pytest.mark.parametrize("training", [True, False])
def test_images_are_encoded_where_the_weights_are(training):
    shapes = {"camera": (24, 24, 3), "state": (4,)}
    jitter = ImageSettings("small_cnn", crop=20, jitter=True)
    encoder = make_frame_encoder(shapes, {"camera": jitter}).to(META).train(training)
    frames = {k: torch.zeros(2, 3, *shape) for k, shape in shapes.items()}
    assert encoder(moved(frames, META)).device == META
    with pytest.raises(RuntimeError):
        encoder(frames)


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_noise_and_denoising_follow_the_data(prediction):
    sizes = {"tokens": 6, "past": 2, "frames": 3, "width": 16, "layers": 1, "heads": 2}
    net = ActionDenoiser(4, 5, dropout=0.0, **sizes).to(META)
    diffusion = Diffusion(steps=20, sampling_steps=4, prediction=prediction)
    clean = torch.zeros(2, 6, 4, device=META)
    noisy, step, target = diffusion.corrupt(clean, torch.Generator().manual_seed(0))
    assert {noisy.device, step.device, target.device} == {META}
    loss = (net(noisy, step, torch.zeros(2, 3, 5, device=META)) - target).square().mean()
    loss.backward()
    assert loss.device == net.action_out.weight.grad.device == META
    memory = net.remember(torch.zeros(1, 3, 5, device=META))
    clocks = {t: net.clock(torch.tensor([t], device=META)) for t in diffusion.timesteps}
    drawn = diffusion.sample(clean, lambda x, t: net.denoise(x, clocks[int(t[0])], memory))
    assert drawn.device == META


def test_a_run_draws_the_same_numbers_wherever_it_is_computed():
    diffusion = Diffusion(steps=20, sampling_steps=4, prediction="sample")
    clean = torch.zeros(2, 3, 4)
    noisy, step, _ = diffusion.corrupt(clean, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(clean.shape, generator=generator)
    assert torch.equal(step, torch.randint(0, 20, (2,), generator=generator))
    share = (noisy / noise)[:, 0, 0]
    assert torch.allclose(noisy, share[:, None, None] * noise, atol=1e-6), "noise of that seed"
