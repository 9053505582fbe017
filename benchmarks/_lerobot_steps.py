"""Training steps of LeRobot's DiffusionPolicy, served to the benchmark; run by LeRobot's Python.

A step is that of its own training loop: forward, backward, gradient clipping, its Adam and its
schedule of the learning rate. The batch is made before and lies in memory, normalised: decoding,
collating and normalising, which LeRobot does in other processes, cost it nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from _step_server import Steps, serve

GRAD_CLIP = 10.0  # LeRobot's default


def _without_detection_operators() -> torch.library.Library:
    """Lets torchvision be imported where its compiled part does not fit torch.

    The wheel on the package index is linked against CUDA. Beside a CPU-only torch it cannot be
    loaded, and the Python part then stumbles over two operators of object detection that it
    registers without having them. Nothing here uses them; the residual nets are plain Python.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _import_torchvision() -> torch.library.Library | None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        return _without_detection_operators()
    return None


_operators = _import_torchvision()  # they live as long as this does

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig  # noqa: E402
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy  # noqa: E402


def _config(settings: dict[str, Any]) -> DiffusionConfig:
    side, crop = settings["side"], settings["crop"]
    image = PolicyFeature(FeatureType.VISUAL, (3, side, side))
    inputs = {f"observation.images.{camera}": image for camera in settings["cameras"]}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (settings["state"],))
    return DiffusionConfig(
        n_obs_steps=settings["history"],
        horizon=settings["horizon"],
        n_action_steps=8,
        down_dims=tuple(settings["down_dims"]),
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (settings["actions"],))},
        crop_shape=(crop, crop),
        pretrained_backbone_weights=None,
        use_group_norm=True,
        use_separate_rgb_encoder_per_camera=True,
        device="cpu",
    )


def _batch(config: DiffusionConfig, batch: int) -> dict[str, torch.Tensor]:
    def noise(steps: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(batch, steps, *shape)

    values = {k: noise(config.n_obs_steps, f.shape) for k, f in config.input_features.items()}
    values["action"] = noise(config.horizon, config.output_features["action"].shape).clamp(-1, 1)
    values["action_is_pad"] = torch.zeros(batch, config.horizon, dtype=torch.bool)
    return values


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _make(settings: dict[str, Any]) -> tuple[dict[str, Any], Steps]:
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    config = _config(settings)
    policy = DiffusionPolicy(config)
    policy.train()
    batch = _batch(config, settings["batch"])
    description = {
        "encoder_parameters": _count(policy.diffusion.rgb_encoder),
        "head_parameters": _count(policy.diffusion.unet),
        "versions": {name: version(name) for name in ("lerobot", "torch", "torchvision")},
    }
    return description, {"step": _step(policy, batch), "encoder": _encoder_step(policy, batch)}


def _step(policy: DiffusionPolicy, batch: dict[str, torch.Tensor]) -> Callable[[], object]:
    config = policy.config
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    schedule = config.get_scheduler_preset().build(optimizer, 100_000)

    def step() -> float:
        loss, _ = policy.forward(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), GRAD_CLIP)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        return loss.item()

    return step


def _encoder_step(policy: DiffusionPolicy, batch: dict[str, torch.Tensor]) -> Callable[[], object]:
    """Forward and backward of the image encoders alone."""

    def step() -> None:
        encoders = policy.diffusion.rgb_encoder
        for encoder, key in zip(encoders, policy.config.image_features, strict=True):
            encoder(batch[key].flatten(0, 1)).sum().backward()
        encoders.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    serve(_make)
