"""The config file of a TGPO training: network, reward, allocation, tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_rl.core.errors import UserError
from embodied_rl.core.ranges import check_range
from embodied_rl.policies.tgpo.allocate import AllocationSettings
from embodied_rl.policies.tgpo.groundings import Shape
from embodied_rl.policies.tgpo.mdp import RewardWeights
from embodied_rl.training.config import read_parts
from embodied_rl.training.ppo import PpoSettings

POLICY = "tgpo"
ACTIVATIONS = ("tanh", "elu")


@dataclass(frozen=True)
class TgpoConfig:
    """Robot and network; what decides whether a checkpoint fits a task.

    ``subgoals``, ``avoided`` and ``variables`` are the largest formula that it takes; see `Shape`.
    """

    dynamics: str
    subgoals: int = 4
    avoided: int = 8
    variables: int = 4
    width: int = 64
    activation: str = "tanh"
    log_std: float = -0.5

    def __post_init__(self) -> None:
        check_range(self, "width", least=1)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {ACTIVATIONS}, saw {self.activation!r}")
        _ = self.shape

    @property
    def shape(self) -> Shape:
        return Shape(self.subgoals, self.avoided, self.variables)


@dataclass(frozen=True)
class TgpoTraining:
    """How long, on what.

    ``tasks`` are trained on, together with ``generated`` random ones of the task generator, whose
    seeds begin at ``generated_seed``; each episode draws one. ``hold_out`` keeps ``tasks`` for
    evaluation alone.
    """

    tasks: tuple[str, ...]
    generated: int = 0
    generated_seed: int = 10_000
    hold_out: bool = False
    transitions: int = 3_000_000
    environments: int = 256
    save_every: int = 20  # iterations
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "transitions", "environments", "save_every", least=1)
        check_range(self, "generated", "generated_seed", "seed", least=0)
        if self.hold_out and not self.generated:
            raise ValueError("hold_out: expected generated tasks to train on, saw none")


@dataclass(frozen=True)
class TgpoRun:
    """A whole config file."""

    name: str
    model: TgpoConfig
    training: TgpoTraining
    reward: RewardWeights = field(default_factory=RewardWeights)
    ppo: PpoSettings = field(default_factory=PpoSettings)
    allocation: AllocationSettings = field(default_factory=AllocationSettings)


_PARTS: dict[str, type] = {
    "model": TgpoConfig,
    "training": TgpoTraining,
    "reward": RewardWeights,
    "ppo": PpoSettings,
    "allocation": AllocationSettings,
}


def read_run(path: Path, overrides: dict[str, Any] | None = None) -> TgpoRun:
    """Reads a config file; ``overrides`` replace keys of its ``training`` part.

    Raises:
        UserError: not such a file; names the key.
    """
    name, parts = read_parts(path, POLICY, _PARTS, overrides)
    run = TgpoRun(name, **parts)
    if run.ppo.auxiliary_coefficient:
        raise UserError(
            f"{path}: ppo.auxiliary_coefficient: expected 0, for {POLICY} has no second task, saw "
            f"{run.ppo.auxiliary_coefficient}"
        )
    return run
