"""Training steps of image policies for benchmarks: their data, losses and clock."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from embodied_rl.nn.vision import ImageSettings
from embodied_rl.policies.ptp.config import PtpConfig
from embodied_rl.policies.ptp.data import EMBEDDING, PtpWindows, Recording
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.training.supervised import (
    LossFunction,
    TrainSettings,
    start_training,
    train_step,
)

CAMERAS = ("camera_fixed", "camera_wrist")
STATE, ACTIONS = 9, 7  # numbers of the proprioception and of a command
SHORT = 2  # frames of the encoder's own training
EPISODES, ROWS = 4, 80


@dataclass(frozen=True)
class Cost:
    """What something took: seconds of this process on all its threads, and on the wall."""

    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s)


class Stopwatch:
    """Runs from its making on."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def read(self) -> Cost:
        return Cost(time.process_time() - self._cpu_s, time.perf_counter() - self._wall_s)


def peak_mb() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def image_config(
    kind: str, crop: int, *, history: int, chunk: int, width: int, layers: int
) -> PtpConfig:
    """PTP from two cameras and the robot's own state."""
    return PtpConfig(
        (*CAMERAS, "state"),
        history=history,
        chunk=chunk,
        execute=min(8, chunk),
        width=width,
        layers=layers,
        heads=4,
        encoders=dict.fromkeys(CAMERAS, ImageSettings(kind, crop)),
    )


def noise_recordings(folder: Path, side: int) -> list[Recording]:
    """Noise in memory-mapped files: what is in the pixels does not change the cost."""
    rng = np.random.default_rng(0)
    recordings = []
    for episode in range(EPISODES):
        values: dict[str, np.ndarray] = {"state": rng.normal(size=(ROWS, STATE))}
        for camera in CAMERAS:
            path = folder / f"{episode}_{camera}.npy"
            np.save(path, rng.integers(0, 256, (ROWS, side, side, 3), dtype=np.uint8))
            values[camera] = np.load(path, mmap_mode="r")
        valid = dict.fromkeys(values, np.ones(ROWS, dtype=bool))
        actions = rng.normal(size=(ROWS, ACTIONS))
        recordings.append(Recording(values, valid, actions, np.ones(ROWS, dtype=bool)))
    return recordings


def new_model(windows: PtpWindows) -> PtpModel:
    """A model at its beginning that fits the windows; the same weights at every call."""
    torch.manual_seed(0)
    images = windows.episodes[0].recording.values
    shapes = {key: tuple(images[key].shape[1:]) for key in windows.config.streams}
    model = PtpModel(windows.config, shapes, windows.actions.shape[1])
    windows.fit_limits(model)
    return model


def image_loss(model: PtpModel, windows: PtpWindows) -> LossFunction:
    """Loss from images, with the encoder in the graph."""

    def loss(rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        return model.loss(*windows.batch(rows), generator)

    return loss


def embedding_loss(
    model: PtpModel, windows: PtpWindows, read: Callable[[int], np.ndarray]
) -> LossFunction:
    """Loss of the head alone, from the embeddings (N, E) of an episode, `read(episode)`."""
    embedded = windows.embedded(read)

    def loss(rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        frames, actions, known = embedded.batch(rows)
        return model.head_loss(frames[EMBEDDING], actions, known, generator)

    return loss


class Training:
    """A training that goes on step by step, and what its steps cost."""

    def __init__(
        self, module: torch.nn.Module, loss: LossFunction, settings: TrainSettings, rows: np.ndarray
    ) -> None:
        self.loss, self.settings, self._rows = loss, settings, rows
        self.state = start_training(module, settings)

    def step(self) -> Cost:
        watch = Stopwatch()
        train_step(self.state, self.loss, self.settings, self._rows)
        return watch.read()
