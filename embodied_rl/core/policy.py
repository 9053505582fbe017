"""The one policy interface, with explicit memory, and the records that cross it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import yaml

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import parse_message, plain
from embodied_rl.core.window import Observation

_LARGEST = 2**64  # of a number in a record; a time or a seed is not larger


@dataclass(frozen=True)
class EpisodeInfo:
    """What a policy is told when an episode begins.

    Episodes in a row with the same ``trial`` share one world: what was seen in one of them still
    holds in the next.
    """

    episode: int
    seed: int
    task: str
    instruction: str
    start_ns: int
    trial: int = 0  # bags from before there were trials do not have it

    def to_yaml(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, origin: str) -> EpisodeInfo:
        """Raises UserError naming ``origin`` when the text is not an episode's description."""
        info = cls(**_record(cls, text, origin))
        for key, least in (("episode", -1), ("seed", 0), ("start_ns", 0), ("trial", 0)):
            value = getattr(info, key)
            if not least <= value <= _LARGEST:
                raise UserError(
                    f"{origin}: {key}: expected a number from {least} to {_LARGEST}, "
                    f"saw {plain(str(value), 40)}"
                )
        return info


@dataclass(frozen=True)
class Outcome:
    """How an episode stands. ``score`` lies in [0, 1]; ``reason`` says why it ended."""

    done: bool
    success: bool
    reason: str
    score: float

    def to_yaml(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, origin: str) -> Outcome:
        return cls(**_record(cls, text, origin))


@dataclass(frozen=True)
class ActionChunk:
    """``T`` consecutive targets: a position ``values[i]`` holds at ``stamp + (i + 1) * period``, a
    velocity of a base throughout the period that ends then."""

    stamp_ns: int
    period_ns: int
    values: np.ndarray  # (T, A) float64

    @property
    def times_ns(self) -> np.ndarray:
        """When each target is to be reached, ``(T,)``."""
        return self.stamp_ns + self.period_ns * np.arange(1, len(self.values) + 1, dtype=np.int64)

    @property
    def end_ns(self) -> int:
        return self.stamp_ns + self.period_ns * len(self.values)

    def after(self, now_ns: int) -> ActionChunk:
        """The chunk without the targets whose time has passed; it may be empty."""
        passed = int(np.count_nonzero(self.times_ns <= now_ns))
        return ActionChunk(
            self.stamp_ns + passed * self.period_ns, self.period_ns, self.values[passed:]
        )


@dataclass(frozen=True)
class PolicySpec:
    """What a policy needs and gives; the node checks it against the robot before it activates."""

    name: str
    streams: dict[str, tuple[int, ...]]  # key -> shape of one row
    action_dim: int
    chunk: int  # targets that act() returns
    execute: int  # control ticks between two calls of act()
    rate_hz: float
    history: int
    stride: int
    embodiment: str
    embodiment_hash: str

    @classmethod
    def on(
        cls,
        embodiment: Embodiment,
        name: str,
        streams: Iterable[str],
        *,
        chunk: int,
        execute: int,
        history: int = 1,
        stride: int = 1,
    ) -> PolicySpec:
        """Of a policy of all commands of a robot that sees the named ``streams``.

        Raises:
            UserError: the robot lacks a stream.
        """
        keys = list(streams)
        return cls(
            name=name,
            streams={key: stream.shape for key, stream in embodiment.require(keys).items()},
            action_dim=embodiment.action_dim,
            chunk=chunk,
            execute=execute,
            rate_hz=embodiment.control_rate_hz,
            history=history,
            stride=stride,
            embodiment=embodiment.name,
            embodiment_hash=embodiment.contract_hash(keys),
        )


class Policy(Protocol):
    """A learned or scripted controller. It imports torch and numpy, never ROS."""

    spec: PolicySpec

    def reset(self, episode: EpisodeInfo) -> None:
        """Forget the last episode."""

    def observe(self, observation: Observation) -> None:
        """Store one row. Called every control tick; costs the encoder and little more."""

    def act(self) -> ActionChunk:
        """Plan from the memory; first target = next control tick. Called every ``execute``."""

    def executed(self, chunk: ActionChunk) -> None:
        """Told what became of a chunk: its targets after the limits, which are in force from
        ``chunk.stamp_ns`` on in place of all earlier ones, and hold after the last one.

        A chunk that the command gate made itself, to hold still, comes here too. In one process
        and in lockstep this is called before the next :meth:`observe`; on a real clock as soon as
        it is known, or never. A policy that does not look at its own past has nothing to do.
        """

    def save_memory(self) -> bytes:
        """The memory as a blob that :meth:`load_memory` of the same model accepts."""

    def load_memory(self, blob: bytes) -> None:
        """Restore a memory. Raises UserError for the memory of another model."""


