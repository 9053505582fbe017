"""Sink attention against the published module (arXiv 2410.02751), numbers for numbers.

Its outputs on small cases are stored beside this file. Where EMBODIED_RL_RELIC_CHECKOUT names a
checkout of github.com/aielawady/relic, the module itself runs as well, by the interpreter that
EMBODIED_RL_RELIC_PYTHON names (this one, if unset), which needs torch and transformers 4.35.0:

    EMBODIED_RL_RELIC_CHECKOUT=... EMBODIED_RL_RELIC_PYTHON=... pytest test/nn/test_sink_official.py

A stored file is written anew by calling `store()` below with the results of such a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from sink_cases import POSITIONS, SETTINGS, case_arrays, our_episodes, our_inputs, our_network

STORED = Path(__file__).with_name("sink_official.npz")
CHECKOUT = os.environ.get("EMBODIED_RL_RELIC_CHECKOUT")
PYTHON = os.environ.get("EMBODIED_RL_RELIC_PYTHON", sys.executable)
SMALL = ("output", "grad/inputs", "sink")  # what is stored of a case

needs_checkout = pytest.mark.skipif(CHECKOUT is None, reason="EMBODIED_RL_RELIC_CHECKOUT not set")


def run_official(folder: Path) -> dict[str, np.ndarray]:
    """``CASE|NAME`` -> array, from the module itself."""
    paths = [folder / name for name in ("settings.json", "cases.npz", "results.npz")]
    settings = {name: asdict(s) | {"positions": POSITIONS} for name, s in SETTINGS.items()}
    paths[0].write_text(json.dumps(settings))
    arrays = {f"{name}|{key}": v for name in SETTINGS for key, v in case_arrays(name).items()}
    np.savez(paths[1], **arrays)
    program = Path(__file__).with_name("relic_reference.py")
    subprocess.run([PYTHON, str(program), CHECKOUT, *map(str, paths)], check=True, timeout=110)
    with np.load(paths[2]) as found:
        return {key: found[key] for key in found.files}


def store(results: dict[str, np.ndarray], path: Path = STORED) -> None:
    """Keeps the small ones."""
    kept = {k: v for k, v in results.items() if _small(k.split("|")[1])}
    np.savez_compressed(path, **kept)


def _small(name: str) -> bool:
    return name in SMALL or "head_bias" in name or "sink_tokens" in name


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> dict[str, np.ndarray]:
    return run_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(STORED) as found:
        return {key: found[key] for key in found.files}


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_stored_outputs_of_the_published_module(name, stored):
    compare(name, {k.split("|")[1]: v for k, v in stored.items() if k.startswith(f"{name}|")})


@needs_checkout
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_published_module(name, official):
    found = {k.split("|")[1]: v for k, v in official.items() if k.startswith(f"{name}|")}
    assert len(found) > 15, "gradients of all weights are to be compared"
    compare(name, found)


@needs_checkout
def test_what_is_stored_is_what_the_published_module_says(official, stored):
    for key, value in stored.items():
        np.testing.assert_allclose(value, official[key], atol=1e-6, err_msg=key)


def compare(name: str, theirs: dict[str, np.ndarray]) -> None:
    """Outputs within 1e-5, gradients within 1e-4 of the largest."""
    arrays = case_arrays(name)
    net = our_network(name, arrays)
    inputs, positions = our_inputs(name, arrays)
    output = net(inputs + positions, our_episodes(name, arrays))
    assert output.square().mean().sqrt() > 0.5
    np.testing.assert_allclose(output.detach(), theirs["output"], atol=1e-5, rtol=0)
    (output * torch.from_numpy(arrays["noise"])).sum().backward()
    gradients = our_gradients(net) | {"inputs": inputs.grad}
    compared = 0
    for key, value in theirs.items():
        if key.startswith("grad/") and key != "grad/embed_pos.weight":
            ours = gradients[key.removeprefix("grad/")].numpy()
            if "head_bias" in key and ours.shape != value.shape:
                ours = ours.sum(axis=2, keepdims=True)  # one vector for all sinks
            limit = 1e-4 * np.abs(value).max()
            np.testing.assert_allclose(ours.reshape(value.shape), value, atol=limit, err_msg=key)
            compared += 1
    learned = {"none": 0, "k0v0": 0, "kv": 4, "token": 1}.get(SETTINGS[name].sink_mode, 2)
    assert compared >= 1 + learned


def our_gradients(net) -> dict[str, torch.Tensor]:
    """By the published names."""
    found = {}
    for layer, block in enumerate(net.blocks):
        at = f"layers.{layer}."
        parts = block.attention.qkv.weight.grad.chunk(3)
        for part, value in zip("qkv", parts, strict=True):
            found[f"{at}self_attn.{part}_proj.weight"] = value
        found[f"{at}self_attn.o_proj.weight"] = block.attention.out.weight.grad
        gate, up = block.mlp.gate_up.weight.grad.chunk(2)
        found |= {f"{at}mlp.gate_proj.weight": gate, f"{at}mlp.up_proj.weight": up}
        found[f"{at}mlp.down_proj.weight"] = block.mlp.down.weight.grad
        found[f"{at}input_layernorm.weight"] = block.norm_attention.weight.grad
        found[f"{at}post_attention_layernorm.weight"] = block.norm_mlp.weight.grad
        for part in ("key", "value"):
            sink = getattr(block.attention, f"sink_{part}s", None)
            if sink is not None and sink.grad is not None:
                found[f"{at}self_attn.head_bias_{part}"] = sink.grad
    found["norm.weight"] = net.norm.weight.grad
    if hasattr(net, "sink_tokens"):
        found["sink_tokens"] = net.sink_tokens.grad
    return found
