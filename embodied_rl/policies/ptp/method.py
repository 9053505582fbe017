"""PTP as a method: diffusion over long contexts, trained from recorded bags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embodied_rl.core.policy import Policy
from embodied_rl.policies.method import (
    Folders,
    Method,
    NetworkOptions,
    Setting,
    TrainArguments,
    Trainer,
    at_least_one,
)

if TYPE_CHECKING:
    from rich.console import Console

    from embodied_rl.training.supervised import FitResult


@dataclass(frozen=True)
class PtpOptions(NetworkOptions):
    samples: int | None = None
    """Candidates each plan is chosen from, by what was executed; default: the model's own."""

    def __post_init__(self) -> None:
        at_least_one("samples", self.samples)


@dataclass(frozen=True, kw_only=True)
class PtpTraining(TrainArguments):
    bags: Path
    """Folder of bags, or a dataset cache that 'embodied_rl bags convert' wrote."""
    config: Path = Path("configs/ptp_replace_object.yaml")
    """Model and training settings."""
    steps: int | None = None
    """In place of the config's training.steps."""
    init: str | None = None
    """Fine-tune: begin with the weights of this model (a name or a checkpoint folder)."""
    workers: int = 2
    """Processes that convert bags."""
    embodiment: Path | None = None
    """Embodiment file of bags that do not carry their own."""
    actions: Literal["commands", "measured"] = "commands"
    """Of bags: measured takes the next measured state of the actuators for the action."""
    unfinished: bool = False
    """Also train on episodes whose start is declared and whose outcome is not recorded."""

    def overrides(self) -> dict[str, Any]:
        steps = {} if self.steps is None else {"steps": self.steps}
        return super().overrides() | steps


def _load(folder: Path | None, setting: Setting, options: PtpOptions) -> Policy:
    from embodied_rl.policies.ptp.runtime import load_ptp

    assert folder is not None
    return load_ptp(  # one model may be tried on any task
        folder,
        setting.embodiment,
        samples=options.samples,
        budget_s=setting.budget_s,
        device=options.device,
    )


def _read(config: Path, overrides: dict[str, Any]) -> Any:
    from embodied_rl.policies.ptp.config import read_run

    return read_run(config, overrides)


def _has_state(work: Path) -> bool:
    from embodied_rl.policies.ptp.train import ENCODER
    from embodied_rl.training.state import has_state

    return has_state(work) or has_state(work / ENCODER)


def _train(run: Any, arguments: PtpTraining, folders: Folders, console: Console) -> FitResult:
    from embodied_rl.policies.ptp.from_bags import train_from_bags

    return train_from_bags(run, arguments, folders, console)


METHOD = Method(
    name="ptp",
    summary="diffusion policy over long contexts, trained from recorded bags (arXiv 2505.09561)",
    load=_load,
    options=PtpOptions,
    trainer=Trainer(
        PtpTraining, _read, _train, "Trains from bags, in all stages of the config.", _has_state
    ),
)
