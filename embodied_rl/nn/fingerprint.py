"""Which network it is, in a few digits."""

from __future__ import annotations

import hashlib

from torch import nn


def weights_fingerprint(module: nn.Module, configuration: str) -> str:
    """16 hex digits of a configuration and all weights."""
    digest = hashlib.sha256(configuration.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
