"""What makes one PTP model, as a YAML mapping. The rivals are values of it, not other code:

================== =========================================================================
PTP                `past_tokens: true`, `supervised_past: -1`
PTP-m              `past_tokens: true`, `supervised_past: m`   (only the last m past tokens)
official no-PTP    `past_tokens: true`, `supervised_past: 0`   (in the sequence, without loss)
future-only        `past_tokens: false`
short context      `history: 2`, the rest as PTP
================== =========================================================================

A file with an `encoder` part is trained in stages: a short-context policy end to end, whose
encoder is kept; the embeddings of all frames; the long-context head on those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embodied_rl.core.errors import UserError
from embodied_rl.core.ranges import check_range
from embodied_rl.core.schema import Section
from embodied_rl.nn.diffusion import PREDICTIONS
from embodied_rl.nn.vision import ImageSettings
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
        encoders: how each camera among the streams is encoded; the others are numbers as they are.
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
    encoders: Mapping[str, ImageSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positive = ("history", "stride", "chunk", "execute", "width", "layers", "heads", "samples")
        for key in (*positive, "diffusion_steps", "sampling_steps", "min_range"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: expected more than 0, saw {getattr(self, key)}")
        if not self.streams:
            raise ValueError("streams: expected at least one stream, saw none")
        for key in self.encoders:
            if key not in self.streams:
                raise ValueError(
                    f"encoders.{key}: expected one of streams {list(self.streams)}, saw '{key}'"
                )
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
        check_range(self, "dropout", least=0, below=1)
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
class EncoderStage:
    """The first of the stages: a policy of `history` frames, trained end to end."""

    history: int
    training: TrainSettings

    def __post_init__(self) -> None:
        check_range(self, "history", least=1)

    def model(self, config: PtpConfig) -> PtpConfig:
        """The short-context policy that belongs to a long-context one."""
        return replace(config, history=self.history, supervised_past=-1, samples=1)


@dataclass(frozen=True)
class PtpRun:
    """A whole config file: which model, for which task, trained how."""

    name: str
    task: str
    model: PtpConfig
    training: TrainSettings
    encoder: EncoderStage | None = None


def read_run(path: Path, overrides: dict[str, Any] | None = None) -> PtpRun:
    """Reads a config file; `overrides` replace keys of its `training` part, the seed everywhere."""
    data = read_yaml(path)
    _override(data, overrides or {})
    section = Section(str(path), "", data)
    policy = section.text("policy")
    if policy != POLICY:
        section.fail("policy", f"'{POLICY}'", f"'{policy}'")
    name, task = section.text("name"), section.text("task")
    model = _part(section, "model")
    training = _part(section, "training")
    stage = section.optional_child("encoder")
    section.done()
    run = PtpRun(
        name, task, read_dataclass(PtpConfig, model), read_dataclass(TrainSettings, training)
    )
    return run if stage is None else replace(run, encoder=_encoder_stage(stage, run))


def _override(data: dict[str, Any], overrides: dict[str, Any]) -> None:
    if isinstance(data.get("training", {}), dict):
        data["training"] = {**data.get("training", {}), **overrides}
    stage = data.get("encoder")
    if "seed" in overrides and isinstance(stage, dict):
        data["encoder"] = stage = dict(stage)
        if isinstance(stage.get("training", {}), dict):
            stage["training"] = {**stage.get("training", {}), "seed": overrides["seed"]}


def _part(section: Section, key: str) -> Section:
    return section.optional_child(key) or Section(section.origin, key, {})


def _encoder_stage(section: Section, run: PtpRun) -> EncoderStage:
    history = section.value("history", 2)
    if type(history) is not int or not 1 <= history <= run.model.history:
        expected = f"a whole number from 1 to model.history = {run.model.history}"
        section.fail("history", expected, repr(history))
    training = section.optional_child("training") or Section(
        section.origin, f"{section.path}.training", {}
    )
    section.done()
    settings = read_dataclass(TrainSettings, training)
    if not run.model.encoders:
        raise UserError(
            f"{section.origin}: encoder: expected model.encoders for a camera, saw none; there is "
            "nothing to train in the first stage"
        )
    if settings.validation_fraction != run.training.validation_fraction or (
        settings.seed != run.training.seed
    ):
        # Both set which episodes are held out; the head must not be judged by episodes that its
        # encoder was trained on.
        section.fail(
            "training",
            f"seed and validation_fraction of training, ({run.training.seed}, "
            f"{run.training.validation_fraction})",
            f"({settings.seed}, {settings.validation_fraction})",
        )
    return EncoderStage(history, settings)
