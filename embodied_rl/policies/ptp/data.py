"""Recorded episodes as training windows: the frames the live policy would hold, the actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.window import history_indices
from embodied_rl.policies.ptp.config import PtpConfig
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.rows import RowCarrier


@dataclass(frozen=True)
class Recording:
    """One episode on the control grid, N rows.

    Attributes:
        values, valid: {key: (N, *shape)} and {key: (N,)}, as the window builder makes them.
        actions: (N, A) position target for one control period after the row's tick.
        known: (N,) whether that target was recorded.
    """

    values: Mapping[str, np.ndarray]
    valid: Mapping[str, np.ndarray]
    actions: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A recording from its first complete row on, missing values carried."""

    values: dict[str, np.ndarray]
    complete: np.ndarray  # (N,) no stream missing in this row
    actions: np.ndarray
    known: np.ndarray


def prepare(recording: Recording, keys: Sequence[str]) -> Prepared | None:
    """What the live policy would have kept of a recording; None if it never could have acted."""
    carrier = RowCarrier(keys)
    rows, complete = [], []
    for i in range(len(recording.actions)):
        row = carrier.push(
            {k: recording.values[k][i] for k in keys},
            {k: bool(recording.valid[k][i]) for k in keys},
        )
        if row is not None:
            rows.append(row)
            complete.append(not carrier.missing)
    if not rows:
        return None
    return Prepared(
        values={k: np.stack([row[k] for row in rows]) for k in keys},
        complete=np.array(complete),
        actions=recording.actions[-len(rows) :],
        known=recording.known[-len(rows) :],
    )


class PtpWindows:
    """All windows of all episodes; one is named by its last row in the joined arrays."""

    def __init__(self, recordings: Sequence[Recording], config: PtpConfig) -> None:
        kept = [p for r in recordings if (p := prepare(r, config.streams)) is not None]
        if not kept:
            raise ValueError("no recording holds a row with all streams")
        self.config = config
        lengths = np.array([len(p.actions) for p in kept])
        starts = np.cumsum(lengths) - lengths
        self.values = {k: np.concatenate([p.values[k] for p in kept]) for k in config.streams}
        self.known = np.concatenate([p.known for p in kept])
        # An unknown target never reaches the loss; NaN times weight 0 would still be NaN.
        actions = np.concatenate([p.actions for p in kept])
        self.actions = np.where(self.known[:, None], actions, 0.0)
        self.episode = np.repeat(np.arange(len(kept)), lengths)
        self._start, self._end = starts[self.episode], (starts + lengths)[self.episode]
        # The policy never acts on an incomplete row, so it does not learn to.
        self.rows = np.flatnonzero(np.concatenate([p.complete for p in kept]) & self.known)

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
        """
        start, config = self._start[rows], self.config
        ticks, _ = history_indices((rows - start)[:, None], config.history, config.stride)
        frames = ticks + start[:, None]  # (B, F)
        ahead = np.minimum(rows[:, None] + np.arange(config.chunk), self._end[rows, None] - 1)
        # Past action tokens sit at the ticks of the older frames: one frame, one action.
        tokens = np.concatenate([frames[:, :-1], ahead], axis=1) if config.past else ahead
        return (
            {k: torch.from_numpy(v[frames].astype(np.float32)) for k, v in self.values.items()},
            torch.from_numpy(self.actions[tokens].astype(np.float32)),
            torch.from_numpy(self.known[tokens]),
        )

    def fit_limits(self, model: PtpModel) -> None:
        """Sets the model's normalisers from all known rows."""
        for key, encoder in model.encoder.streams.items():
            if hasattr(encoder, "limits"):
                flat = self.values[key].reshape(len(self.actions), -1)
                encoder.limits.fit(flat, self.config.min_range)
        model.actions.fit(self.actions[self.known], self.config.min_range)
