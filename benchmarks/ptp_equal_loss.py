"""How long training on cached embeddings and end to end take to the same validation loss.

The two ways train one long-context model on the same recorded episodes, with the same head, batch
and settings:

- end to end: every step encodes all frames of its windows;
- cached, in three stages: a short-context policy for its encoder, one encoding of all frames, and
  the head on those embeddings. The encoder's stage has as many steps as the training end to end,
  the head, whose steps are cheap, `HEAD_STEPS` times as many.

Both are judged by the averaged weights on the same windows of the same held-out episodes with the
same noise. They take turns, one part of each, so that a busy machine slows both; judging them is
not counted. The goal is the loss that the training end to end has after its last step.

A training end to end with ResNet-18 takes hours on a CPU, so this trains the model of
configs/ptp_replace_object_image.yaml, which has the small CNN, on images of half their side, and
few steps: about 2 minutes on one core. ``--encoder resnet18`` and ``--steps`` are for those who
have more. Image bags of replace_object are recorded through the ROS graph if ``--bags`` is not
there. The curves stand in the JSON.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import tyro
from _plot import BLUE, GREY, ORANGE, beside, picture, target
from _report import Target, report
from _steps import SHORT, Cost, Stopwatch, Training, embedding_loss, image_loss, new_model

from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.cli.main import main as verb
from embodied_rl.core.errors import UserError
from embodied_rl.nn.vision import BACKBONES
from embodied_rl.policies.ptp.config import EncoderStage, PtpConfig, read_run
from embodied_rl.policies.ptp.data import PtpWindows, Recording
from embodied_rl.policies.ptp.embedding_cache import EmbeddingCache, Stamp, build_embeddings
from embodied_rl.policies.ptp.train import recordings_of
from embodied_rl.training.supervised import TrainSettings, validation_loss

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ptp_replace_object_image.yaml"
DEMONSTRATION_SEED = 1000
HEAD_STEPS = 4  # of the head, for each step of the training end to end
PARTS = 10  # of a training; the loss is measured after each
TARGETS: dict[str, Target] = {"equal_loss_ratio": (">=", 1.0)}

Curve = Sequence[Mapping[str, float | str | None]]  # of points as `series_of` gives them


@dataclass(frozen=True)
class Arguments:
    """Time to equal validation loss, cached and end to end."""

    bags: Path = Path("runs/ptp_equal_loss/demos")
    """Image bags of replace_object; recorded if there is no such folder."""
    demonstrations: int = 40
    """Episodes to record."""
    encoder: str = "small_cnn"
    """small_cnn or resnet18."""
    steps: int = 200
    """Of the training end to end."""
    batch: int = 8
    reduce: int = 2
    """Images shrink by this factor."""
    threads: int = 1
    json: Path | None = None


@dataclass(frozen=True)
class Point:
    """What a way has cost so far, and its loss; there is none before its head is begun."""

    stage: str
    cost: Cost
    loss: float | None = None


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if the cached way takes longer."""
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench ptp_equal_loss")
    if arguments.encoder not in BACKBONES:
        raise UserError(
            f"--encoder: expected one of {sorted(BACKBONES)}, saw '{arguments.encoder}'"
        )
    if arguments.steps < PARTS:
        raise UserError(f"--steps: expected at least {PARTS}, saw {arguments.steps}")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        slow, staged = _measure(arguments, Path(folder))
    sizes = ("steps", "batch", "reduce", "threads")
    figures = figures_of(slow, staged) | {key: float(getattr(arguments, key)) for key in sizes}
    series = {"end_to_end": series_of(slow), "cached": series_of(staged)}
    if arguments.json is not None:
        draw(figures, series, arguments.encoder, beside(arguments.json))
    return report(
        "ptp_equal_loss", figures, TARGETS, arguments.json, {"encoder": arguments.encoder, **series}
    )


