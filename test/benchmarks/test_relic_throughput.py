"""The published structure is the same computation as ours, or the comparison says nothing.

So is the published module in it, where EMBODIED_RL_RELIC_CHECKOUT names a checkout (see
`test/nn/test_sink_official.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _relic_concatenated import ConcatenatedLearner

from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.run import read_run
from embodied_rl.policies.relic.train import Learner

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("task", "mode"), [("darkroom", "kv"), ("darkroom", "none"), ("egocentric", "token")]
)
def test_both_structures_end_in_the_same_weights(task: str, mode: str) -> None:
    run = read_run(CONFIGS / f"relic_{task}.yaml")
    small = replace(run.training, trials=6, trial_steps=60, updates=3, shuffle=False)
    model = replace(run.model, width=24, heads=2, mlp=32, sink_mode=mode)
    run = replace(run, training=small, model=model, ppo=replace(run.ppo, epochs=1))
    ends = []
    for kind in (Learner, ConcatenatedLearner):
        torch.manual_seed(1)
        net = RelicModel(run.model)
        # plain descent: Adam's first steps turn rounding errors of tiny gradients into full steps
        optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
        kind(run, net).learn(optimizer, torch.Generator().manual_seed(2))
        ends.append(torch.nn.utils.parameters_to_vector(net.parameters()).detach())
    torch.manual_seed(1)
    begin = torch.nn.utils.parameters_to_vector(RelicModel(run.model).parameters()).detach()
    moved = (ends[0] - begin).abs().max()
    assert moved > 1e-2
    assert (ends[0] - ends[1]).abs().max() < 1e-3 * moved


@pytest.mark.skipif(
    "EMBODIED_RL_RELIC_CHECKOUT" not in os.environ, reason="EMBODIED_RL_RELIC_CHECKOUT not set"
)
def test_the_published_module_ends_in_the_same_weights() -> None:
    python = os.environ.get("EMBODIED_RL_RELIC_PYTHON", sys.executable)
    program = Path(__file__).with_name("relic_official_training.py")
    answer = subprocess.run(
        [python, str(program), os.environ["EMBODIED_RL_RELIC_CHECKOUT"]],
        check=True, timeout=110, capture_output=True, text=True, cwd=program.parents[2],
        env=os.environ | {"PYTHONPATH": str(program.parents[2])},
    )  # fmt: skip
    difference, moved = map(float, answer.stdout.split()[-2:])
    assert moved > 1e-2
    assert difference < 1e-3 * moved
