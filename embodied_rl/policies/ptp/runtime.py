"""The PTP model as a policy: one embedding a tick into a ring, a denoised chunk out when asked."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embodied_rl.core.checkpoint import load_checkpoint, pack_memory, unpack_memory
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec, episode_seed
from embodied_rl.core.schema import Section
from embodied_rl.core.window import History, Observation
from embodied_rl.nn.device import AUTO, choose_device, moved
from embodied_rl.nn.encoders import VectorEncoder
from embodied_rl.nn.fingerprint import weights_fingerprint
from embodied_rl.nn.weights import load_weights
from embodied_rl.policies.ptp.config import POLICY, PtpConfig
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.rows import RowCarrier
from embodied_rl.policies.ptp.verification import ExecutedActions, disagreement
from embodied_rl.training.config import read_dataclass

FRAME = "frame"  # the one key of the embedded rows in the ring


class PtpPolicy:
    """Deterministic given the episode's seed: noise comes from a generator of its own, on one
    thread.

    With `samples` > 1 an `act` draws that many candidates and takes the one whose past tokens are
    nearest to the commands that were carried out; before there are any it draws one. The first
    candidate has the noise that a single one would have had.

    Its memory is the ring of frame embeddings, the last valid value of each stream, the commands
    carried out, and the state of the noise generators; it reaches back `(history - 1) * stride`
    control ticks.
    """

    def __init__(
        self,
        model: PtpModel,
        embodiment: Embodiment,
        *,
        name: str,
        samples: int | None = None,
        budget_s: float | None = None,
        device: str = AUTO,
    ) -> None:
        """
        Args:
            samples: candidates an `act`; None takes the model's own number.
            budget_s: an `act` with more than one candidate that takes longer halves their number
                for the rest of the episode. None never does: the run then does not depend on how
                fast the machine is.
            device: where to compute, see `choose_device`; memory and noise stay on the CPU.

        Raises:
            UserError: `samples` is below 1, or above 1 for a model that does not learn its past;
                no such device.
        """
        if samples is not None:
            try:
                replace(model.config, samples=samples)
            except ValueError as error:
                raise UserError(f"model {name}: {error}") from error
        config = model.config
        self.samples = config.samples if samples is None else samples
        self.budget_s = budget_s
        self._device = choose_device(device)
        self.model = model.eval().requires_grad_(False).to(self._device)
        # Convolutions of one image at a time are a fifth faster in this layout.
        self.model.encoder.to(memory_format=torch.channels_last)
        self.period_ns = embodiment.period_ns
        self.spec = PolicySpec.on(
            embodiment,
            name,
            config.streams,
            chunk=config.chunk,
            execute=config.execute,
            history=config.history,
            stride=config.stride,
        )
        self._owner = f"{name}/{fingerprint(model)}"
        # Matrices this small are no faster on more threads, and sums would depend on their number.
        torch.set_num_threads(1)
        with torch.inference_mode():
            self._clocks = model.clocks()
        self._forget(seed=0)

    def _forget(self, seed: int) -> None:
        self._carrier = RowCarrier(self.model.config.streams)
        self._ring = History(self.model.config.history, self.model.config.stride)
        # Two generators: the first candidate's noise does not depend on how many others there are.
        self._noise = torch.Generator().manual_seed(seed)
        self._more_noise = torch.Generator().manual_seed(episode_seed(seed, 1))
        self._executed = ExecutedActions(self.model.config.reach * self.period_ns)
        self._stamp_ns: int | None = None
        self._resumed = False  # from a memory, and no row seen since
        self._affordable = self.samples
        self._verify_score = float("nan")
        self._verified = 0

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
        if self._resumed:
            self._bridge(observation.stamp_ns)
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
        valid = not self._carrier.missing
        embedding = self._embed(row)
        self._ring.push(Observation(observation.stamp_ns, {FRAME: embedding}, {FRAME: valid}))

    def _embed(self, row: dict[str, np.ndarray]) -> np.ndarray:
        """One complete row -> (E,)."""
        frames = {k: torch.from_numpy(_numbers(v)[None, None]) for k, v in row.items()}
        with torch.inference_mode():
            return self.model.encoder(moved(frames, self._device))[0, 0].cpu().numpy()

    def _bridge(self, now_ns: int) -> None:
        """The ticks between a memory that was loaded and the row of `now_ns` were never seen: their
        rows are missing ones, in which the last values stand in as in any row that lacks them."""
        self._resumed = False
        if self._stamp_ns is None:
            return
        gap = (now_ns - self._stamp_ns) // self.period_ns - 1
        if gap < 0 or (now_ns - self._stamp_ns) % self.period_ns:  # of another run of the clock
            self._ring.clear()
        elif gap:
            nothing = dict.fromkeys(self._carrier.keys, False)
            row = self._carrier.push({}, nothing)
            reach = self.model.config.history * self.model.config.stride
            if row is not None:
                lost = self._embed(row)
                for back in range(min(gap, reach), 0, -1):
                    stamp_ns = now_ns - back * self.period_ns
                    self._ring.push(Observation(stamp_ns, {FRAME: lost}, {FRAME: False}))
        self._stamp_ns = now_ns - self.period_ns

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
        begin_s = time.perf_counter()
        window = self._ring.window()
        done, known = self._done(self._stamp_ns, window.inside)
        count = self._affordable if known.any() else 1
        frames = torch.from_numpy(window.values[FRAME])[None].to(self._device)
        with torch.inference_mode():
            noise = self._draw(count).to(self._device)
            tokens = self.model.sample(frames, noise, self._clocks)
            best = self._verify(tokens, done.to(self._device), known.to(self._device))
        if self.budget_s is not None and time.perf_counter() - begin_s > self.budget_s:
            self._affordable = max(1, count // 2)
        values = tokens[best, self.model.config.past :].cpu().numpy().astype(np.float64)
        return ActionChunk(self._stamp_ns, self.period_ns, values)

    def _draw(self, count: int) -> torch.Tensor:
        """Noise (count, T, A) of the candidates."""
        shape = (self.model.config.tokens, self.model.action_dim)
        first = torch.randn(1, *shape, generator=self._noise)
        if count == 1:
            return first
        return torch.cat([first, torch.randn(count - 1, *shape, generator=self._more_noise)])

    def _done(self, stamp_ns: int, inside: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Commands carried out at the ticks of the past tokens (P, A), and where one is known (P,).

        Tokens without a loss and frames that repeat the episode's first one do not count.
        """
        config = self.model.config
        back = config.stride * self.period_ns * np.arange(config.past, 0, -1)
        values, known = self._executed.at(stamp_ns - back, self.model.action_dim)
        known &= inside[: config.past] & (np.arange(config.past) >= config.first_supervised)
        return torch.from_numpy(values.astype(np.float32)), torch.from_numpy(known)

    def _verify(self, tokens: torch.Tensor, done: torch.Tensor, known: torch.Tensor) -> int:
        """Index of the candidate (N, T, A) that agrees best with what was done."""
        self._verified = int(known.sum())
        if not self._verified:
            self._verify_score = float("nan")
            return 0
        limits = self.model.actions
        scores = disagreement(limits(tokens[:, : len(done)]), limits(done), known)
        best = int(scores.argmin())
        self._verify_score = float(scores[best])
        return best

    def executed(self, chunk: ActionChunk) -> None:
        """Remember what was carried out; candidates are compared with it."""
        self._executed.follow(chunk)

    @property
    def verify_score(self) -> float:
        """Mean squared error of the newest chunk's past tokens, in normalised units; NaN when there
        was nothing to compare them with. High values mean a situation unlike the training data."""
        return self._verify_score

    def figures(self) -> dict[str, float]:
        """The newest `verify_score`, the past ticks it rests on, and the candidates of an `act`."""
        return {
            "verify_score": self._verify_score,
            "verify_ticks": self._verified,
            "samples": self._affordable,
        }

    def observed_range(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of the training data that the normalisers were fitted to; images have none."""
        return {
            key: (part.limits.low.cpu().numpy(), part.limits.high.cpu().numpy())
            for key, part in self.model.encoder.streams.items()
            if isinstance(part, VectorEncoder)
        }

    def save_memory(self) -> bytes:
        rows = self._ring.rows
        fields: dict[str, Any] = {
            "stamp_ns": self._stamp_ns,
            "missing": list(self._carrier.missing),
            "carried": dict(self._carrier.carried),
            "rows": [[row.stamp_ns, row.valid[FRAME]] for row in rows],
            "chunks": [chunk.stamp_ns for chunk in self._executed.chunks],
        }
        arrays = {f"last/{k}": v for k, v in self._carrier.last.items()}
        arrays |= {"noise": self._noise.get_state().numpy()}
        arrays |= {"more_noise": self._more_noise.get_state().numpy()}
        arrays |= {f"chunk/{i}": c.values for i, c in enumerate(self._executed.chunks)}
        if rows:
            arrays["ring"] = np.stack([row.values[FRAME] for row in rows])
        return pack_memory(self._owner, fields, arrays)

    def load_memory(self, blob: bytes) -> None:
        """Continue from `save_memory`; the memory of other weights or another shape is refused.
        Ticks until the next row count as missing ones."""
        fields, arrays = unpack_memory(self._owner, blob)
        self._forget(seed=0)
        self._stamp_ns, self._resumed = fields["stamp_ns"], True
        self._carrier.missing = tuple(fields["missing"])
        self._carrier.carried.update(fields["carried"])
        for key in self._carrier.keys:
            if f"last/{key}" in arrays:
                self._carrier.last[key] = arrays[f"last/{key}"]
        self._noise.set_state(torch.from_numpy(arrays["noise"].copy()))
        self._more_noise.set_state(torch.from_numpy(arrays["more_noise"].copy()))
        for i, stamp_ns in enumerate(fields["chunks"]):
            self._executed.follow(ActionChunk(stamp_ns, self.period_ns, arrays[f"chunk/{i}"]))
        for i, (stamp_ns, valid) in enumerate(fields["rows"]):
            self._ring.push(Observation(stamp_ns, {FRAME: arrays["ring"][i]}, {FRAME: valid}))


def _numbers(value: np.ndarray) -> np.ndarray:
    """A stream's value as the encoders take it: images as bytes, everything else as float32."""
    array = np.asarray(value)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def fingerprint(model: PtpModel) -> str:
    """Of configuration and weights: two models that differ cannot share a memory."""
    # How many candidates are drawn changes neither the network nor what the memory holds.
    return weights_fingerprint(model, repr(replace(model.config, samples=1)))


def load_model(folder: Path, embodiment: Embodiment) -> tuple[str, PtpModel]:
    """The name and the network of a checkpoint folder; errors as of :func:`load_ptp`."""
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
    load_weights(model, arrays, folder / "weights.safetensors")
    return root.text("name"), model


def load_ptp(
    folder: Path,
    embodiment: Embodiment,
    *,
    samples: int | None = None,
    budget_s: float | None = None,
    device: str = AUTO,
) -> PtpPolicy:
    """A policy from a checkpoint folder; `samples`, `budget_s` and `device` as for `PtpPolicy`.

    Raises:
        UserError: damaged, or made for another embodiment or other stream shapes (both are named).
    """
    name, model = load_model(folder, embodiment)
    return PtpPolicy(
        model,
        embodiment,
        name=name,
        samples=samples,
        budget_s=budget_s,
        device=device,
    )


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
