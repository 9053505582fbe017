"""What training on cached embeddings costs, against the same training end to end.

First a step. Both are steps of the same loop (data from memory maps, forward, backward, clipping,
AdamW, EMA) with the same head, batch and threads: ResNet-18 on two cameras, 16 frames. They
alternate, so that a busy machine slows both; the figures are medians of the process's processor
time, which is the wall time of one thread on a machine with nothing else to do. The amortised ratio
also counts what the cached way needs before: the encoder's own short-context training and one
encoding of all frames.

Then the time to equal validation loss, on image bags of replace_object (recorded through the ROS
graph if ``--bags`` has none). A training end to end with ResNet-18 takes hours on a CPU, so this
part trains the model of configs/ptp_replace_object_image.yaml, which has the small CNN, on images
of half their side; its figures begin with the encoder's name. Its curves stand in the JSON.

On one core the whole takes about 8 minutes; ``--equal-steps 0`` leaves the second part out.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from _equal_loss import SHORT, Point, compare, figures_of, reduced, series_of
from _plot import BLUE, GREY, ORANGE, bars, beside, picture, target
from _report import Target, report
from _steps import (
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
from matplotlib.axes import Axes

from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.cli.main import main as verb
from embodied_rl.core.errors import UserError
from embodied_rl.nn.vision import BACKBONES
from embodied_rl.policies.ptp.config import read_run
from embodied_rl.policies.ptp.data import PtpWindows, Recording
from embodied_rl.policies.ptp.embedding_cache import EmbeddingCache, Stamp, build_embeddings
from embodied_rl.policies.ptp.train import recordings_of
from embodied_rl.training.supervised import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "ptp_replace_object_image.yaml"
HISTORY = 16
DEMONSTRATION_SEED = 1000
TARGETS: dict[str, Target] = {"step_ratio": (">=", 10.0)}
SIZES = (
    "batch", "threads", "side", "crop", "width", "layers", "head_steps", "encoder_steps", "frames",
)  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Times training on cached embeddings and end to end."""

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
    bags: Path = Path("runs/ptp_training/demos")
    """For the equal loss: image bags of replace_object; recorded if there are none."""
    demonstrations: int = 40
    """For the equal loss: episodes to record if there are none."""
    equal_encoder: str = "small_cnn"
    """For the equal loss: small_cnn or resnet18."""
    equal_steps: int = 300
    """For the equal loss: steps of the training end to end; 0 leaves this part out."""
    equal_batch: int = 16
    reduce: int = 2
    """For the equal loss: images shrink by this factor."""
    json: Path | None = None


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if the target is missed."""
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench ptp_training")
    _check(arguments)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = _steps(arguments, Path(folder))
    curves: tuple[list[Point], list[Point]] = ([], [])
    if arguments.equal_steps:
        with tempfile.TemporaryDirectory() as folder:
            curves = _equal_loss(arguments, Path(folder))
        prefix = f"{arguments.equal_encoder}_"
        figures |= {prefix + key: value for key, value in figures_of(*curves).items()}
        figures[prefix + "steps"] = arguments.equal_steps
        figures[prefix + "batch"] = arguments.equal_batch
    series = dict(zip(("end_to_end", "cached"), map(series_of, curves), strict=True))
    if arguments.json is not None:
        draw(figures, series, arguments.equal_encoder, beside(arguments.json))
    return report(
        "ptp_training", figures, TARGETS, arguments.json, series if arguments.equal_steps else None
    )


def _check(arguments: Arguments) -> None:
    for option in ("encoder", "equal_encoder"):
        if getattr(arguments, option) not in BACKBONES:
            raise UserError(
                f"--{option.replace('_', '-')}: expected one of {sorted(BACKBONES)}, saw "
                f"'{getattr(arguments, option)}'"
            )


def _steps(arguments: Arguments, folder: Path) -> dict[str, float]:
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


def _equal_loss(arguments: Arguments, folder: Path) -> tuple[list[Point], list[Point]]:
    config = read_run(CONFIG).model
    recordings = _recordings(arguments, config.streams, folder / "cache")
    smaller = reduced(recordings, list(config.encoders), folder, arguments.reduce)
    encoders = {
        key: replace(part, kind=arguments.equal_encoder, crop=part.crop // arguments.reduce)
        for key, part in config.encoders.items()
    }
    settings = TrainSettings(
        steps=arguments.equal_steps,
        batch=arguments.equal_batch,
        warmup=min(200, arguments.equal_steps // 4),
        validation_fraction=0.1,
    )
    return compare(smaller, replace(config, encoders=encoders), settings, folder / "embeddings")


def _recordings(arguments: Arguments, streams: Sequence[str], cache: Path) -> list[Recording]:
    """Episodes with images of replace_object."""
    bags = arguments.bags
    if not bags.exists():
        code = verb(
            [
                *("launch", "sim", "policy:=expert", "task:=replace_object", "record:=true"),
                *(f"episodes:={arguments.demonstrations}", "cameras:=fixed,wrist"),
                *(f"seed:={DEMONSTRATION_SEED}", f"out:={bags}"),
            ]
        )
        if code:
            raise UserError(f"{bags}: the recording ended with exit code {code}; delete the folder")
    convert(bags, cache, keys=streams)
    return recordings_of(EpisodeCache(cache, streams), streams)[0]


def draw(
    figures: Mapping[str, float],
    series: Mapping[str, Sequence[Mapping[str, float | str | None]]],
    encoder: str,
    path: Path,
) -> None:
    """Step times, memory and, where they were measured, the curves of both ways."""
    ways, colours = ("end to end", "cached"), (ORANGE, BLUE)
    columns = 3 if series["cached"] else 2
    with picture(path, columns=columns, size=(3.2 * columns, 3.0)) as axes:
        step, memory = axes[0, 0], axes[0, 1]
        seconds = [figures[f"step_{key}_ms"] / 1e3 for key in ("end_to_end", "cached")]
        bars(step, ways, seconds, colours=colours)
        step.set_title(f"One step: {figures['step_ratio']:.1f} times")
        step.set_ylabel("processor seconds")
        sizes = [figures[f"peak_memory_{key}_mb"] / 1e3 for key in ("end_to_end", "cached")]
        bars(memory, ways, sizes, colours=colours)
        memory.set_title("Peak memory")
        memory.set_ylabel("GB")
        if series["cached"]:
            _draw_curves(axes[0, 2], figures, series, encoder)


def _draw_curves(
    axis: Axes,
    figures: Mapping[str, float],
    series: Mapping[str, Sequence[Mapping[str, float | str | None]]],
    encoder: str,
) -> None:
    for key, colour in (("end_to_end", ORANGE), ("cached", BLUE)):
        judged = [point for point in series[key] if point["loss"] is not None]
        axis.plot(
            [point["cpu_s"] for point in judged],
            [point["loss"] for point in judged],
            "o-",
            color=colour,
            markersize=3,
            label=key.replace("_", " "),
        )
    begun = [point for point in series["cached"] if point["stage"] == "embeddings"][0]["cpu_s"]
    axis.axvspan(0, begun, color=GREY, alpha=0.15, label="cached: encoder, embeddings")
    target(axis, figures[f"{encoder}_validation_loss_end_to_end"], "")
    axis.set_yscale("log")
    axis.set_xlabel("processor seconds")
    ratio = figures[f"{encoder}_equal_loss_ratio"]
    axis.set_title(f"To equal loss, {encoder}: {ratio:.1f} times")
    axis.set_ylabel("validation loss")
    axis.legend()
