"""What a training step costs on cached embeddings, against the same step end to end.

Both are steps of the same loop (data from memory maps, forward, backward, clipping, AdamW, EMA)
with the same head, batch and threads: ResNet-18 on two cameras, 16 frames. They alternate, so that
a busy machine slows both; the figures are medians. The amortised ratio also counts what the cached
way needs before: the encoder's own short-context training and one encoding of all frames.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from _report import report

from embodied_rl.nn.vision import ImageSettings
from embodied_rl.policies.ptp.config import PtpConfig
from embodied_rl.policies.ptp.data import EMBEDDING, PtpWindows, Recording
from embodied_rl.policies.ptp.embedding_cache import EmbeddingCache, Stamp, build_embeddings
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.training.supervised import TrainSettings, start_training, train_step

CAMERAS = ("camera_fixed", "camera_wrist")
STATE, ACTIONS = 9, 7  # numbers of the proprioception and of a command
SHORT = 2  # frames of the encoder's own training
EPISODES, ROWS = 4, 80
TARGETS = {"step_ratio": (">=", 10.0)}


@dataclass(frozen=True)
class Arguments:
    """Times training steps on cached embeddings and end to end."""

    encoder: str = "resnet18"
    """resnet18 or small_cnn; the target is for resnet18."""
    side: int = 84
    """Pixels of an image's side."""
    crop: int = 76
    """Pixels of the crop's side."""
    batch: int = 8
    width: int = 256
    layers: int = 8
    rounds: int = 5
    """Each has one end-to-end step, one of the encoder's training and five cached ones."""
    threads: int = 1
    head_steps: int = 20000
    """For the amortised ratio: steps of the long-context head."""
    encoder_steps: int = 5000
    """For the amortised ratio: steps of the encoder's training."""
    frames: int = 20000
    """For the amortised ratio: frames in the data."""
    json: Path | None = None


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if the target is missed."""
    arguments = tyro.cli(Arguments, args=argv, prog="bench ptp_training", description=__doc__)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(arguments, Path(folder))
    return report("ptp_training", figures, TARGETS, arguments.json)


def _measure(arguments: Arguments, folder: Path) -> dict[str, float]:
    config = _config(arguments)
    windows = PtpWindows(_recordings(arguments, folder), config)
    encode_s, cached = _cached(arguments, windows, folder / "embeddings")
    cached()
    before_mb = _peak_mb()
    end_to_end = _end_to_end(arguments, windows)
    encoder_stage = _end_to_end(
        arguments,
        PtpWindows([e.recording for e in windows.episodes], replace(config, history=SHORT)),
    )
    end_to_end()
    encoder_stage()
    times: dict[str, list[float]] = {"full": [], "short": [], "cached": []}
    for _ in range(arguments.rounds):
        times["full"].append(end_to_end())
        times["cached"] += [cached() for _ in range(5)]
        times["short"].append(encoder_stage())
    full, short, head = (statistics.median(times[k]) for k in ("full", "short", "cached"))
    prepared_s = arguments.encoder_steps * short + arguments.frames * encode_s
    steps = arguments.head_steps
    return {
        "step_end_to_end_ms": 1e3 * full,
        "step_cached_ms": 1e3 * head,
        "step_ratio": full / head,
        "step_encoder_stage_ms": 1e3 * short,
        "encode_ms_a_frame": 1e3 * encode_s,
        "amortised_ratio": steps * full / (prepared_s + steps * head),
        "peak_memory_cached_mb": before_mb,
        "peak_memory_end_to_end_mb": _peak_mb(),
        **{
            key: float(getattr(arguments, key))
            for key in (
                "batch",
                "threads",
                "side",
                "crop",
                "width",
                "layers",
                "head_steps",
                "encoder_steps",
                "frames",
            )  # fmt: skip
        },
    }


def _config(arguments: Arguments) -> PtpConfig:
    settings = ImageSettings(arguments.encoder, arguments.crop)
    return PtpConfig(
        (*CAMERAS, "state"),
        history=16,
        chunk=17,
        execute=8,
        width=arguments.width,
        layers=arguments.layers,
        heads=4,
        encoders=dict.fromkeys(CAMERAS, settings),
    )


def _recordings(arguments: Arguments, folder: Path) -> list[Recording]:
    """Noise in memory-mapped files: what is in the pixels does not change the cost."""
    rng = np.random.default_rng(0)
    recordings = []
    for episode in range(EPISODES):
        values: dict[str, np.ndarray] = {"state": rng.normal(size=(ROWS, STATE))}
        for camera in CAMERAS:
            path = folder / f"{episode}_{camera}.npy"
            shape = (ROWS, arguments.side, arguments.side, 3)
            np.save(path, rng.integers(0, 256, shape, dtype=np.uint8))
            values[camera] = np.load(path, mmap_mode="r")
        valid = dict.fromkeys(values, np.ones(ROWS, dtype=bool))
        actions = rng.normal(size=(ROWS, ACTIONS))
        recordings.append(Recording(values, valid, actions, np.ones(ROWS, dtype=bool)))
    return recordings


def _model(windows: PtpWindows) -> PtpModel:
    torch.manual_seed(0)
    images = windows.episodes[0].recording.values
    shapes = {key: tuple(images[key].shape[1:]) for key in windows.config.streams}
    model = PtpModel(windows.config, shapes, ACTIONS)
    windows.fit_limits(model)
    return model


def _end_to_end(arguments: Arguments, windows: PtpWindows) -> Callable[[], float]:
    model = _model(windows)

    def loss(rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        return model.loss(*windows.batch(rows), generator)

    return _timed(arguments, model, loss, windows)


def _cached(
    arguments: Arguments, windows: PtpWindows, root: Path
) -> tuple[float, Callable[[], float]]:
    """Seconds to encode a frame, and the step on what was encoded."""
    model = _model(windows)
    model.encoder.requires_grad_(False)
    began = time.perf_counter()
    build_embeddings(root, model.encoder, windows, quiet=True)
    encode_s = (time.perf_counter() - began) / len(windows.actions)
    cache = EmbeddingCache(root, Stamp.of(model.encoder, windows))
    embedded = windows.embedded(cache.read)

    def loss(rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        frames, actions, known = embedded.batch(rows)
        return model.head_loss(frames[EMBEDDING], actions, known, generator)

    return encode_s, _timed(arguments, model.head(), loss, windows)


def _timed(
    arguments: Arguments,
    module: torch.nn.Module,
    loss: Callable[[np.ndarray, torch.Generator], torch.Tensor],
    windows: PtpWindows,
) -> Callable[[], float]:
    """A function that takes one more step and returns its seconds."""
    settings = TrainSettings(batch=arguments.batch, learning_rate=1e-4)
    state = start_training(module, settings)

    def step() -> float:
        began = time.perf_counter()
        train_step(state, loss, settings, windows.rows)
        return time.perf_counter() - began

    return step


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