def _measure(arguments: Arguments, folder: Path) -> tuple[list[Point], list[Point]]:
    config = read_run(CONFIG).model
    recordings = _recordings(arguments, config.streams, folder / "cache")
    smaller = reduced(recordings, list(config.encoders), folder, arguments.reduce)
    encoders = {
        key: replace(part, kind=arguments.encoder, crop=part.crop // arguments.reduce)
        for key, part in config.encoders.items()
    }
    settings = TrainSettings(
        steps=arguments.steps,
        batch=arguments.batch,
        warmup=min(200, arguments.steps // 4),
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


def compare(
    recordings: Sequence[Recording], config: PtpConfig, settings: TrainSettings, folder: Path
) -> tuple[list[Point], list[Point]]:
    """Curves of both ways, the training end to end first.

    Args:
        settings: of the training end to end; the others have its batch, rates and held-out
            episodes.
        folder: where the embeddings go.
    """
    windows = PtpWindows(recordings, config)
    short_windows = PtpWindows(recordings, EncoderStage(SHORT, settings).model(config))
    slow = _end_to_end(windows, settings)
    staged = _cached(windows, short_windows, settings, folder)
    curves: tuple[list[Point], list[Point]] = ([], [])
    while len(curves[0]) < PARTS:
        curves[0].append(next(slow))
        curves[1].extend(islice(staged, 2))  # its two trainings have PARTS each
    curves[1].extend(staged)
    return curves


def reduced(
    recordings: Sequence[Recording], cameras: Sequence[str], folder: Path, by: int
) -> list[Recording]:
    """The recordings with images of a `by`-th of the side: means of `by` x `by` pixels, in files
    in `folder`.
    """
    smaller = []
    for number, recording in enumerate(recordings):
        values = {key: recording.values[key] for key in recording.values if key not in cameras}
        for key in cameras:
            path = folder / f"{number}_{key}.npy"
            images = np.asarray(recording.values[key], dtype=np.float32)
            count, height, width, channels = images.shape
            blocks = images.reshape(count, height // by, by, width // by, by, channels)
            np.save(path, blocks.mean(axis=(2, 4)).round().astype(np.uint8))
            values[key] = np.load(path, mmap_mode="r")
        smaller.append(replace(recording, values=values, source=""))
    return smaller


def _end_to_end(windows: PtpWindows, settings: TrainSettings) -> Iterator[Point]:
    model = new_model(windows)
    training, held_out = windows.split(settings.validation_fraction, settings.seed)
    run = Training(model, image_loss(model, windows), settings, training)
    return _curve("end to end", run, Cost(), held_out)


def _cached(
    windows: PtpWindows, short_windows: PtpWindows, settings: TrainSettings, folder: Path
) -> Iterator[Point]:
    model, short = new_model(windows), new_model(short_windows)
    training, held_out = windows.split(settings.validation_fraction, settings.seed)
    first = Training(short, image_loss(short, short_windows), settings, training)
    cost = Cost()
    for point in _curve("encoder", first, cost):
        cost = point.cost
        yield point
    watch = Stopwatch()
    with first.state.ema.applied():
        model.encoder.load_state_dict(short.encoder.state_dict())
    model.encoder.requires_grad_(False)
    build_embeddings(folder, model.encoder, windows, quiet=True)
    cost += watch.read()
    yield Point("embeddings", cost)
    read = EmbeddingCache(folder, Stamp.of(model.encoder, windows)).read
    loss = embedding_loss(model, windows, read)
    more = replace(settings, steps=HEAD_STEPS * settings.steps)
    yield from _curve("head", Training(model.head(), loss, more, training), cost, held_out)


def _curve(
    stage: str, training: Training, cost: Cost, held_out: np.ndarray | None = None
) -> Iterator[Point]:
    """Parts of a training, each with what all cost up to its end."""
    marks = np.linspace(0, training.settings.steps, PARTS + 1).astype(int)
    for steps in np.diff(marks):
        for _ in range(steps):
            cost += training.step()
        judged = None
        if held_out is not None:
            judged = validation_loss(training.state, training.loss, training.settings, held_out)
        yield Point(stage, cost, judged)


def figures_of(slow: Sequence[Point], staged: Sequence[Point]) -> dict[str, float]:
    """Seconds of both ways to the loss that the training end to end ends with.

    If the cached way never gets there, its seconds are missing and the ratios are 0.
    """
    whole, goal = slow[-1].cost, slow[-1].loss
    last = {point.stage: point for point in staged}
    assert goal is not None and last["head"].loss is not None
    figures = {
        "validation_loss_end_to_end": goal,
        "validation_loss_cached": last["head"].loss,
        "equal_loss_end_to_end_cpu_s": whole.cpu_s,
        "equal_loss_end_to_end_wall_s": whole.wall_s,
        "equal_loss_ratio": 0.0,
        "equal_loss_wall_ratio": 0.0,
        "cached_encoder_stage_cpu_s": last["encoder"].cost.cpu_s,
        "cached_embeddings_cpu_s": last["embeddings"].cost.cpu_s - last["encoder"].cost.cpu_s,
        "cached_head_cpu_s": last["head"].cost.cpu_s - last["embeddings"].cost.cpu_s,
    }
    reached = next((p.cost for p in staged if p.loss is not None and p.loss <= goal), None)
    if reached is not None:
        figures["equal_loss_cached_cpu_s"] = reached.cpu_s
        figures["equal_loss_cached_wall_s"] = reached.wall_s
        figures["equal_loss_ratio"] = whole.cpu_s / reached.cpu_s
        figures["equal_loss_wall_ratio"] = whole.wall_s / reached.wall_s
    return figures


def series_of(points: Sequence[Point]) -> list[dict[str, float | str | None]]:
    """A curve for the JSON."""
    return [
        {"stage": p.stage, "cpu_s": p.cost.cpu_s, "wall_s": p.cost.wall_s, "loss": p.loss}
        for p in points
    ]


def draw(
    figures: Mapping[str, float], series: Mapping[str, Curve], encoder: str, path: Path
) -> None:
    """Loss of both ways over what they cost."""
    with picture(path, size=(5.2, 3.6)) as axes:
        axis = axes[0, 0]
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
        begun = next(p["cpu_s"] for p in series["cached"] if p["stage"] == "embeddings")
        axis.axvspan(0, begun, color=GREY, alpha=0.15, label="cached: encoder, embeddings")
        target(axis, figures["validation_loss_end_to_end"], "")
        axis.set_yscale("log")
        axis.set_xlabel("processor seconds")
        axis.set_ylabel("validation loss")
        ratio = figures["equal_loss_ratio"]
        axis.set_title(f"To equal loss: {ratio:.1f} times faster cached ({encoder})")
        axis.legend()
