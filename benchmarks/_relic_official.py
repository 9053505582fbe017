"""The published transformer of ReLIC (github.com/aielawady/relic) from a checkout of its source.

Needs torch and transformers 4.35.0, and nothing of this package: it may run in an environment of
its own. Only the folder of the transformer is imported; the rest of that package needs Habitat.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PACKAGE = "relic_official"
_FOLDER = "relic/policies/llamarl"

# our names of the sink modes -> the published flags
FLAGS: dict[str, dict[str, bool]] = {
    "none": {},
    "k0v0": {"add_sink_kv": True, "is_sink_k_trainable": False, "is_sink_v_trainable": False},
    "kv0": {"add_sink_kv": True, "is_sink_v_trainable": False},
    "k0v": {"add_sink_kv": True, "is_sink_k_trainable": False},
    "kv": {"add_sink_kv": True},
    "token": {"add_sink_tokens": True},
}


def causal_attention(query: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Tensor:
    """What the fused kernel that the module asks for computes, ``(B, n, H, Dh)`` each: the last
    query sees all keys. Without it the module attends to the future."""
    if not causal:
        raise ValueError("the published configurations are all causal")
    count, slots = query.shape[1], keys.shape[1]
    mask = None
    if count > 1:
        mask = torch.ones(count, slots, dtype=torch.bool, device=query.device)
        mask = mask.tril_(slots - count)
    parts = (part.transpose(1, 2) for part in (query, keys, values))
    return F.scaled_dot_product_attention(*parts, attn_mask=mask).transpose(1, 2)


def load_official(checkout: Path) -> tuple[types.ModuleType, types.ModuleType]:
    """Its modules of the network and of the configuration, the fused kernel replaced."""
    folder = checkout / _FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected the checkout of the ReLIC repository")
    if _PACKAGE not in sys.modules:
        package = types.ModuleType(_PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[_PACKAGE] = package
    network = importlib.import_module(f"{_PACKAGE}.modeling_llamarl")
    network.flash_attn_func = causal_attention
    network.IS_FLASH_ATTN_AVAILABLE = True
    return network, importlib.import_module(f"{_PACKAGE}.configuration_llamarl")


def official_model(checkout: Path, settings: dict[str, Any]) -> nn.Module:
    """A network without dropout.

    Args:
        settings: width, heads, layers, mlp, sink_mode, sinks, inter_episode, and ``positions``,
            the rows of its position table.
    """
    network, configuration = load_official(checkout)
    over_episodes = settings["inter_episode"]
    config = configuration.LlamaRLConfig(
        hidden_size=settings["width"],
        num_attention_heads=settings["heads"],
        num_hidden_layers=settings["layers"],
        intermediate_size=settings["mlp"],
        max_position_embeddings=settings["positions"],
        hidden_act="gelu_new",
        position_embed_type="learnable",
        sequence_embed_type="rope",
        reset_position_index=True,
        inter_episodes_attention=over_episodes,
        add_sequence_idx_embed=over_episodes,
        num_sink_tokens=settings["sinks"],
        **FLAGS[settings["sink_mode"]],
    )
    return network.LlamaRLModel(config).eval()
