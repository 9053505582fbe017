"""The resumable state of a training run: safetensors and YAML, atomic, never pickled."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from embodied_rl.core.checkpoint import load_checkpoint, save_checkpoint
from embodied_rl.core.errors import UserError
from embodied_rl.nn.ema import Ema

STATE = "state"


@dataclass
class TrainState:
    """All that changes while training; `ema` is None where parameters are not averaged."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0


def save_state(folder: Path, state: TrainState, fingerprint: str) -> None:
    """Writes `folder`/state: parameters, their averages and the optimiser's moments."""
    names = {id(p): name for name, p in state.model.named_parameters()}
    tensors: dict[str, Tensor] = {f"model/{k}": v for k, v in state.model.state_dict().items()}
    if state.ema is not None:
        tensors |= {f"ema/{k}": v for k, v in state.ema.tensors().items()}
    for parameter, moments in state.optimizer.state.items():
        for key, value in moments.items():
            tensors[f"optimizer/{names[id(parameter)]}/{key}"] = value
    config: dict[str, object] = {"step": state.step, "fingerprint": fingerprint}
    if state.ema is not None:
        config["ema_count"] = state.ema.count
    arrays = {key: tensor.detach().cpu().numpy() for key, tensor in tensors.items()}
    save_checkpoint(folder / STATE, config, arrays, "Unfinished training state.\n")


def has_state(folder: Path) -> bool:
    """Whether a run has left its state in `folder`."""
    return (folder / STATE).exists()


def forget_state(folder: Path) -> None:
    """Removes it, if there is one: a run that starts anew must not be resumed from an old one."""
    if has_state(folder):
        shutil.rmtree(folder / STATE)


def load_state(folder: Path, state: TrainState, fingerprint: str) -> None:
    """Continues from `folder`/state, unless it belongs to other data or settings."""
    config, arrays = load_checkpoint(folder / STATE)
    if config.get("fingerprint") != fingerprint:
        raise UserError(
            f"{folder / STATE}: data and settings {fingerprint} expected, saw a state of "
            f"{config.get('fingerprint')}; start without --resume or use the same bags and config"
        )
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    part = {
        kind: {k[len(kind) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{kind}/")}
        for kind in ("model", "ema", "optimizer")
    }
    state.model.load_state_dict(part["model"])
    if state.ema is not None:
        state.ema.restore(part["ema"], int(config["ema_count"]))
    for name, parameter in state.model.named_parameters():
        moments = {
            # the count of steps is a number, which AdamW keeps on the CPU
            k.rsplit("/", 1)[1]: v.to(parameter.device) if v.ndim else v
            for k, v in part["optimizer"].items()
            if k.startswith(f"{name}/")
        }
        if moments:
            state.optimizer.state[parameter] = moments
    state.step = int(config["step"])
