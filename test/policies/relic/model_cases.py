"""Small models and made-up trials."""

from __future__ import annotations

import torch

from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.tokens import Tokens

ACTIONS, HORIZON, CELLS, CODES, FEATURES = 4, 12, 6, 5, 3


def small_config(**changes) -> RelicConfig:
    return RelicConfig(
        **{
            "action_count": ACTIONS, "horizon": HORIZON, "feature_count": FEATURES,
            "cell_count": CELLS, "code_count": CODES, "crop_width": 16,
            "width": 32, "heads": 4, "layers": 2, "mlp": 64, **changes,
        }
    )  # fmt: skip


def small_model(**changes) -> RelicModel:
    """With weights large enough that every part is seen in the output."""
    torch.manual_seed(3)
    model = RelicModel(small_config(**changes))
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0.0, 0.5 if "sink" in name else 0.2)
    return model


def made_up_trials(batch: int, steps: int, seed: int = 0) -> Tokens:
    """``(B, T)``: episodes of 1 to HORIZON steps; the first two are one step long."""
    draw = torch.Generator().manual_seed(seed)
    first = torch.zeros(batch, steps, dtype=torch.bool)
    for row in first:
        lengths = torch.randint(1, HORIZON + 1, (steps,), generator=draw)
        lengths[:2] = 1
        starts = lengths.cumsum(dim=0) - lengths
        row[starts[starts < steps]] = True
    index = torch.arange(steps).expand(batch, -1)
    time = index - torch.where(first, index, 0).cummax(dim=1).values
    action = torch.randint(1, ACTIONS + 1, (batch, steps), generator=draw)
    return Tokens(
        torch.randint(0, CODES, (batch, steps, CELLS), generator=draw),
        torch.randn(batch, steps, FEATURES, generator=draw),
        torch.where(first, 0, action),
        torch.where(first, 0.0, torch.randn(batch, steps, generator=draw)),
        time,
        first.long().cumsum(dim=1) - 1,
    )


def at(tokens: Tokens, where) -> Tokens:
    """A part along the time of ``(B, T)``."""
    return Tokens(*(part[:, where] for part in tokens))
