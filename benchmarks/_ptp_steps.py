"""Training steps of our image diffusion policy, served to the benchmark.

A step is that of our own training loop: windows gathered from memory maps, normalising, cropping,
forward, backward, gradient clipping, AdamW and the moving average of the weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _step_server import Steps, serve
from _steps import CAMERAS, Training, image_config, image_loss, new_model, noise_recordings

from embodied_rl.policies.ptp.data import PtpWindows
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.training.supervised import TrainSettings


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _make(folder: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], Steps]:
    torch.set_num_threads(settings["threads"])
    history = settings["history"]
    config = image_config(
        "resnet18",
        settings["crop"],
        history=history,
        chunk=settings["horizon"] - (history - 1),  # past actions are tokens too
        width=settings["width"],
        layers=settings["layers"],
    )
    windows = PtpWindows(noise_recordings(folder, settings["side"]), config)
    model = new_model(windows)
    training = Training(
        model,
        image_loss(model, windows),
        TrainSettings(batch=settings["batch"], learning_rate=1e-4),
        windows.rows,
    )
    description = {
        "encoder_parameters": _count(model.encoder),
        "head_parameters": _count(model.denoiser),
        "versions": {"torch": version("torch")},
    }
    encoder = _encoder_step(model, windows, settings["batch"])
    return description, {"step": training.step, "encoder": encoder}


def _encoder_step(model: PtpModel, windows: PtpWindows, batch: int) -> Callable[[], object]:
    """Forward and backward of the image encoders alone."""
    frames, _, _ = windows.batch(np.resize(windows.rows, batch))

    def step() -> None:
        model.encoder.train()
        for camera in CAMERAS:
            model.encoder.streams[camera](frames[camera].flatten(0, 1)).sum().backward()
        model.encoder.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        serve(lambda settings: _make(Path(root), settings))
