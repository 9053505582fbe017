"""What makes one PTP model, as a YAML mapping. The rivals are values of it, not other code:

================== =========================================================================
PTP                `past_tokens: true`, `supervised_past: -1`
PTP-m              `past_tokens: true`, `supervised_past: m`   (only the last m past tokens)
official no-PTP    `past_tokens: true`, `supervised_past: 0`   (in the sequence, without loss)
future-only        `past_tokens: false`
short context      `history: 2`, the rest as PTP
================== =========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_rl.core.schema import Section
from embodied_rl.nn.diffusion import PREDICTIONS
from embodied_rl.training.config import read_dataclass, read_yaml
from embodied_rl.training.supervised import TrainSettings

POLICY = "ptp"


@dataclass(frozen=True)
class PtpConfig:
    """Shape of the model. Ticks are control periods; all counts are per sample.

    Attributes:
        streams: observation streams, in the order of the frame embedding.
        history: frames the policy sees (To), `stride` ticks apart, the newest one now.
        chunk: actions from now on, one a tick; `execute` of them are carried out before the next
            `act`.
        past_tokens: whether the actions taken at the older frames' ticks are in the denoised
            sequence.
        supervised_past: past tokens with a loss, counted back from now; -1 means all.
        diffusion_steps: steps of the training schedule; `sampling_steps` of them are visited by
            DDIM.
        prediction: "sample" (the clean actions) or "epsilon" (the noise).
        min_range: a stream or action dimension moving less than this counts as constant (its own
            unit).
        samples: candidates that one `act` chooses from; a run may choose another number.
    """

    streams: tuple[str, ...]
    history: int = 16
    stride: int = 3
    chunk: int = 16
    execute: int = 8
    past_tokens: bool = True
    supervised_past: int = -1
    width: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    diffusion_steps: int = 100
    sampling_steps: int = 10
    prediction: str = "sample"
    min_range: float = 1e-3
    samples: int = 1

    def __post_init__(self) -> None:
        positive = ("history", "stride", "chunk", "execute", "width", "layers", "heads", "samples")
        for key in (*positive, "diffusion_steps", "sampling_steps", "min_range"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: expected more than 0, saw {getattr(self, key)}")
        if not self.streams:
            raise ValueError("streams: expected at least one stream, saw none")
        if self.execute > self.chunk:
            raise ValueError(f"execute: expected at most chunk = {self.chunk}, saw {self.execute}")
        if not -1 <= self.supervised_past <= self.past:
            expected = f"-1 to {self.past} (the past tokens in the sequence)"
            raise ValueError(f"supervised_past: expected {expected}, saw {self.supervised_past}")
        if self.samples > 1 and self.first_supervised == self.past:
            expected = "1, the model having no past tokens with a loss to judge candidates by"
            raise ValueError(f"samples: expected {expected}, saw {self.samples}")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width: expected a multiple of 2 * heads = {2 * self.heads}, saw {self.width}"
            )
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction: expected one of {PREDICTIONS}, saw {self.prediction!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected 0 <= dropout < 1, saw {self.dropout}")
        if self.sampling_steps > self.diffusion_steps:
            expected = f"at most diffusion_steps = {self.diffusion_steps}"
            raise ValueError(f"sampling_steps: expected {expected}, saw {self.sampling_steps}")

    @property
    def past(self) -> int:
        """Past action tokens in the sequence."""
        return self.history - 1 if self.past_tokens else 0

    @property
    def tokens(self) -> int:
        """Action tokens denoised together: past, now and future."""
        return self.past + self.chunk

    @property
    def first_supervised(self) -> int:
        """Index of the first token with a loss; all later ones have one."""
        return 0 if self.supervised_past < 0 else self.past - self.supervised_past

    @property
    def reach(self) -> int:
        """Ticks from the oldest frame of a window to the newest."""
        return (self.history - 1) * self.stride


@dataclass(frozen=True)
class PtpRun:
    """A whole config file: which model, for which task, trained how."""

    name: str
    task: str
    model: PtpConfig
    training: TrainSettings


def read_run(path: Path, overrides: dict[str, Any] | None = None) -> PtpRun:
    """Reads a config file; `overrides` replace keys of its `training` part."""
    data = read_yaml(path)
    if overrides and isinstance(data.get("training", {}), dict):
        data["training"] = {**data.get("training", {}), **overrides}
    section = Section(str(path), "", data)
    policy = section.text("policy")
    if policy != POLICY:
        section.fail("policy", f"'{POLICY}'", f"'{policy}'")
    name, task = section.text("name"), section.text("task")
    model = section.optional_child("model") or Section(str(path), "model", {})
    training = section.optional_child("training") or Section(str(path), "training", {})
    section.done()
    return PtpRun(
        name, task, read_dataclass(PtpConfig, model), read_dataclass(TrainSettings, training)
    )
