"""TGPO as a method: controllers for tasks in signal temporal logic, trained in simulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import Policy
from embodied_rl.policies.method import (
    Evaluator,
    Folders,
    Method,
    NetworkOptions,
    Setting,
    SimulationArguments,
    Trainer,
    at_least_one,
)

if TYPE_CHECKING:
    from rich.console import Console

    from embodied_rl.training.supervised import FitResult

NAME = "tgpo"


@dataclass(frozen=True)
class TgpoOptions(NetworkOptions):
    samples: int | None = None
    """Assignments of times a plan is chosen from, by the critic; 1 takes a random one."""

    def __post_init__(self) -> None:
        at_least_one("samples", self.samples)


@dataclass(frozen=True)
class TgpoTraining(SimulationArguments):
    config: Path = Path("configs/tgpo_linear.yaml")
    """Model and training settings."""


def _load(folder: Path | None, setting: Setting, options: TgpoOptions) -> Policy:
    from embodied_rl.policies.tgpo.controller import load_controller

    assert folder is not None
    return load_controller(
        folder, setting.embodiment, setting.task, samples=options.samples, device=options.device
    )


def _evaluator(folder: Path | None) -> Evaluator:
    from embodied_rl.policies.tgpo.report import EVALUATOR

    return EVALUATOR


def _read(config: Path, overrides: dict[str, Any]) -> Any:
    from embodied_rl.policies.tgpo.config import read_run

    return read_run(config, overrides)


def _train(run: Any, arguments: TgpoTraining, folders: Folders, console: Console) -> FitResult:
    from embodied_rl.policies.tgpo.train import train_tgpo

    # auto is the CPU here: with networks this small a GPU has not been shown to help
    device = "cpu" if arguments.device == "auto" else arguments.device
    return train_tgpo(
        run, out=folders.out, work=folders.work, resume=arguments.resume, device=device
    )


def _shipped_for(robot: Embodiment) -> str:
    from embodied_rl.policies.tgpo.adapters import twin_of

    return f"{NAME}_{twin_of(robot)}"


METHOD = Method(
    name=NAME,
    summary="controllers for signal temporal logic, trained in simulation (arXiv 2510.00225)",
    load=_load,
    options=TgpoOptions,
    evaluator=_evaluator,
    trainer=Trainer(TgpoTraining, _read, _train, "Trains in simulated dynamics."),
    shows_plan=True,
    shipped_for=_shipped_for,
)
