"""The PTP model as a policy: one embedding a tick into a ring, a denoised chunk out when asked."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embodied_rl.core.checkpoint import load_checkpoint, pack_memory, unpack_memory
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec
from embodied_rl.core.schema import Section
from embodied_rl.core.window import History, Observation
from embodied_rl.policies.ptp.config import POLICY, PtpConfig
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.rows import RowCarrier
from embodied_rl.training.config import read_dataclass

FRAME = "frame"  # the one key of the embedded rows in the ring


class PtpPolicy:
    """Deterministic given the episode's seed: noise comes from a generator of its own, on one
    thread.

    Its memory is the ring of frame embeddings, the last valid value of each stream, and the state
    of the noise generator; it reaches back `(history - 1) * stride` control ticks.
    """

    def __init__(self, model: PtpModel, embodiment: Embodiment, *, name: str) -> None:
        config = model.config
        self.model = model.eval().requires_grad_(False)
        self.period_ns = embodiment.period_ns
        self.spec = PolicySpec(
            name=name,
            streams={k: s.shape for k, s in embodiment.require(config.streams).items()},
            action_dim=model.action_dim,
            chunk=config.chunk,
            execute=config.execute,
            rate_hz=embodiment.control_rate_hz,
            history=config.history,
            stride=config.stride,
            embodiment=embodiment.name,
            embodiment_hash=embodiment.contract_hash(config.streams),
        )
        self._owner = f"{name}/{fingerprint(model)}"
        # Matrices this small are no faster on more threads, and sums would depend on their number.
        torch.set_num_threads(1)
        self._forget(seed=0)

    def _forget(self, seed: int) -> None:
        self._carrier = RowCarrier(self.model.config.streams)
        self._ring = History(self.model.config.history, self.model.config.stride)
        self._noise = torch.Generator().manual_seed(seed)
        self._stamp_ns: int | None = None

    @property
    def carried(self) -> Counter[str]:
        """Rows in which a stream was missing and its last valid value stood in, by stream."""
        return self._carrier.carried

    def reset(self, episode: EpisodeInfo) -> None:
        """Forget everything; the episode's seed sets the noise of all its chunks."""
        self._forget(episode.seed)

    def observe(self, observation: Observation) -> None:
        """Embed the row of the next control tick and keep it.

        Raises:
            UserError: the row is not the one of the next tick. History tokens are a fixed time
                apart, so a tick that was skipped would silently stretch the past.
        """
        expected = None if self._stamp_ns is None else self._stamp_ns + self.period_ns
        if expected is not None and observation.stamp_ns != expected:
            raise UserError(
                f"policy {self.spec.name}: expected the row of tick {expected} ns, saw "
                f"{observation.stamp_ns} ns; every tick must be observed, reset the episode"
            )
        self._stamp_ns = observation.stamp_ns
        row = self._carrier.push(observation.values, observation.valid)
        if row is None:
            return  # nothing complete to remember yet: for the policy the episode has not begun
        frames = {
            k: torch.from_numpy(np.asarray(v, np.float32)[None, None]) for k, v in row.items()
        }
        with torch.inference_mode():
            embedding = self.model.encoder(frames)[0, 0].numpy()
        valid = not self._carrier.missing
        self._ring.push(Observation(observation.stamp_ns, {FRAME: embedding}, {FRAME: valid}))

    def act(self) -> ActionChunk:
        """Denoise one chunk from the remembered frames.

        Raises:
            UserError: nothing was observed, or a stream is missing in the newest row.
        """
        if self._stamp_ns is None or self._carrier.missing or not len(self._ring):
            missing = list(self._carrier.missing) or self._carrier.unseen
            raise UserError(
                f"policy {self.spec.name}: expected all of {list(self.spec.streams)} in the "
                f"newest row, {missing} missing at {self._stamp_ns} ns"
            )
        config = self.model.config
        frames = torch.from_numpy(self._ring.window().values[FRAME])[None]
        noise = torch.randn(1, config.tokens, self.model.action_dim, generator=self._noise)
        with torch.inference_mode():
            tokens = self.model.sample(frames, noise)[0]
        values = tokens[config.past :].numpy().astype(np.float64)
        return ActionChunk(self._stamp_ns, self.period_ns, values)

    def save_memory(self) -> bytes:
        rows = self._ring.rows
        fields: dict[str, Any] = {
            "stamp_ns": self._stamp_ns,
            "missing": list(self._carrier.missing),
            "carried": dict(self._carrier.carried),
            "rows": [[row.stamp_ns, row.valid[FRAME]] for row in rows],
        }
        arrays = {f"last/{k}": v for k, v in self._carrier.last.items()}
        arrays |= {"noise": self._noise.get_state().numpy()}
        if rows:
            arrays["ring"] = np.stack([row.values[FRAME] for row in rows])
        return pack_memory(self._owner, fields, arrays)

    def load_memory(self, blob: bytes) -> None:
        """Continue from `save_memory`; the memory of other weights or another shape is refused."""
        fields, arrays = unpack_memory(self._owner, blob)
        self._forget(seed=0)
        self._stamp_ns = fields["stamp_ns"]
        self._carrier.missing = tuple(fields["missing"])
        self._carrier.carried.update(fields["carried"])
        for key in self._carrier.keys:
            if f"last/{key}" in arrays:
                self._carrier.last[key] = arrays[f"last/{key}"]
        self._noise.set_state(torch.from_numpy(arrays["noise"].copy()))
        for i, (stamp_ns, valid) in enumerate(fields["rows"]):
            self._ring.push(Observation(stamp_ns, {FRAME: arrays["ring"][i]}, {FRAME: valid}))


