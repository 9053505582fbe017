"""Training a PTP model from recorded episodes; a walk from recordings to a checkpoint folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.policies.ptp.config import POLICY, PtpRun
from embodied_rl.policies.ptp.data import PtpWindows, Recording
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.training.config import as_mapping
from embodied_rl.training.publish import publish
from embodied_rl.training.supervised import FitResult, fit


def train_ptp(
    run: PtpRun,
    recordings: Sequence[Recording],
    embodiment: Embodiment,
    *,
    out: Path,
    work: Path,
    source: str,
    resume: bool = False,
    quiet: bool = False,
) -> FitResult:
    """Trains `run` and, when it ran to its last step, writes the checkpoint folder `out`.

    Args:
        work: folder of the resumable state and the log.
        source: what the recordings are, for the card.
    """
    config, settings = run.model, run.training
    shapes = {k: s.shape for k, s in embodiment.require(config.streams).items()}
    try:
        windows = PtpWindows(recordings, config)
    except ValueError as error:
        raise UserError(f"{source}: {error}; see 'embodied_rl bags check'") from error
    torch.manual_seed(settings.seed)
    model = PtpModel(config, shapes, embodiment.action_dim)
    windows.fit_limits(model)
    training, validation = windows.split(settings.validation_fraction, settings.seed)

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        return model.loss(*windows.batch(rows), generator)

    result = fit(
        model,
        loss,
        settings=settings,
        training=training,
        validation=validation,
        folder=work,
        fingerprint=fingerprint(run, windows),
        resume=resume,
        quiet=quiet,
    )
    if result.finished:
        publish(
            out,
            policy=POLICY,
            name=run.name,
            task=run.task,
            parts={"model": as_mapping(config), "training": as_mapping(settings)},
            model=model,
            embodiment=embodiment,
            streams=config.streams,
            seed=settings.seed,
            data=_describe(source, windows, training, validation, result),
        )
    return result


def recordings_of(cache: EpisodeCache, streams: Sequence[str]) -> tuple[list[Recording], int]:
    """The episodes of a cache, and how many were left out because they are known to have failed."""
    recordings = [
        Recording(
            {k: episode.values(k) for k in streams},
            {k: episode.valid(k) for k in streams},
            episode.actions,
            episode.action_valid,
        )
        for episode in cache
        if episode.outcome is None or episode.outcome.success
    ]
    return recordings, len(cache) - len(recordings)


def fingerprint(run: PtpRun, windows: PtpWindows) -> str:
    """Names settings and data: a run may be resumed only with the same of both."""
    text = json.dumps([as_mapping(run.model), as_mapping(run.training)], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for array in (*windows.values.values(), windows.actions):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _describe(
    source: str,
    windows: PtpWindows,
    training: np.ndarray,
    validation: np.ndarray,
    result: FitResult,
) -> str:
    episodes = int(windows.episode[-1]) + 1
    held = np.unique(windows.episode[validation]).size
    text = (
        f"{episodes} episodes, {len(windows.actions)} control ticks from {source}; "
        f"{training.size} windows trained on, {held} episodes held out."
    )
    if result.validation_loss is not None:
        text += f" Loss on the held-out episodes {result.validation_loss:.5f}."
    return text
