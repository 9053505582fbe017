"""Small models that have an opinion, for the tests of ReLIC's training."""

from __future__ import annotations

import torch

from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.rollout import Trials
from embodied_rl.sim.navigation.base import TRAIN, TrialWorld
from embodied_rl.sim.navigation.darkroom import Darkroom
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation


def config_for(world: TrialWorld, **changes: object) -> RelicConfig:
    keys = ("action_count", "horizon", "feature_count", "cell_count", "code_count")
    shown = {key: getattr(world, key) for key in keys}
    small = {"width": 16, "heads": 2, "layers": 2, "mlp": 32}
    return RelicConfig(**{**shown, **small, **changes})  # type: ignore[arg-type]


def opinionated(config: RelicConfig, seed: int = 0) -> RelicModel:
    """Large weights, so that odds of actions and values differ and depend on all that was seen."""
    torch.manual_seed(seed)
    model = RelicModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(0.4 * torch.randn(parameter.shape))
    return model


def make_trials(
    kind: str, count: int = 5, steps: int = 60, seed: int = 0, **changes: object
) -> tuple[Trials, RelicModel, torch.Generator]:
    """Trials that have begun: "darkroom" of short episodes, or "egocentric"."""
    short = Darkroom(size=3, horizon=7, held_out=2)
    world: TrialWorld = short if kind == "darkroom" else EgocentricNavigation()
    model = opinionated(config_for(world, **changes), seed)
    trials = Trials(model, world, count, steps, episodes=4)
    generator = torch.Generator().manual_seed(seed)
    trials.begin(world.worlds(TRAIN)[:count], generator)
    return trials, model, generator
