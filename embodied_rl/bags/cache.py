"""The dataset cache: episodes as memory-mapped arrays, one folder each.

Layout::

    index.yaml            which robot, which streams, which episodes; written last
    embodiment.yaml       the robot's description
    episode_000000/
      episode.yaml        source, outcome, instruction, report
      stamps.npy          (K,) int64, nanoseconds
      actions.npy         (K, A) float64, target to be reached one control period later
      action_valid.npy    (K,)
      <stream>.values.npy (K, *shape)
      <stream>.valid.npy  (K,)

An episode's folder is renamed into place when it is whole, so an interrupted conversion goes on
where it stopped. Windows are gathered with :func:`embodied_rl.core.window.history_indices`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from embodied_rl.bags.arrays import array_is_whole
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.core.schema import load_yaml_mapping

FORMAT = 2  # 2: the last target of a trajectory is held
INDEX, EPISODE, ROBOT = "index.yaml", "episode.yaml", "embodiment.yaml"
STAMPS, ACTIONS, ACTION_VALID = "stamps.npy", "actions.npy", "action_valid.npy"
_FILE_NAME = re.compile(r"^[A-Za-z0-9_.-]+$")
# bags whose folder says all of their name: no '__' of their own, and no number as of an episode
_PLAIN = re.compile(r"^(?!.*__)(?!.*(_/|/_))(?!.*\.\d{3,}$)(?!\.)[A-Za-z0-9_./-]+$")
# a map keeps a file descriptor; small arrays are simply read, and large maps are recycled
_MAP_FROM_BYTES = 1 << 20
_OPEN_MAPS = 256


def values_file(key: str) -> str:
    return f"{key}.values.npy"


def valid_file(key: str) -> str:
    return f"{key}.valid.npy"


def check_key(key: str) -> str:
    """A stream's name as part of a file name.

    Raises:
        UserError: it has characters that a file name should not have.
    """
    if not _FILE_NAME.match(key):
        raise UserError(f"stream '{key}': expected letters, digits, '_', '.', '-' in its name")
    return key


def folder_name(bag: str, episode: int = 0, episodes: int = 1) -> str:
    """Of one of a bag's episodes; no two bags, nor two episodes, share a name."""
    name = bag.replace("/", "__")
    # Names that another bag could have as well carry a digest of the whole one.
    plain = _PLAIN.match(bag) is not None
    if not plain:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".")
        name += "-" + hashlib.sha256(bag.encode()).hexdigest()[:8]
    return name if episodes == 1 else f"{name}.{episode:03d}"