@runtime_checkable
class InContext(Protocol):
    """A policy that learns from the earlier episodes of a trial."""

    def next_episode(self, episode: EpisodeInfo) -> None:
        """An episode boundary within the trial: nothing is forgotten. :meth:`Policy.reset` begins
        a new trial."""


@runtime_checkable
class Reporting(Protocol):
    """A policy with figures of its own, shown in the diagnostics and in the episode report."""

    def figures(self) -> dict[str, float]:
        """Name -> newest value; read from another thread than the one that acts."""


@runtime_checkable
class Instructable(Protocol):
    """A policy that takes a new task in words while it runs."""

    def instruct(self, text: str) -> None:
        """Take on the task from now on; the text of the present one changes nothing.

        Raises:
            UserError: it cannot be done, with the reason; the old task stays in force.
        """


@runtime_checkable
class Cautious(Protocol):
    """A policy that stands still rather than guess."""

    def refusal(self) -> str:
        """Why it stands still, in one line; empty as long as it acts. Read from any thread."""


@runtime_checkable
class Ranged(Protocol):
    """A policy that knows which observations it was trained on."""

    def observed_range(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Stream -> lowest and highest value of each number, both of the stream's shape, in its
        unit; streams without a range (images) are left out."""


@runtime_checkable
class Planning(Protocol):
    """A policy with a plan that others may watch."""

    def plan(self) -> dict[str, Any] | None:
        """The plan in force as plain data, or None before there is one. Cheap enough for every
        chunk; it changes only with :meth:`Policy.act`."""


def episode_seed(seed: int, episode: int) -> int:
    """Seed of one episode of a run, the same in every process that counts episodes."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


def check_fits(spec: PolicySpec, embodiment: Embodiment) -> None:
    """Refuse a policy that was made for another robot.

    Raises:
        UserError: robot, streams, shapes, rate or number of actions differ; names both.
    """
    for key, stream in embodiment.require(spec.streams).items():
        if tuple(spec.streams[key]) != stream.shape:
            raise UserError(
                f"policy {spec.name}: stream '{key}': expected shape {list(spec.streams[key])}, "
                f"saw {list(stream.shape)} in {embodiment.origin}"
            )
    here = embodiment.contract_hash(spec.streams)
    differing = [
        f"{what} {theirs} instead of {ours}"
        for what, theirs, ours in (
            ("control rate", f"{spec.rate_hz:g} Hz", f"{embodiment.control_rate_hz:g} Hz"),
            ("actions", spec.action_dim, embodiment.action_dim),
            ("contract", spec.embodiment_hash or "none", here),
        )
        if theirs != ours
    ]
    if differing:
        raise UserError(
            f"policy {spec.name}: made for robot '{spec.embodiment}', not for "
            f"'{embodiment.name}' ({embodiment.origin}): {', '.join(differing)}"
        )


def check_chunk(chunk: ActionChunk, spec: PolicySpec) -> None:
    """Refuse what must never reach a robot.

    Raises:
        UserError: wrong shape, or a value that is not finite (named by target and dimension).
    """
    if chunk.values.ndim != 2 or chunk.values.shape[1] != spec.action_dim or not len(chunk.values):
        raise UserError(
            f"policy {spec.name}: expected targets of shape (T, {spec.action_dim}), "
            f"saw {chunk.values.shape}"
        )
    bad = np.argwhere(~np.isfinite(chunk.values))
    if len(bad):
        raise UserError(
            f"policy {spec.name}: target {bad[0][0]}, dimension {bad[0][1]} is not finite"
        )


def _record(kind: type, text: str, origin: str) -> dict:
    """The fields of a flat dataclass from YAML, of the declared types; those without a default
    must be there."""
    data = parse_message(text, origin)
    expected = {item.name: item.type for item in fields(kind)}
    needed = {item.name for item in fields(kind) if item.default is MISSING}
    if not isinstance(data, dict) or not needed <= set(data) <= set(expected):
        seen = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        shown = plain(str(seen), 80)
        raise UserError(f"{origin}: expected the keys {sorted(expected)}, saw {shown}")
    for key, value in data.items():
        if type(value).__name__ != expected[key]:
            shown = plain(repr(value), 80)
            raise UserError(f"{origin}: {key}: expected {expected[key]}, saw {shown}")
    return data
