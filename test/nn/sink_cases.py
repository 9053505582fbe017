"""Cases on which our transformer and the published one are compared: the same weights and inputs.

Weights carry the published names; numpy's old generator, whose numbers are frozen, draws them.
"""

from __future__ import annotations

import numpy as np
import torch

from embodied_rl.nn.episodic_transformer import EpisodicTransformer, TransformerSettings

BATCH, STEPS = 2, 30
POSITIONS = 64  # rows of the published position table, and the offset of its rotary angles
STARTS = ((0, 7, 13, 25), (0, 1, 2, 20))
SETTINGS = {
    "none": TransformerSettings(32, 4, 2, 64, "none", 1),
    "k0v0": TransformerSettings(32, 4, 2, 64, "k0v0", 1),
    "kv0": TransformerSettings(32, 4, 2, 64, "kv0", 1),
    "k0v": TransformerSettings(32, 4, 2, 64, "k0v", 1),
    "kv": TransformerSettings(32, 4, 2, 64, "kv", 1),
    "kv_two_sinks": TransformerSettings(32, 4, 2, 64, "kv", 2),
    "token": TransformerSettings(32, 4, 2, 64, "token", 1),
    "kv_each_episode": TransformerSettings(32, 4, 2, 64, "kv", 1, False),
    "none_each_episode": TransformerSettings(32, 4, 2, 64, "none", 1, False),
}


def case_arrays(name: str) -> dict[str, np.ndarray]:
    """Published weights, inputs, ``mask`` (0 at an episode's first step), noise of the loss."""
    settings = SETTINGS[name]
    draw = np.random.RandomState(sorted(SETTINGS).index(name)).standard_normal
    width, heads = settings.width, settings.heads
    arrays = {"embed_pos.weight": 0.1 * draw((POSITIONS, width)), "norm.weight": _near_one(draw)}
    for layer in range(settings.layers):
        at = f"layers.{layer}."
        for part in ("q", "k", "v", "o"):
            arrays[f"{at}self_attn.{part}_proj.weight"] = 0.1 * draw((width, width))
        arrays[f"{at}mlp.gate_proj.weight"] = 0.1 * draw((settings.mlp, width))
        arrays[f"{at}mlp.up_proj.weight"] = 0.1 * draw((settings.mlp, width))
        arrays[f"{at}mlp.down_proj.weight"] = 0.1 * draw((width, settings.mlp))
        arrays[f"{at}input_layernorm.weight"] = _near_one(draw)
        arrays[f"{at}post_attention_layernorm.weight"] = _near_one(draw)
        for part, learned in (("key", ("kv0", "kv")), ("value", ("k0v", "kv"))):
            if settings.sink_mode in learned:
                shape = (1, heads, 1, width // heads)
                arrays[f"{at}self_attn.head_bias_{part}"] = 0.5 * draw(shape)
    if settings.sink_mode == "token":
        arrays["sink_tokens"] = 0.5 * draw((1, settings.sinks, width))
    mask = np.ones((BATCH, STEPS))
    for row, starts in zip(mask, STARTS, strict=True):
        row[list(starts)] = 0
    arrays |= {"inputs": draw((BATCH, STEPS, width)), "noise": draw((BATCH, STEPS, width))}
    return {key: value.astype(np.float32) for key, value in (arrays | {"mask": mask}).items()}


def _near_one(draw) -> np.ndarray:
    return 1.0 + 0.2 * draw(32)


def our_network(name: str, arrays: dict[str, np.ndarray]) -> EpisodicTransformer:
    """Ours with the published weights."""
    net = EpisodicTransformer(SETTINGS[name])
    load_published(net, {key: torch.from_numpy(value) for key, value in arrays.items()})
    return net


def load_published(net: EpisodicTransformer, weights: dict[str, torch.Tensor]) -> None:
    """Gives ``net`` the published module's weights."""
    settings = net.settings
    state = {"norm.weight": weights["norm.weight"]}
    for layer in range(settings.layers):
        theirs, ours = f"layers.{layer}.", f"blocks.{layer}."
        attention, mlp = theirs + "self_attn.", theirs + "mlp."
        qkv = [weights[f"{attention}{part}_proj.weight"] for part in "qkv"]
        gate_up = [weights[f"{mlp}{part}_proj.weight"] for part in ("gate", "up")]
        state |= {
            f"{ours}attention.qkv.weight": torch.cat(qkv),
            f"{ours}attention.out.weight": weights[f"{attention}o_proj.weight"],
            f"{ours}mlp.gate_up.weight": torch.cat(gate_up),
            f"{ours}mlp.down.weight": weights[f"{mlp}down_proj.weight"],
            f"{ours}norm_attention.weight": weights[f"{theirs}input_layernorm.weight"],
            f"{ours}norm_mlp.weight": weights[f"{theirs}post_attention_layernorm.weight"],
        }
        own = net.blocks[layer].attention
        for part in ("key", "value"):
            if hasattr(own, f"sink_{part}s"):
                given = weights.get(f"{attention}head_bias_{part}", torch.zeros(1))
                like = getattr(own, f"sink_{part}s")
                # the published module has one vector, which all its sinks share
                state[f"{ours}attention.sink_{part}s"] = given.expand_as(like)
    if settings.sink_mode == "token":
        # theirs are given positions, ours not
        position = weights["embed_pos.weight"][: settings.sinks]
        state["sink_tokens"] = weights["sink_tokens"][0] + position
    net.load_state_dict(state)


def our_inputs(name: str, arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens without their positions (a leaf), and what is added to them."""
    settings = SETTINGS[name]
    sinks = settings.cache_shape.sinks
    first = torch.from_numpy(arrays["mask"] == 0)
    steps = torch.arange(STEPS).expand(BATCH, -1)
    time = steps - torch.where(first, steps, 0).cummax(dim=1).values
    inputs = torch.from_numpy(arrays["inputs"].copy()).requires_grad_()
    return inputs, torch.from_numpy(arrays["embed_pos.weight"])[time + sinks]


def our_episodes(name: str, arrays: dict[str, np.ndarray]) -> torch.Tensor:
    """Episode indices as the published module counts them: from the number of sinks on; where keys
    of sinks are learned, angles begin at the size of its table."""
    settings = SETTINGS[name]
    offset = 0 if settings.sink_mode == "token" else POSITIONS
    first = torch.from_numpy(arrays["mask"] == 0)
    return first.long().cumsum(dim=1) - 1 + settings.cache_shape.sinks + offset
