"""Training a PTP model from recorded episodes; a walk from recordings to a checkpoint folder.

With an `encoder` part in the config it has three stages, each of which can be stopped and resumed:

1. a short-context policy, end to end: its encoder is kept, with averaged weights (EMA);
2. the embeddings of all frames, once, by that encoder in evaluation mode;
3. the long-context head on those embeddings. It never sees an image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_rl.bags.cache import CachedEpisode, EpisodeCache
from embodied_rl.core.embodiment import Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.nn.device import AUTO, choose_device, moved
from embodied_rl.nn.encoders import FrameEncoder, encoder_hash
from embodied_rl.nn.fingerprint import weights_fingerprint
from embodied_rl.policies.ptp.config import POLICY, PtpConfig, PtpRun
from embodied_rl.policies.ptp.data import EMBEDDING, PtpWindows, Recording
from embodied_rl.policies.ptp.embedding_cache import EmbeddingCache, Stamp, build_embeddings
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.runtime import load_model
from embodied_rl.training.config import as_mapping
from embodied_rl.training.publish import publish
from embodied_rl.training.state import forget_state, has_state
from embodied_rl.training.supervised import FitResult, fit

ENCODER, EMBEDDINGS = "encoder", "embeddings"  # stages, and their folders in the work folder
FREE_SETTINGS = ("execute", "dropout", "sampling_steps", "samples")  # they shape no weight


@dataclass(frozen=True)
class _Job:
    """What all stages share."""

    run: PtpRun
    recordings: Sequence[Recording]
    shapes: Mapping[str, tuple[int, ...]]
    action_dim: int
    device: torch.device
    work: Path
    source: str
    resume: bool
    quiet: bool
    begun_from: str = ""  # fingerprint of the model whose weights are trained on

    def windows(self, config: PtpConfig) -> PtpWindows:
        try:
            return PtpWindows(self.recordings, config)
        except ValueError as error:
            raise UserError(f"{self.source}: {error}; see 'embodied_rl bags check'") from error

    def model(self, config: PtpConfig, seed: int) -> PtpModel:
        torch.manual_seed(seed)
        return PtpModel(config, self.shapes, self.action_dim).to(self.device)

    def batch(
        self, windows: PtpWindows, rows: np.ndarray
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """`windows.batch` where the model is."""
        frames, actions, known = windows.batch(rows)
        return moved(frames, self.device), actions.to(self.device), known.to(self.device)


def train_ptp(
    run: PtpRun,
    recordings: Sequence[Recording],
    embodiment: Embodiment,
    *,
    out: Path,
    work: Path,
    source: str,
    device: str = AUTO,
    resume: bool = False,
    quiet: bool = False,
    init: Path | None = None,
) -> FitResult:
    """Trains `run` and, when it ran to its last step, writes the checkpoint folder `out`.

    Args:
        work: folder of the resumable state and the log, and of the embeddings.
        source: what the recordings are, for the card.
        device: where to compute, see `choose_device`.
        resume: go on from what an interrupted run left in `work`; a stage that it had not begun
            begins.
        init: checkpoint folder whose weights and normalisers the training begins with; with an
            encoder stage its encoder is kept as it is and only the head is trained on.

    Returns:
        How the last stage that was begun ended.

    Raises:
        UserError: what does not fit: bags, settings, or the checkpoint `init`.
    """
    config, settings = run.model, run.training
    streams = embodiment.require(config.streams)
    check_cameras(config, streams)
    shapes = {k: s.shape for k, s in streams.items()}
    place = choose_device(device)
    job = _Job(run, recordings, shapes, embodiment.action_dim, place, work, source, resume, quiet)
    model = job.model(config, settings.seed)  # first of all: it refuses what does not fit
    if init is not None:
        job = replace(job, begun_from=begin_with(model, init, embodiment))
    check_recordings(recordings, config, source)
    windows = job.windows(config)
    if not windows.split(settings.validation_fraction, settings.seed)[0].size:
        raise UserError(
            f"{source}: expected rows with all streams and an action to train on, saw "
            f"{len(windows.rows)} in all, none beside the episodes held out; record more"
        )
    train = _train_end_to_end if run.encoder is None else _train_staged
    result = train(job, model, windows)
    if result.finished:
        publish(
            out,
            policy=POLICY,
            name=run.name,
            task=run.task,
            parts=_parts(run, model),
            model=model,
            embodiment=embodiment,
            streams=config.streams,
            seed=settings.seed,
            data=_describe(run, source, windows, result),
        )
    return result


def begin_with(model: PtpModel, folder: Path, embodiment: Embodiment) -> str:
    """Gives `model` the weights of a checkpoint, its normalisers included: they were learned
    together, and new limits would turn every learned feature into another one.

    Returns:
        What names those weights.

    Raises:
        UserError: it is of another robot, or its shape differs; names the first setting.
    """
    name, other = load_model(folder, embodiment)
    for key, wanted in as_mapping(model.config).items():
        seen = as_mapping(other.config)[key]
        if key not in FREE_SETTINGS and wanted != seen:
            raise UserError(
                f"--init {folder}: model.{key}: expected {wanted!r} as in the config of this "
                f"training, saw {seen!r} in the checkpoint '{name}'"
            )
    model.load_state_dict(other.state_dict())
    return weights_fingerprint(other, name)


def _train_end_to_end(job: _Job, model: PtpModel, windows: PtpWindows) -> FitResult:
    if not job.begun_from:
        windows.fit_limits(model)
    settings = job.run.training
    training, validation = windows.split(settings.validation_fraction, settings.seed)

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        return model.loss(*job.batch(windows, rows), generator)

    return fit(
        model,
        loss,
        settings=settings,
        training=training,
        validation=validation,
        folder=job.work,
        fingerprint=fingerprint(job.run, windows, job.begun_from),
        resume=job.resume and has_state(job.work),
        quiet=job.quiet,
    )


def _train_staged(job: _Job, model: PtpModel, windows: PtpWindows) -> FitResult:
    """The three stages; `model` gets the encoder of the first and the head of the third."""
    if not job.resume:
        forget_state(job.work)  # else a later --resume would find the head of another encoder
    wall_s = 0.0
    if not job.begun_from:
        result, encoder = _train_encoder(job)
        wall_s = result.wall_s
        if not result.finished:
            return result
        model.encoder.load_state_dict(encoder.state_dict())
    model.encoder.eval().requires_grad_(False)
    folder = job.work / EMBEDDINGS
    total = len(windows.episodes)
    done = build_embeddings(folder, model.encoder, windows, resume=job.resume, quiet=job.quiet)
    if done < total:
        return FitResult(done, total, False, float("nan"), None, wall_s, EMBEDDINGS)
    cache = EmbeddingCache(folder, Stamp.of(model.encoder, windows))
    result = _train_head(job, model, windows, cache)
    return replace(result, wall_s=result.wall_s + wall_s)


def check_cameras(config: PtpConfig, streams: Mapping[str, Stream]) -> None:
    """That each encoder's camera is of the kind that its settings say.

    Raises:
        UserError: depth without its range, a range without depth, or pixels that are no intensity.
    """
    for key, settings in config.encoders.items():
        encoding = streams[key].encoding
        if encoding not in ("rgb8", "mono8", "32FC1"):
            raise UserError(
                f"model.encoders.{key}: expected a stream of rgb8, mono8 or 32FC1, saw "
                f"{encoding or streams[key].type}; millimetres become metres by 'encoding: 32FC1' "
                "and 'source_encoding: 16UC1' of the stream"
            )
        if (encoding == "32FC1") != (settings.depth_m > 0):
            expected = "the farthest distance in metres" if encoding == "32FC1" else "0"
            raise UserError(
                f"model.encoders.{key}.depth_m: expected {expected} for a stream of {encoding}, "
                f"saw {settings.depth_m:g}"
            )


def _train_encoder(job: _Job) -> tuple[FitResult, FrameEncoder]:
    """Stage 1: an end-to-end policy of few frames; the rest of it is thrown away."""
    stage = job.run.encoder
    assert stage is not None
    run = replace(job.run, model=stage.model(job.run.model), training=stage.training, encoder=None)
    windows = job.windows(run.model)
    model = job.model(run.model, stage.training.seed)
    windows.fit_limits(model)
    training, validation = windows.split(stage.training.validation_fraction, stage.training.seed)

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        return model.loss(*job.batch(windows, rows), generator)

    result = fit(
        model,
        loss,
        settings=stage.training,
        training=training,
        validation=validation,
        folder=job.work / ENCODER,
        fingerprint=fingerprint(run, windows),
        resume=job.resume and has_state(job.work / ENCODER),
        quiet=job.quiet,
        title=ENCODER,
    )
    return result, model.encoder


def _train_head(
    job: _Job, model: PtpModel, windows: PtpWindows, cache: EmbeddingCache
) -> FitResult:
    """Stage 3: everything behind the encoder, from embeddings."""
    if not job.begun_from:
        windows.fit_action_limits(model)
    embedded = windows.embedded(cache.read)
    settings = job.run.training
    training, validation = windows.split(settings.validation_fraction, settings.seed)

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        frames, actions, known = job.batch(embedded, rows)
        return model.head_loss(frames[EMBEDDING], actions, known, generator)

    return fit(
        model.head(),
        loss,
        settings=settings,
        training=training,
        validation=validation,
        folder=job.work,
        fingerprint=fingerprint(job.run, windows, encoder_hash(model.encoder) + job.begun_from),
        resume=job.resume and has_state(job.work),
        quiet=job.quiet,
        title="head",
    )


class EpisodeValues(Mapping[str, np.ndarray]):
    """The streams of a cached episode, opened at every use: maps are recycled, never piled up."""

    def __init__(self, episode: CachedEpisode, streams: Sequence[str]) -> None:
        self._episode, self._streams = episode, tuple(streams)

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._streams:
            raise KeyError(key)
        return self._episode.values(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def __len__(self) -> int:
        return len(self._streams)


def recordings_of(
    cache: EpisodeCache, streams: Sequence[str], *, unfinished: bool = False
) -> tuple[list[Recording], int, int]:
    """The episodes of a cache to learn from, and how many were left out: those known to have
    failed, and, unless ``unfinished``, those whose declared start has no outcome."""
    failed = [e for e in cache if e.outcome and e.outcome.done and not e.outcome.success]
    halves = [e for e in cache if e.record.unfinished and not unfinished]
    left_out = {e.name for e in (*failed, *halves)}
    recordings = [
        Recording(
            EpisodeValues(episode, streams),
            {k: episode.valid(k) for k in streams},
            episode.actions,
            episode.action_valid,
            name=episode.record.bag,
            source=f"{episode.record.embodiment_hash}/{episode.record.source}",
        )
        for episode in cache
        if episode.name not in left_out
    ]
    return recordings, len(failed), len(halves)


def check_recordings(recordings: Sequence[Recording], config: PtpConfig, source: str) -> None:
    """Refuses recordings that the model cannot be trained on.

    Raises:
        UserError: a stream was never seen in some recording (both are named), no recording has an
            action, or none is as long as the history.
    """
    for recording in recordings:
        absent = [k for k in config.streams if not np.any(recording.valid[k])]
        if absent:
            raise UserError(
                f"{recording.name or source}: expected streams {list(config.streams)}, saw no "
                f"value of {absent}; take the bag out, or train without that stream"
            )
    if recordings and not any(np.any(recording.known) for recording in recordings):
        raise UserError(
            f"{source}: expected an action at some control tick, saw none; 'embodied_rl bags "
            "check' names the command topics that are silent"
        )
    longest = max((len(r.actions) for r in recordings), default=0)
    if 0 < longest <= config.reach:
        raise UserError(
            f"{source}: model.history: {config.history} frames {config.stride} ticks apart need "
            f"{config.reach + 1} ticks, the longest episode has {longest}; make history or stride "
            "smaller"
        )


def fingerprint(run: PtpRun, windows: PtpWindows, encoder: str = "") -> str:
    """Names settings and data (and the encoder that made the embeddings, or the weights that it
    began with): a run may be resumed only with the same of all.
    """
    text = json.dumps([as_mapping(run.model), as_mapping(run.training), encoder], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    windows.update(digest)
    return digest.hexdigest()[:16]


def _parts(run: PtpRun, model: PtpModel) -> dict[str, Any]:
    parts: dict[str, Any] = {"model": as_mapping(run.model), "training": as_mapping(run.training)}
    if run.encoder is not None:
        parts["encoder"] = {
            "history": run.encoder.history,
            "training": as_mapping(run.encoder.training),
            "hash": encoder_hash(model.encoder),
        }
    return parts


def _describe(run: PtpRun, source: str, windows: PtpWindows, result: FitResult) -> str:
    settings = run.training
    training, validation = windows.split(settings.validation_fraction, settings.seed)
    held = np.unique(windows.episode[validation]).size
    text = (
        f"{len(windows.episodes)} episodes, {len(windows.actions)} control ticks from {source}; "
        f"{training.size} windows trained on, {held} episodes held out."
    )
    if result.validation_loss is not None:
        text += f" Loss on the held-out episodes {result.validation_loss:.5f}."
    if run.encoder is not None:
        text += (
            f" In stages: encoder {run.encoder.training.steps} steps, end to end, in a policy "
            f"with a history of {run.encoder.history}; then the head on its embeddings."
        )
    return text
