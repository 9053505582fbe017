"""One episode of a bag in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from embodied_rl.bags.options import AS_RECORDED, Options
from embodied_rl.bags.order import read_again
from embodied_rl.bags.read import Bag
from embodied_rl.bags.report import Report
from embodied_rl.bags.rows import EpisodeReader
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import EpisodeInfo, Outcome


@dataclass
class Episode:
    """One episode in memory. ``values[key]`` is ``(K, *shape)``, ``valid[key]`` ``(K,)``."""

    bag: str
    embodiment: Embodiment
    stamps_ns: np.ndarray  # (K,) int64
    values: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    actions: np.ndarray  # (K, A) float64, target at stamp + period
    action_valid: np.ndarray  # (K,)
    info: EpisodeInfo | None
    outcome: Outcome | None
    instruction: str
    report: Report

    def __len__(self) -> int:
        return len(self.stamps_ns)


def read_episode(
    bag: Bag,
    embodiment: Embodiment | None = None,
    keys: Iterable[str] | None = None,
    options: Options = AS_RECORDED,
) -> Episode:
    """One whole episode in memory, of several the last; arguments and errors of
    :class:`EpisodeReader`."""
    chosen = tuple(keys) if keys is not None else None

    def read(in_order: bool) -> Episode:
        return _collected(EpisodeReader(bag, embodiment, chosen, options, in_order=in_order))

    return read_again(bag, read)


def _collected(reader: EpisodeReader) -> Episode:
    rows = list(reader.rows())[reader.span()]
    if len(reader.parts) > 1:
        seen = f"{len(reader.parts)} episodes; the last one is used"
        reader.report.add("", "one episode", seen, damage=False)
    streams = reader.embodiment.require(reader.keys)
    values = {
        key: np.stack([row.values[key] for row in rows])
        if rows
        else np.zeros((0, *stream.shape), stream.dtype)
        for key, stream in streams.items()
    }
    valid = {key: np.array([row.valid[key] for row in rows], dtype=bool) for key in streams}
    actions, action_valid = reader.actions()
    return Episode(
        bag=reader.bag.place.name,
        embodiment=reader.embodiment,
        stamps_ns=np.array([row.stamp_ns for row in rows], dtype=np.int64),
        values=values,
        valid=valid,
        actions=actions,
        action_valid=action_valid,
        info=reader.info,
        outcome=reader.segment().outcome,
        instruction=reader.instruction,
        report=reader.report,
    )
