"""Decoding steps of the published transformer for `relic_latency`, in its own environment.

The past lies in one tensor, as its rollout storage keeps it, and the module gets slices of it; what
it makes of them is its own. Settings: ``checkout``, ``context``, ``threads``, and the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _relic_official import official_model
from _step_server import resident_mb, serve

EPISODE = 512  # steps; must fit its position table


def _make(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Callable[[], object]]]:
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    net = official_model(Path(settings["checkout"]), settings)
    _step(net, settings, 16)()
    before = resident_mb()
    step = _step(net, settings, settings["context"])
    step()
    return {"before_mb": before, "memory_mb": resident_mb() - before}, {"step": step}


def _step(net: torch.nn.Module, settings: dict[str, Any], context: int) -> Callable[[], object]:
    width, heads = settings["width"], settings["heads"]
    stored = torch.randn(settings["layers"], 2, 1, heads, context + 1, width // heads)
    token = torch.randn(1, 1, width)
    mask = torch.ones(1, context + 1)
    mask[:, ::EPISODE] = 0

    @torch.inference_mode()
    def step() -> None:
        past = [(layer[0, ..., 1:, :], layer[1, ..., 1:, :]) for layer in stored]
        found = net(inputs_embeds=token, past_key_values=past, attention_mask=mask, use_cache=True)
        for layer, (keys, values) in zip(stored, found.past_key_values, strict=True):
            layer[0, ..., -1, :] = keys[..., -1, :]  # the storage keeps the new step
            layer[1, ..., -1, :] = values[..., -1, :]

    return step


if __name__ == "__main__":
    serve(_make)
