"""What the live policy saves itself changes nothing: against all frames encoded anew at every
control step, and the whole network run anew at every denoising step."""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ptp_cases import PERIOD_NS, episode, make_recording, rows_of
from ptp_image_cases import CONFIG, make_image_recordings, make_robot
from test_ptp_runtime import make_policy

from embodied_rl.core.policy import ActionChunk
from embodied_rl.core.window import history_indices
from embodied_rl.nn.vision import ImageSettings
from embodied_rl.policies.ptp.data import PtpWindows
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.runtime import PtpPolicy


def plain_tokens(model, rows, tick, noise):
    """Candidates (N, T, A) by the long way: no ring, no kept memory, nothing shared."""
    index, _ = history_indices(tick, model.config.history, model.config.stride)
    frames = {
        key: torch.from_numpy(np.stack([rows[i].values[key] for i in index]))[None].float()
        for key in model.config.streams
    }
    embeddings = model.encoder(frames).repeat(len(noise), 1, 1)
    tokens = model.diffusion.sample(
        noise, lambda noisy, step: model.denoiser(noisy, step, embeddings)
    )
    return model.actions.inverse(tokens)


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
@pytest.mark.parametrize("samples", [1, 3])
def test_equals_the_plain_path(config, embodiment, recordings, samples, prediction):
    config = replace(config, prediction=prediction)
    policy = make_policy(config, embodiment, recordings, samples=samples)
    drawn, kept = [], {}
    draw, verify = policy._draw, policy._verify

    def noted_draw(count):
        drawn.append(draw(count))
        return drawn[-1]

    def noted_verify(tokens, done, known):
        kept["tokens"], kept["best"] = tokens, verify(tokens, done, known)
        return kept["best"]

    policy._draw, policy._verify = noted_draw, noted_verify
    policy.reset(episode())
    rows = list(rows_of(make_recording(24, seed=4)))
    for tick, row in enumerate(rows):
        policy.observe(row)
        chunk = policy.act()
        with torch.no_grad():
            expected = plain_tokens(policy.model, rows, tick, drawn[-1])
        torch.testing.assert_close(kept["tokens"], expected, atol=1e-5, rtol=1e-5)
        best = expected[kept["best"], config.past :].numpy()
        np.testing.assert_allclose(chunk.values, best, atol=1e-5)
        policy.executed(ActionChunk(chunk.stamp_ns, PERIOD_NS, np.clip(chunk.values, -1, 1)))
    assert len(drawn[-1]) == samples


@pytest.mark.parametrize("kind", ["small_cnn", "resnet18"])
def test_equals_the_plain_path_from_two_cameras(kind):
    """The policy encodes one frame at a time, in its own layout of the weights; a copy of the model
    as it was trained encodes the whole window at once."""
    images = {k: ImageSettings(kind, crop=20, keypoints=8, features=6) for k in ("left", "right")}
    config = replace(CONFIG, encoders=images)
    robot, recordings = make_robot(), make_image_recordings()
    torch.manual_seed(0)
    model = PtpModel(config, {k: robot.streams[k].shape for k in config.streams}, 2).eval()
    PtpWindows(recordings, config).fit_limits(model)
    original = copy.deepcopy(model)
    policy = PtpPolicy(model, robot, name="watch_ptp", samples=2)
    drawn, draw = [], policy._draw

    def noted_draw(count):
        drawn.append(draw(count)[:1])
        return drawn[-1]

    policy._draw = noted_draw
    policy.reset(episode())
    rows = list(rows_of(recordings[1]))
    for tick, row in enumerate(rows):
        policy.observe(row)
        chunk = policy.act()
        with torch.no_grad():
            expected = plain_tokens(original, rows, tick, drawn[-1])[0, config.past :]
        np.testing.assert_allclose(chunk.values, expected.numpy(), atol=1e-5)


def test_each_frame_is_encoded_once_and_each_memory_made_once(
    config, embodiment, recordings, monkeypatch
):
    policy = make_policy(config, embodiment, recordings, samples=4)
    calls = Counter()
    model = policy.model
    encode, remember, clock = model.encoder.forward, model.denoiser.remember, model.denoiser.clock

    def noted(name, function):
        def call(*arguments):
            calls[name] += 1
            if name == "frames":
                assert all(v.shape[:2] == (1, 1) for v in arguments[0].values())
            return function(*arguments)

        return call

    monkeypatch.setattr(model.encoder, "forward", noted("frames", encode))
    monkeypatch.setattr(model.denoiser, "remember", noted("memories", remember))
    monkeypatch.setattr(model.denoiser, "clock", noted("clocks", clock))
    policy.reset(episode())
    for tick, row in enumerate(rows_of(recordings[0])):
        policy.observe(row)
        if tick % 2 == 0:
            policy.executed(policy.act())
    assert calls == {"frames": 30, "memories": 15}
