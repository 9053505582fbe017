"""Recorded episodes as training windows: the frames the live policy would hold, the actions."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.window import history_indices
from embodied_rl.policies.ptp.config import PtpConfig
from embodied_rl.policies.ptp.model import PtpModel

EMBEDDING = "embedding"  # the one key of windows whose frames another stage has encoded


@dataclass(frozen=True)
class Recording:
    """One episode on the control grid, N rows.

    Attributes:
        values, valid: {key: (N, *shape)} and {key: (N,)}, as the window builder makes them. The
            values of cameras may be memory maps; they are asked for anew at every use.
        actions: (N, A) position target for one control period after the row's tick.
        known: (N,) whether that target was recorded.
        name: what to call it in an error.
        source: stands for the values where they are too large to be looked through; "" if nothing
            does.
    """

    values: Mapping[str, np.ndarray]
    valid: Mapping[str, np.ndarray]
    actions: np.ndarray
    known: np.ndarray
    name: str = ""
    source: str = ""


@dataclass(frozen=True)
class Prepared:
    """A recording from its first complete row on, N rows, missing values carried.

    Attributes:
        carried: {key: (N,)} row of the recording whose value stands in each row.
        complete: (N,) no stream missing in this row.
    """

    recording: Recording
    carried: Mapping[str, np.ndarray]
    complete: np.ndarray
    actions: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, key: str, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Values (..., *shape) of a stream in some rows; of a memory map only these are read."""
        return self.recording.values[key][self.carried[key][which]]


def prepare(recording: Recording, keys: Sequence[str]) -> Prepared | None:
    """What the live policy would have kept of a recording; None if it never could have acted.

    The same as pushing every row through `RowCarrier` (a test holds it to that), without touching
    the values.
    """
    count = len(recording.actions)
    valid = {k: np.asarray(recording.valid[k], dtype=bool) for k in keys}
    if not count or not all(v.any() for v in valid.values()):
        return None
    start = max(int(v.argmax()) for v in valid.values())
    ticks = np.arange(count)
    return Prepared(
        recording,
        {k: np.maximum.accumulate(np.where(v, ticks, 0))[start:] for k, v in valid.items()},
        np.logical_and.reduce(list(valid.values()))[start:],
        recording.actions[start:],
        recording.known[start:],
    )


class Frames(Protocol):
    """Values of one stream in the joined rows of all episodes."""

    def take(self, frames: np.ndarray) -> np.ndarray:
        """Rows (B, F), those of one b in one episode -> values (B, F, *shape)."""
        ...


class Joined:
    """A small stream: all of it in memory, in single precision."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def take(self, frames: np.ndarray) -> np.ndarray:
        return self.values[frames].astype(np.float32)


class Gathered:
    """A large one: `read(episode, rows)` gets a window's values from where they lie."""

    def __init__(self, starts: np.ndarray, read: Callable[[int, np.ndarray], np.ndarray]) -> None:
        self._starts, self._read = starts, read

    def take(self, frames: np.ndarray) -> np.ndarray:
        episodes = np.searchsorted(self._starts, frames[:, 0], side="right") - 1
        return np.stack(
            [self._read(e, f - self._starts[e]) for e, f in zip(episodes, frames, strict=True)]
        )


class PtpWindows:
    """All windows of all episodes; one is named by its last row in the joined arrays."""

    def __init__(self, recordings: Sequence[Recording], config: PtpConfig) -> None:
        kept = [p for r in recordings if (p := prepare(r, config.streams)) is not None]
        if not kept:
            raise ValueError("no recording holds a row with all streams")
        self.config = config
        self.episodes = kept
        lengths = np.array([len(p) for p in kept])
        self.starts = np.cumsum(lengths) - lengths
        self.frames: dict[str, Frames] = {k: self._stream(k) for k in config.streams}
        self.known = np.concatenate([p.known for p in kept])
        # An unknown target never reaches the loss; NaN times weight 0 would still be NaN.
        actions = np.concatenate([p.actions for p in kept])
        self.actions = np.where(self.known[:, None], actions, 0.0)
        self.episode = np.repeat(np.arange(len(kept)), lengths)
        self._start, self._end = self.starts[self.episode], (self.starts + lengths)[self.episode]
        # The policy never acts on an incomplete row, so it does not learn to.
        self.rows = np.flatnonzero(np.concatenate([p.complete for p in kept]) & self.known)

    def _stream(self, key: str) -> Frames:
        kept = self.episodes
        if key in self.config.encoders:
            return Gathered(self.starts, lambda e, rows: kept[e].rows(key, rows))
        return Joined(np.concatenate([p.rows(key) for p in kept]))

    def embedded(self, read: Callable[[int], np.ndarray]) -> PtpWindows:
        """The same windows with the embeddings (N, E) of an episode, `read(episode)`, as frames."""
        other = copy.copy(self)
        other.frames = {EMBEDDING: Gathered(self.starts, lambda e, rows: read(e)[rows])}
        return other

    def split(self, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on, and rows of the episodes held out."""
        count = int(self.episode[-1]) + 1
        held = round(count * validation_fraction)
        if validation_fraction > 0 and count > 1:
            held = min(max(held, 1), count - 1)
        chosen = np.random.default_rng([seed, count]).permutation(count)[:held]
        out = np.isin(self.episode[self.rows], chosen)
        return self.rows[~out], self.rows[out]

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Windows that end at `rows` (B,): frames {key: (B, F, *shape)}, actions (B, T, A), known
        (B, T).

        Before an episode's first row that row repeats, after its last one the last action holds.
        Images stay bytes; all else is single precision.
        """
        start, config = self._start[rows], self.config
        ticks, _ = history_indices((rows - start)[:, None], config.history, config.stride)
        frames = ticks + start[:, None]  # (B, F)
        ahead = np.minimum(rows[:, None] + np.arange(config.chunk), self._end[rows, None] - 1)
        # Past action tokens sit at the ticks of the older frames: one frame, one action.
        tokens = np.concatenate([frames[:, :-1], ahead], axis=1) if config.past else ahead
        return (
            {k: torch.from_numpy(stream.take(frames)) for k, stream in self.frames.items()},
            torch.from_numpy(self.actions[tokens].astype(np.float32)),
            torch.from_numpy(self.known[tokens]),
        )

    def fit_limits(self, model: PtpModel) -> None:
        """Sets the model's normalisers from all known rows."""
        for key, encoder in model.encoder.streams.items():
            stream = self.frames.get(key)
            if hasattr(encoder, "limits") and isinstance(stream, Joined):
                flat = stream.values.reshape(len(self.actions), -1)
                encoder.limits.fit(flat, self.config.min_range)
        self.fit_action_limits(model)

    def fit_action_limits(self, model: PtpModel) -> None:
        """Sets only those of the actions: an encoder that is taken over has its own."""
        model.actions.fit(self.actions[self.known], self.config.min_range)

    def update(self, digest: hashlib._Hash) -> None:
        """Takes the data into a digest; of a stream with a source, that stands for its values."""
        for episode in self.episodes:
            source = episode.recording.source
            digest.update(f"{source}:{len(episode)};".encode())
            for key in self.config.streams:
                digest.update(np.ascontiguousarray(episode.carried[key]).tobytes())
                if not source or key not in self.config.encoders:
                    digest.update(np.ascontiguousarray(episode.rows(key)).tobytes())
        digest.update(np.ascontiguousarray(self.actions).tobytes())
