"""The denoiser against torch's own decoder, and its masks against what a token may know."""

import pytest
import torch
from torch import nn

from embodied_rl.nn.denoiser import ActionDenoiser, sinusoidal, token_frames

SIZES = {"tokens": 7, "past": 3, "frames": 4, "width": 32, "layers": 2, "heads": 4, "dropout": 0.0}


def make(**changes):
    torch.manual_seed(0)
    model = ActionDenoiser(2, 5, **{**SIZES, **changes}).eval()
    for p in model.parameters():  # away from the near-zero start, so that errors would show
        nn.init.normal_(p, std=0.2)
    return model


def inputs(model, batch=3):
    torch.manual_seed(1)
    tokens, frames = model.self_mask.shape[0], model.cross_mask.shape[1] - 1
    return torch.randn(batch, tokens, 2), torch.tensor([0, 41, 99]), torch.randn(batch, frames, 5)


def reference(model, noisy, step, frames):
    """The same weights in `nn.TransformerDecoder`, memory recomputed as published: no caching."""
    width = model.width
    decoder = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(
            width, 4, 4 * width, 0.0, activation="gelu", batch_first=True, norm_first=True
        ),
        len(model.layers),
        norm=nn.LayerNorm(width),
    ).eval()
    for theirs, ours in zip(decoder.layers, model.layers, strict=True):
        for attention, own in (
            (theirs.self_attn, ours.attend_self),
            (theirs.multihead_attn, ours.attend_cross),
        ):
            attention.in_proj_weight.data = torch.cat([own.query.weight, own.key_value.weight])
            attention.in_proj_bias.data = torch.cat([own.query.bias, own.key_value.bias])
            attention.out_proj.load_state_dict(own.out.state_dict())
        theirs.norm1.load_state_dict(ours.norm_self.state_dict())
        theirs.norm2.load_state_dict(ours.norm_cross.state_dict())
        theirs.norm3.load_state_dict(ours.norm_ff.state_dict())
        theirs.linear1.load_state_dict(ours.up.state_dict())
        theirs.linear2.load_state_dict(ours.down.state_dict())
    decoder.norm.load_state_dict(model.norm.state_dict())
    tokens, memory_length = model.cross_mask.shape
    past = SIZES["past"]
    allowed = torch.zeros(tokens, memory_length, dtype=torch.bool)
    for i in range(tokens):
        for j in range(memory_length):
            allowed[i, j] = j == 0 or j - 1 <= i + (memory_length - 2 - past)
    memory = torch.cat([sinusoidal(step, width)[:, None], model.frame_in(frames)], dim=1)
    memory = model.memory_mlp(memory + model.memory_position)
    causal = torch.triu(torch.ones(tokens, tokens, dtype=torch.bool), diagonal=1)
    x = model.action_in(noisy) + model.action_position
    return model.action_out(decoder(x, memory, tgt_mask=causal, memory_mask=~allowed))


@torch.no_grad()
def test_equals_torch_decoder_and_cached_memory():
    model = make()
    noisy, step, frames = inputs(model)
    expected = reference(model, noisy, step, frames)
    torch.testing.assert_close(model(noisy, step, frames), expected, atol=1e-5, rtol=1e-5)
    memory = model.remember(frames)  # once, then used for several steps
    for shift in (0, 1):
        cached = model.denoise(noisy, model.clock(step // (1 + shift)), memory)
        plain = reference(model, noisy, step // (1 + shift), frames)
        torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_token_sees_no_later_frame_and_no_later_token():
    model = make()
    noisy, step, frames = inputs(model)
    before = model(noisy, step, frames)
    for j in range(4):
        changed = frames.clone()
        changed[:, j] += 1.0
        moved = (model(noisy, step, changed) - before).abs().amax(dim=(0, 2)) > 0
        # with past = frames - 1, token i belongs to frame i; tokens from 3 on are now and future
        assert moved.tolist() == [i >= j for i in range(7)]
    for j in range(7):
        changed = noisy.clone()
        changed[:, j] += 1.0
        moved = (model(changed, step, frames) - before).abs().amax(dim=(0, 2)) > 0
        assert moved.tolist() == [i >= j for i in range(7)]


@torch.no_grad()
def test_without_past_tokens_every_token_sees_every_frame():
    model = make(past=0, tokens=4)
    noisy, step, frames = inputs(model)
    changed = frames.clone()
    changed[:, 3] += 1.0
    moved = (model(noisy, step, changed) - model(noisy, step, frames)).abs().amax(dim=(0, 2))
    assert (moved > 0).all()


def test_token_frames():
    assert token_frames(7, 3, 4).tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert token_frames(4, 1, 4).tolist() == [2, 3, 3, 3]
    assert token_frames(2, 0, 4).tolist() == [3, 3]


def test_impossible_layout_is_refused():
    with pytest.raises(ValueError, match="past"):
        make(past=4)