def fingerprint(model: PtpModel) -> str:
    """16 hex digits of configuration and weights: two models that differ cannot share a memory."""
    digest = hashlib.sha256(repr(model.config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_ptp(folder: Path, embodiment: Embodiment) -> PtpPolicy:
    """A policy from a checkpoint folder.

    Raises:
        UserError: damaged, or made for another embodiment or other stream shapes (both are named).
    """
    data, arrays = load_checkpoint(folder)
    origin = str(folder / "config.yaml")
    root = Section(origin, "", data)
    if root.text("policy") != POLICY:
        root.fail("policy", f"'{POLICY}'", f"'{data['policy']}'")
    model_section = root.optional_child("model")
    if model_section is None:
        root.fail("model", "a mapping", "none")
    config = read_dataclass(PtpConfig, model_section)
    check_embodiment(root, config, embodiment)
    shapes = {k: s.shape for k, s in embodiment.require(config.streams).items()}
    model = PtpModel(config, shapes, embodiment.action_dim)
    _load_weights(model, arrays, folder / "weights.safetensors")
    return PtpPolicy(model, embodiment, name=root.text("name"))


def check_embodiment(root: Section, config: PtpConfig, embodiment: Embodiment) -> None:
    """Refuses a checkpoint whose numbers would mean something else on this robot."""
    streams = embodiment.require(config.streams)
    recorded = root.value("streams")
    for key, stream in streams.items():
        if list(recorded.get(key, [])) != list(stream.shape):
            root.fail(
                f"streams.{key}",
                f"shape {list(stream.shape)} as in {embodiment.origin}",
                f"{recorded.get(key)} in the checkpoint",
            )
    wanted, seen = root.text("embodiment_hash"), embodiment.contract_hash(config.streams)
    if wanted != seen:
        raise UserError(
            f"{root.origin}: embodiment_hash: trained for '{root.text('embodiment')}' ({wanted}), "
            f"{embodiment.origin} is '{embodiment.name}' ({seen}): streams, joints, units or "
            "control rate differ; use a checkpoint of this embodiment"
        )


def _load_weights(model: PtpModel, arrays: dict[str, np.ndarray], path: Path) -> None:
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    seen = {k: v.shape for k, v in arrays.items()}
    wrong = [k for k in sorted(expected.keys() | seen.keys()) if expected.get(k) != seen.get(k)]
    if wrong:
        k = wrong[0]
        raise UserError(f"{path}: {k}: expected shape {expected.get(k)}, saw {seen.get(k)}")
    model.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
