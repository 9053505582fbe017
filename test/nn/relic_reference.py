"""A program: outputs and gradients of the published module on the cases that a test wrote.

    python relic_reference.py CHECKOUT SETTINGS.json CASES.npz RESULTS.npz

Runs where torch and transformers 4.35.0 are; needs nothing of this package.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _relic_official import official_model

DATA = ("inputs", "mask", "noise")


def run(checkout: Path, settings: dict, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``output``, and ``grad/NAME`` of the inputs and of every weight that was used."""
    net = official_model(checkout, settings)
    weights = {k: torch.from_numpy(v) for k, v in arrays.items() if k not in DATA}
    missing, unexpected = net.load_state_dict(weights, strict=False)
    left_out = [name for name in missing if "head_bias" not in name and name != "sink_tokens"]
    if left_out or unexpected:
        raise ValueError(f"weights left out {left_out}, unknown {unexpected}")
    inputs = torch.from_numpy(arrays["inputs"]).requires_grad_()
    mask = torch.from_numpy(arrays["mask"])
    output = net(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state
    (output * torch.from_numpy(arrays["noise"])).sum().backward()
    found = {"output": output.detach().numpy(), "grad/inputs": inputs.grad.numpy()}
    for name, parameter in net.named_parameters():
        # under Sink-KV the module has a parameter of sink tokens that changes nothing
        if parameter.grad is not None and name in weights:
            found[f"grad/{name}"] = parameter.grad.numpy()
    return found


def main(checkout: str, settings_path: str, cases_path: str, results_path: str) -> None:
    cases: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    with np.load(cases_path) as stored:
        for key in stored.files:
            case, name = key.split("|")
            cases[case][name] = stored[key]
    settings = json.loads(Path(settings_path).read_text())
    results = {
        f"{case}|{name}": value
        for case, arrays in cases.items()
        for name, value in run(Path(checkout), settings[case], arrays).items()
    }
    np.savez(results_path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
