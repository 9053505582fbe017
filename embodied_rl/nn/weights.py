"""Stored arrays into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from embodied_rl.core.errors import UserError


def load_weights(model: nn.Module, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Fills all parameters and buffers.

    Args:
        path: the file that the arrays are from, for the error.

    Raises:
        UserError: a tensor is missing, unknown or of another shape; names the first one.
    """
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    seen = {k: v.shape for k, v in arrays.items()}
    for key in sorted(expected.keys() | seen.keys()):
        if expected.get(key) != seen.get(key):
            raise UserError(
                f"{path}: tensor '{key}': expected shape {expected.get(key)}, saw "
                f"{seen.get(key)}; the checkpoint is of another model than its config says"
            )
    model.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
