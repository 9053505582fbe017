"""The config file of a ReLIC training: network, world and schedule, PPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_rl.core.errors import UserError
from embodied_rl.core.ranges import check_range
from embodied_rl.policies.relic.config import POLICY, RelicConfig
from embodied_rl.policies.relic.imitation import ImitationSettings
from embodied_rl.sim.navigation.base import TrialWorld
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.training.config import read_parts
from embodied_rl.training.ppo import PpoSettings


@dataclass(frozen=True)
class RelicTraining:
    """How long, on what.

    One iteration plays ``trials`` trials of ``trial_steps`` steps in worlds drawn anew, and updates
    the weights ``updates`` times on the way: after every chunk of ``trial_steps / updates`` steps
    on what the trials are so far, with a loss on the newest chunk, and at the end on all of it.
    ``shuffle`` puts the finished episodes of each trial in another order after each update but the
    last. The learning rate rises over the first ``warmup`` iterations.
    """

    world: str
    transitions: int = 2_000_000
    trials: int = 32
    trial_steps: int = 200
    updates: int = 4
    shuffle: bool = False
    warmup: int = 10
    save_every: int = 10  # iterations
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "transitions", "trials", "trial_steps", "updates", "save_every", least=1)
        check_range(self, "warmup", "seed", least=0)
        if self.trial_steps % self.updates:
            raise ValueError(
                f"updates: expected a divisor of trial_steps = {self.trial_steps}, saw "
                f"{self.updates}"
            )


@dataclass(frozen=True)
class RelicRun:
    """A whole config file."""

    name: str
    model: RelicConfig
    training: RelicTraining
    ppo: PpoSettings = field(default_factory=PpoSettings)
    imitation: ImitationSettings = field(default_factory=ImitationSettings)


_PARTS: dict[str, type] = {
    "model": RelicConfig,
    "training": RelicTraining,
    "ppo": PpoSettings,
    "imitation": ImitationSettings,
}


def read_run(path: Path, overrides: dict[str, Any] | None = None) -> RelicRun:
    """Reads a config file; ``overrides`` replace keys of its ``training`` part.

    Raises:
        UserError: not such a file, or a model that does not fit the world; names the key.
    """
    name, parts = read_parts(path, POLICY, _PARTS, overrides)
    run = RelicRun(name, **parts)
    world = make_trial_world(run.training.world)
    check_world(run.model, world, str(path))
    if run.imitation.transitions and not isinstance(world, EgocentricNavigation):
        raise UserError(
            f"{path}: imitation.transitions: expected 0 in world {world.name}, which has no "
            f"scripted searcher, saw {run.imitation.transitions}"
        )
    if run.ppo.auxiliary_coefficient and not run.model.object_types:
        raise UserError(
            f"{path}: ppo.auxiliary_coefficient: expected 0 for a model without object_types, "
            f"for it has no second task, saw {run.ppo.auxiliary_coefficient}"
        )
    return run


def check_world(model: RelicConfig, world: TrialWorld, origin: str) -> None:
    """Refuses a model that cannot see or act as the world has it.

    Raises:
        UserError: names the first key that differs.
    """
    keys = ("action_count", "feature_count", "cell_count", "code_count")
    expected = {key: getattr(world, key) for key in keys}
    if model.object_types:
        expected |= _objects_on_map(world)
    for key, value in expected.items():
        if getattr(model, key) != value:
            raise UserError(
                f"{origin}: model.{key}: expected {value} as world {world.name} has, saw "
                f"{getattr(model, key)}"
            )
    if model.horizon < world.horizon:
        raise UserError(
            f"{origin}: model.horizon: expected at least the {world.horizon} steps of an "
            f"episode in world {world.name}, saw {model.horizon}"
        )


def _objects_on_map(world: TrialWorld) -> dict[str, int]:
    """What a model must have to recall where objects are. Without a frame that the episodes of a
    trial share there is nothing to recall: labels would mix the frames of different starts."""
    if not isinstance(world, EgocentricNavigation) or world.relative_pose:
        return {"object_types": 0}
    layout = world.layout_settings
    return {"object_types": layout.types, "map_width": layout.width, "map_height": layout.height}
