"""Where networks are computed: on a GPU if there is one, unless somebody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain

import torch
from torch import Tensor, nn

from embodied_rl.core.errors import UserError

AUTO = "auto"  # a CUDA device if there is one, else the CPU


def choose_device(name: str = AUTO) -> torch.device:
    """The device called `name`: auto, cpu, cuda, or cuda:N.

    Raises:
        UserError: no such device on this machine, or no name of one.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == AUTO:
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device: expected auto, cpu, cuda or cuda:N, saw '{name}'")
    if device.type == "cuda" and (device.index or 0) >= count:
        here = f"{count} CUDA devices" if count else "no CUDA device"
        raise UserError(f"device: expected one that is here, saw '{name}' with {here}; use auto")
    return device


def device_of(module: nn.Module) -> torch.device:
    """Where a module's tensors are; the CPU for one without any."""
    tensor = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def new_tensors_on(device: torch.device) -> AbstractContextManager[object]:
    """Within, tensors that are made without saying where are made on ``device``.

    Generators are not tensors: they need ``torch.Generator(device)``. On the CPU nothing is done,
    because torch pays for such a context at every call.
    """
    return nullcontext() if device.type == "cpu" else device


def moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """All of them on `device`."""
    return {key: tensor.to(device) for key, tensor in tensors.items()}
