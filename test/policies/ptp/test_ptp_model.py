"""The loss: where it reaches, what it ignores, and that it can be driven to zero."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embodied_rl.policies.ptp.data import PtpWindows
from embodied_rl.policies.ptp.model import PtpModel

SHAPES = {"place": (2,), "thing": (3,)}


def make(config, recordings):
    torch.manual_seed(0)
    windows = PtpWindows(recordings, config)
    model = PtpModel(config, SHAPES, 2)
    windows.fit_limits(model)
    return model, windows


@pytest.mark.parametrize(
    "changes, supervised",
    [
        ({}, range(8)),
        ({"supervised_past": 1}, range(2, 8)),
        ({"supervised_past": 0}, range(3, 8)),
        ({"past_tokens": False}, range(5)),
    ],
)
def test_gradient_is_exactly_zero_outside_the_supervised_tokens(
    config, recordings, changes, supervised
):
    config = replace(config, **changes)
    model, windows = make(config, recordings)
    outputs = []
    model.denoiser.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    loss = model.loss(*windows.batch(windows.rows[:9]), torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, outputs)
    reached = (gradient.abs().amax(dim=(0, 2)) > 0).tolist()
    assert reached == [i in supervised for i in range(config.tokens)]


def test_unknown_actions_carry_no_loss(config, recordings):
    model, windows = make(config, recordings)
    frames, actions, known = windows.batch(windows.rows[:9])
    known[:, 2:4] = False
    outputs = []
    model.denoiser.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    model.eval()
    loss = model.loss(frames, actions, known, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert (gradient[:, 2:4] == 0).all()
    target = model.actions(actions)
    keep = [0, 1, 4, 5, 6, 7]
    expected = (outputs[0] - target)[:, keep].square().mean()
    torch.testing.assert_close(loss, expected)


def test_overfits_one_episode(config, recordings):
    model, windows = make(replace(config, dropout=0.0), recordings[1:2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        loss = model.loss(*windows.batch(np.repeat(windows.rows, 4)), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    frames, actions, _ = windows.batch(windows.rows)
    with torch.inference_mode():
        sampled = model.sample(model.encoder(frames), torch.randn(actions.shape))
    error = (model.actions(sampled) - model.actions(actions)).abs().mean()
    assert error < 0.05