@dataclass(frozen=True)
class EpisodeRecord:
    """``episode.yaml``."""

    bag: str
    source: str  # fingerprint of the bag's files
    rows: int
    embodiment_hash: str
    streams: list[str]
    instruction: str
    info: dict[str, Any] | None
    outcome: dict[str, Any] | None
    damaged: bool
    report: list[str]
    episode: int = 0  # which of those in the bag
    episodes: int = 1

    @property
    def unfinished(self) -> bool:
        """The bag declares where the episode began and not how it ended: half of it may be lost."""
        return self.info is not None and not (self.outcome and self.outcome["done"])

    def write(self, folder: Path) -> None:
        text = yaml.safe_dump(asdict(self), sort_keys=False, width=1000)
        (folder / EPISODE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> EpisodeRecord:
        """Raises UserError naming the file when it is not an episode's record."""
        path = folder / EPISODE
        data = load_yaml_mapping(path)
        try:
            return cls(**data)
        except TypeError as error:
            raise UserError(f"{path}: not the record of an episode: {error}") from error


@dataclass(frozen=True)
class Contract:
    """What makes two caches the same: robot, streams, control rate."""

    embodiment: str
    embodiment_hash: str
    streams: list[str]

    @classmethod
    def of(cls, embodiment: Embodiment, keys: Iterable[str]) -> Contract:
        keys = sorted(keys)
        return cls(embodiment.name, embodiment.contract_hash(keys), keys)

    def check(self, other: Contract, origin: str) -> None:
        """Refuse another one.

        Raises:
            UserError: names both values.
        """
        if self.streams != other.streams:
            raise UserError(f"{origin}: expected streams {self.streams}, saw {other.streams}")
        if self.embodiment_hash != other.embodiment_hash:
            raise UserError(
                f"{origin}: expected embodiment {self.embodiment} ({self.embodiment_hash}), "
                f"saw {other.embodiment} ({other.embodiment_hash})"
            )


@dataclass(frozen=True)
class Index:
    """``index.yaml``. ``complete`` is False while a conversion runs or after it was stopped."""

    contract: Contract
    complete: bool
    episodes: list[str]

    def write(self, root: Path) -> None:
        data = {"format": FORMAT, "complete": self.complete, **asdict(self.contract)}
        data["episodes"] = self.episodes
        with atomic_write(root / INDEX) as path:
            path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")

    @classmethod
    def read(cls, root: Path) -> Index:
        """Raises UserError when it is missing or of another format."""
        path = root / INDEX
        data = load_yaml_mapping(path)
        if data.get("format") != FORMAT:
            raise UserError(
                f"{path}: expected format {FORMAT}, saw {data.get('format')}: the cache is of "
                "another version; remove its folder and convert the bags again"
            )
        try:
            contract = Contract(
                str(data["embodiment"]), str(data["embodiment_hash"]), list(data["streams"])
            )
            return cls(contract, bool(data["complete"]), [str(name) for name in data["episodes"]])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not the index of a dataset cache: {error}") from error


def episode_is_whole(folder: Path, source: str, contract: Contract) -> bool:
    """Whether an episode was converted from this very source for this very contract."""
    if not (folder / EPISODE).exists():
        return False
    try:
        record = EpisodeRecord.read(folder)
    except UserError:
        return False
    same = (record.source, record.embodiment_hash, record.streams) == (
        source, contract.embodiment_hash, contract.streams,
    )  # fmt: skip
    files = [STAMPS, ACTIONS, ACTION_VALID]
    for key in contract.streams:
        files += [values_file(key), valid_file(key)]
    return same and all(array_is_whole(folder / name, record.rows) for name in files)


def whole_episodes(root: Path, bag: str, source: str, contract: Contract) -> list[EpisodeRecord]:
    """The episodes of a bag that were converted before; none if one of them is not whole."""
    for first in (folder_name(bag), folder_name(bag, 0, 2)):
        if not episode_is_whole(root / first, source, contract):
            continue
        count = EpisodeRecord.read(root / first).episodes
        folders = [root / folder_name(bag, number, count) for number in range(count)]
        if first == folders[0].name and all(
            episode_is_whole(folder, source, contract) for folder in folders
        ):
            return [EpisodeRecord.read(folder) for folder in folders]
    return []


@lru_cache(maxsize=_OPEN_MAPS)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _load(path: Path) -> np.ndarray:
    try:
        return _mapped(path) if path.stat().st_size >= _MAP_FROM_BYTES else np.load(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable array: {error}") from error


class CachedEpisode:
    """One episode of the cache; arrays are opened when they are first asked for."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, folder.name
        self.record = EpisodeRecord.read(folder)

    def __len__(self) -> int:
        return self.record.rows

    @property
    def info(self) -> EpisodeInfo | None:
        return EpisodeInfo(**self.record.info) if self.record.info else None

    @property
    def outcome(self) -> Outcome | None:
        return Outcome(**self.record.outcome) if self.record.outcome else None

    @property
    def instruction(self) -> str:
        return self.record.instruction

    @property
    def report(self) -> list[str]:
        return self.record.report

    @cached_property
    def stamps_ns(self) -> np.ndarray:
        """``(K,)``."""
        return _load(self.folder / STAMPS)

    @cached_property
    def actions(self) -> np.ndarray:
        """``(K, A)`` float64, NaN where unknown."""
        return _load(self.folder / ACTIONS)

    @cached_property
    def action_valid(self) -> np.ndarray:
        """``(K,)``."""
        return _load(self.folder / ACTION_VALID)

    def values(self, key: str) -> np.ndarray:
        """``(K, *shape)`` of a stream; large ones are memory maps."""
        return _load(self.folder / values_file(key))

    def valid(self, key: str) -> np.ndarray:
        """``(K,)`` of a stream."""
        return _load(self.folder / valid_file(key))


class EpisodeCache(Sequence[CachedEpisode]):
    """A converted dataset.

    Args:
        root: folder that ``embodied_rl bags convert`` wrote.
        keys: streams that the caller will use; default: all in the cache.

    Raises:
        UserError: no cache there, an unfinished one, or one without a stream of ``keys``.
    """

    def __init__(self, root: str | Path, keys: Iterable[str] | None = None):
        self.root = Path(root)
        self.index = Index.read(self.root)
        if not self.index.complete:
            raise UserError(
                f"{self.root}: expected a finished cache, saw an interrupted conversion; "
                "run the same 'embodied_rl bags convert' again"
            )
        self.embodiment = Embodiment.load(self.root / ROBOT)
        self.keys = tuple(self.index.contract.streams if keys is None else keys)
        for key in self.keys:
            if key not in self.index.contract.streams:
                raise UserError(
                    f"{self.root}: expected stream '{key}', saw {self.index.contract.streams}; "
                    "convert again with --streams into another folder"
                )
        self.episodes = [CachedEpisode(self.root / name) for name in self.index.episodes]

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index):  # type: ignore[override]
        return self.episodes[index]

    def __iter__(self) -> Iterator[CachedEpisode]:
        return iter(self.episodes)

    def require(self, embodiment: Embodiment) -> None:
        """Refuse the cache of another robot.

        Raises:
            UserError: names both hashes.
        """
        Contract.of(embodiment, self.keys).check(
            Contract.of(self.embodiment, self.keys), str(self.root)
        )
