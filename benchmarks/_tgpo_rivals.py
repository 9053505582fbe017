"""The config file of a rival. Lengths in it are for an arena of 5 m, and go with the arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embodied_rl.core.ranges import check_range
from embodied_rl.core.schema import Section
from embodied_rl.training.cem import CemSettings
from embodied_rl.training.config import read_dataclass, read_yaml
from embodied_rl.training.ppo import PpoSettings

LEARNING = ("f_mdp", "tau_mdp", "rnn")
PLANNING = ("cem", "grad")
ARENA_M = 5.0  # what lengths in the settings are for


@dataclass(frozen=True)
class LearnerSettings:
    """A policy for one task that sees what its method remembers; the reward is the robustness of
    the whole episode, at its end, and a bonus if it is above 0."""

    width: int = 64
    history: int = 8  # states that tau_mdp stacks
    environments: int = 128
    log_std: float = -0.5
    success: float = 1.0
    worst_m: float = -5.0  # robustness counts as at least this

    def __post_init__(self) -> None:
        check_range(self, "width", "history", "environments", least=1)


@dataclass(frozen=True)
class GradSettings:
    """Adam on the actions, through the dynamics, on the smooth robustness."""

    restarts: int = 8
    iterations: int = 300
    learning_rate: float = 0.05
    temperature: float = 0.1  # m

    def __post_init__(self) -> None:
        check_range(self, "restarts", "iterations", "learning_rate", "temperature", above=0)


@dataclass(frozen=True)
class BaselineRun:
    """Which method, with its settings; parts of other methods are not given."""

    method: str
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    ppo: PpoSettings = field(default_factory=PpoSettings)
    cem: CemSettings = field(default_factory=CemSettings)
    grad: GradSettings = field(default_factory=GradSettings)


_PARTS: dict[str, type] = {
    "learner": LearnerSettings,
    "ppo": PpoSettings,
    "cem": CemSettings,
    "grad": GradSettings,
}


def read_baseline(path: Path) -> BaselineRun:
    """Raises UserError for a file that is not the config of a rival; names the key."""
    section = Section(str(path), "", read_yaml(path))
    method = section.choice("method", (*LEARNING, *PLANNING))
    allowed: Sequence[str] = ("learner", "ppo") if method in LEARNING else (method,)
    parts = {
        key: read_dataclass(_PARTS[key], section.optional_child(key) or Section(str(path), key, {}))
        for key in allowed
    }
    section.done()
    return BaselineRun(method, **parts)
