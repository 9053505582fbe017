"""What a training step costs on cached embeddings, against the same step end to end.

Both are steps of the same loop (data from memory maps, forward, backward, clipping, AdamW, EMA)
with the same head, batch and threads: ResNet-18 on two cameras, 16 frames. They alternate, so that
a busy machine slows both; the figures are medians of the process's processor time, which is the
wall time of one thread on a machine with nothing else to do. The amortised ratio also counts what
the cached way needs before: the encoder's own short-context training and one encoding of all
frames. What a step is worth, `bench ptp_equal_loss` measures.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from _plot import BLUE, ORANGE, bars, beside, picture
from _report import Target, report
from _steps import (
    SHORT,
    Cost,
    Stopwatch,
    Training,
    embedding_loss,
    image_config,
    image_loss,
    new_model,
    noise_recordings,
    peak_mb,
)

from embodied_rl.policies.ptp.data import PtpWindows
from embodied_rl.policies.ptp.embedding_cache import EmbeddingCache, Stamp, build_embeddings
from embodied_rl.training.supervised import TrainSettings

HISTORY = 16
TARGETS: dict[str, Target] = {"step_ratio": (">=", 10.0)}
SIZES = (
    "batch", "threads", "side", "crop", "width", "layers", "head_steps", "encoder_steps", "frames",
)  # fmt: skip


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
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench ptp_training")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(arguments, Path(folder))
    if arguments.json is not None:
        draw(figures, beside(arguments.json))
    return report("ptp_training", figures, TARGETS, arguments.json)


def _measure(arguments: Arguments, folder: Path) -> dict[str, float]:
    """Costs of a step of each kind, from steps that take turns."""
    config = image_config(
        arguments.encoder,
        arguments.crop,
        history=HISTORY,
        chunk=17,
        width=arguments.width,
        layers=arguments.layers,
    )
    recordings = noise_recordings(folder, arguments.side)
    windows = PtpWindows(recordings, config)
    encoding, cached = _cached(arguments, windows, folder / "embeddings")
    cached.step()
    cached_mb = peak_mb()
    end_to_end = _from_images(arguments, windows)
    encoder_stage = _from_images(arguments, PtpWindows(recordings, replace(config, history=SHORT)))
    end_to_end.step()
    encoder_stage.step()
    costs: dict[str, list[Cost]] = {"full": [], "short": [], "cached": []}
    for _ in range(arguments.rounds):
        costs["full"].append(end_to_end.step())
        costs["cached"] += [cached.step() for _ in range(5)]
        costs["short"].append(encoder_stage.step())
    full, short, head = (_medians(costs[k]) for k in ("full", "short", "cached"))
    frame_s = encoding.cpu_s / len(windows.actions)
    prepared_s = arguments.encoder_steps * short.cpu_s + arguments.frames * frame_s
    steps = arguments.head_steps
    return {
        "step_end_to_end_ms": 1e3 * full.cpu_s,
        "step_cached_ms": 1e3 * head.cpu_s,
        "step_ratio": full.cpu_s / head.cpu_s,
        "step_wall_ratio": full.wall_s / head.wall_s,
        "step_encoder_stage_ms": 1e3 * short.cpu_s,
        "encode_ms_a_frame": 1e3 * frame_s,
        "amortised_ratio": steps * full.cpu_s / (prepared_s + steps * head.cpu_s),
        "peak_memory_cached_mb": cached_mb,
        "peak_memory_end_to_end_mb": peak_mb(),
        **{key: float(getattr(arguments, key)) for key in SIZES},
    }


def _medians(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.cpu_s for cost in costs),
        statistics.median(cost.wall_s for cost in costs),
    )


def _from_images(arguments: Arguments, windows: PtpWindows) -> Training:
    model = new_model(windows)
    return Training(model, image_loss(model, windows), _settings(arguments), windows.rows)


def _cached(arguments: Arguments, windows: PtpWindows, root: Path) -> tuple[Cost, Training]:
    """What encoding all frames cost, and the training on what was encoded."""
    model = new_model(windows)
    model.encoder.requires_grad_(False)
    watch = Stopwatch()
    build_embeddings(root, model.encoder, windows, quiet=True)
    encoding = watch.read()
    cache = EmbeddingCache(root, Stamp.of(model.encoder, windows))
    loss = embedding_loss(model, windows, cache.read)
    return encoding, Training(model.head(), loss, _settings(arguments), windows.rows)


def _settings(arguments: Arguments) -> TrainSettings:
    return TrainSettings(batch=arguments.batch, learning_rate=1e-4)


def draw(figures: Mapping[str, float], path: Path) -> None:
    """Step times and peak memory of both ways."""
    ways, colours = ("end to end", "cached"), (ORANGE, BLUE)
    with picture(path, columns=2, size=(6.4, 3.0)) as axes:
        step, memory = axes[0]
        seconds = [figures[f"step_{key}_ms"] / 1e3 for key in ("end_to_end", "cached")]
        bars(step, ways, seconds, colours=colours)
        step.set_title(f"One step: {figures['step_ratio']:.1f} times")
        step.set_ylabel("processor seconds")
        sizes = [figures[f"peak_memory_{key}_mb"] / 1e3 for key in ("end_to_end", "cached")]
        bars(memory, ways, sizes, colours=colours)
        memory.set_title("Peak memory")
        memory.set_ylabel("GB")
