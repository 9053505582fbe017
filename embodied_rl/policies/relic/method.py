"""ReLIC as a method: navigation that learns in context, trained in grid worlds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_rl.core.checkpoint import CONFIG
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Policy
from embodied_rl.core.schema import load_yaml_mapping
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

NAME = "relic"
APARTMENT = "apartment"  # the task of the checkpoints that drive the simulated robot
ROBOTS = {"home_base": APARTMENT}  # robot -> world that the shipped model of it is named by


@dataclass(frozen=True)
class RelicOptions(NetworkOptions):
    context_steps: int | None = None
    """Most steps that are kept in the context, the oldest episodes go first; default: the policy's
    own number."""

    def __post_init__(self) -> None:
        at_least_one("context_steps", self.context_steps)


@dataclass(frozen=True)
class RelicTraining(SimulationArguments):
    config: Path = Path("configs/relic_darkroom.yaml")
    """Model and training settings."""
    device: str = "cpu"
    """Where to compute: cpu, the only choice."""


def _load(folder: Path | None, setting: Setting, options: RelicOptions) -> Policy:
    from embodied_rl.policies.relic.controller import load_controller

    assert folder is not None
    return load_controller(
        folder,
        setting.embodiment,
        context_steps=options.context_steps,
        device=options.device,
    )


def _evaluator(folder: Path | None) -> Evaluator:
    assert folder is not None
    if load_yaml_mapping(folder / CONFIG).get("task") == APARTMENT:
        from embodied_rl.policies.relic.apartment_report import EVALUATOR

        return EVALUATOR
    from embodied_rl.policies.relic.report import EVALUATOR as IN_GRIDS

    return IN_GRIDS


def _read(config: Path, overrides: dict[str, Any]) -> Any:
    from embodied_rl.policies.relic.run import read_run

    return read_run(config, overrides)


def _train(run: Any, arguments: RelicTraining, folders: Folders, console: Console) -> FitResult:
    from embodied_rl.core.errors import UsageError
    from embodied_rl.policies.relic.train import train_relic

    if arguments.device not in ("auto", "cpu"):
        raise UsageError(f"train relic: expected --device cpu, saw {arguments.device}")
    return train_relic(run, out=folders.out, work=folders.work, resume=arguments.resume)


def _shipped_for(robot: Embodiment) -> str:
    if robot.name not in ROBOTS:
        raise UserError(
            f"policy:={NAME}: expected a robot with a shipped model, one of "
            f"{', '.join(ROBOTS)}, saw {robot.name} ({robot.origin}); name the model"
        )
    return f"{NAME}_{ROBOTS[robot.name]}"


METHOD = Method(
    name=NAME,
    summary="navigation that learns in context, trained in grid worlds (arXiv 2410.02751)",
    load=_load,
    options=RelicOptions,
    evaluator=_evaluator,
    trainer=Trainer(RelicTraining, _read, _train, "Trains in grid worlds."),
    shipped_for=_shipped_for,
)
