"""Embeddings of all frames, made once by a frozen encoder: what the long-context head trains on.

Layout, beside the dataset cache::

    index.yaml          stamp and sizes; `complete` is written last
    episode_000000.npy  (N, E) float32, one row for each row of the prepared episode

The stamp names the encoder (weights, crop, limits of the normalisers) and the data. The policy that
is shipped encodes its frames with that very encoder; a cache of another one would train a head for
inputs that never come, so it is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import load_yaml_mapping
from embodied_rl.nn.device import device_of
from embodied_rl.nn.encoders import FrameEncoder, encoder_hash
from embodied_rl.policies.ptp.data import Prepared, PtpWindows
from embodied_rl.training.progress import progress_bar
from embodied_rl.training.supervised import stop_on_interrupt

FORMAT = 1
INDEX = "index.yaml"
_BATCH = 64  # frames encoded together
_OPEN_MAPS = 256  # a map keeps a file descriptor


@dataclass(frozen=True)
class Stamp:
    """Whose embeddings of which frames these are."""

    encoder: str
    data: str

    @classmethod
    def of(cls, encoder: FrameEncoder, windows: PtpWindows) -> Stamp:
        digest = hashlib.sha256()
        windows.update(digest)
        return cls(encoder_hash(encoder), digest.hexdigest()[:16])

    def check(self, other: Stamp, origin: Path) -> None:
        """Refuses another one.

        Raises:
            UserError: names both hashes.
        """
        for key, what in (("encoder", "weights, crop or normaliser"), ("data", "recordings")):
            expected, seen = getattr(self, key), getattr(other, key)
            if expected != seen:
                raise UserError(
                    f"{origin}: {key}: expected embeddings of {expected}, saw those of {seen}: "
                    f"{what} differ; remove the folder or train without --resume"
                )


class EmbeddingCache:
    """A finished cache.

    Raises:
        UserError: unfinished, or of another encoder or other recordings; both hashes are named.
    """

    def __init__(self, root: Path, stamp: Stamp) -> None:
        self.root = root
        data = _read_index(root)
        stamp.check(_stamp(data), root / INDEX)
        if not data["complete"]:
            raise UserError(
                f"{root}: expected a finished embedding cache, saw an interrupted one; train with "
                "--resume"
            )
        self.dim, self.rows = int(data["dim"]), [int(n) for n in data["rows"]]
        self._open = lru_cache(maxsize=_OPEN_MAPS)(self._map)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, episode: int) -> np.ndarray:
        """Memory map (N, E) of one episode."""
        return self._open(episode)

    def _map(self, episode: int) -> np.ndarray:
        path, expected = episode_file(self.root, episode), (self.rows[episode], self.dim)
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable array: {error}") from error
        if array.shape != expected or array.dtype != np.float32:
            raise UserError(
                f"{path}: expected float32 {expected}, saw {array.dtype} {array.shape}; remove "
                "the folder and train with --resume"
            )
        return array


def build_embeddings(
    root: Path,
    encoder: FrameEncoder,
    windows: PtpWindows,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Encodes every episode that is not there yet; the encoder is used as in evaluation.

    Ctrl-C stops it after the episode in hand; what is written is used again, if the stamp is the
    same.

    Args:
        resume: refuse what an encoder with another stamp has left instead of replacing it.

    Returns:
        Episodes that are there now; all of `windows.episodes` if it was not stopped.
    """
    encoder.eval()
    stamp = Stamp.of(encoder, windows)
    _claim(root, stamp, encoder.dim, windows, resume)
    total, done = len(windows.episodes), 0
    with stop_on_interrupt() as stop, progress_bar(quiet=quiet) as bar:
        task = bar.add_task("embeddings", total=total, note="")
        for i, episode in enumerate(windows.episodes):
            if stop.is_set():
                return done
            path = episode_file(root, i)
            if not path.exists():
                with atomic_write(path) as temporary, temporary.open("wb") as file:
                    np.save(file, encode_episode(encoder, episode))
            done += 1
            bar.update(task, completed=done)
    _write_index(root, stamp, encoder.dim, windows, complete=True)
    return done


def encode_episode(encoder: FrameEncoder, episode: Prepared) -> np.ndarray:
    """Embeddings (N, E) float32 of all rows of an episode."""
    parts, device = [], device_of(encoder)
    with torch.inference_mode():
        for start in range(0, len(episode), _BATCH):
            rows = slice(start, start + _BATCH)
            # float32 is what the live policy hands to the encoder; bytes are exact in it
            frames = {
                key: torch.from_numpy(episode.rows(key, rows).astype(np.float32))[None].to(device)
                for key in encoder.streams
            }
            parts.append(encoder(frames)[0].cpu().numpy())
    return np.concatenate(parts)


def episode_file(root: Path, episode: int) -> Path:
    return root / f"episode_{episode:06d}.npy"


def _claim(root: Path, stamp: Stamp, dim: int, windows: PtpWindows, resume: bool) -> None:
    """Takes over a cache of the same stamp, or begins one."""
    if (root / INDEX).exists():
        seen = _stamp(_read_index(root))
        if seen == stamp:
            return
        if resume:
            stamp.check(seen, root / INDEX)
    for path in root.glob("episode_*.npy"):
        path.unlink()
    _write_index(root, stamp, dim, windows, complete=False)


def _write_index(
    root: Path, stamp: Stamp, dim: int, windows: PtpWindows, *, complete: bool
) -> None:
    data = {
        "format": FORMAT,
        **asdict(stamp),
        "complete": complete,
        "dim": dim,
        "rows": [len(episode) for episode in windows.episodes],
    }
    with atomic_write(root / INDEX) as path:
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def _read_index(root: Path) -> dict[str, Any]:
    data = load_yaml_mapping(root / INDEX)
    if data.get("format") != FORMAT:
        raise UserError(f"{root / INDEX}: expected format {FORMAT}, saw {data.get('format')}")
    missing = [k for k in ("encoder", "data", "complete", "dim", "rows") if k not in data]
    if missing:
        raise UserError(f"{root / INDEX}: {missing[0]}: missing; remove the folder")
    return data


def _stamp(data: dict[str, Any]) -> Stamp:
    return Stamp(str(data["encoder"]), str(data["data"]))
