"""A program: one iteration in the published structure, with the published module and with ours.

    python relic_official_training.py CHECKOUT

Prints the largest difference of the weights that they end in from the same ones, and the largest
move of one. Runs where torch and transformers 4.35.0 are.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "nn"))

from _relic_concatenated import ConcatenatedLearner
from _relic_official_training import CONFIGS, PublishedTrials, published_model
from sink_cases import load_published

from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.run import read_run


def ours_of(model: RelicModel, published: RelicModel) -> RelicModel:
    """The network of the published weights in ours."""
    weights = published.transformer.net.state_dict()
    load_published(model.transformer, weights)
    sinks, horizon = model.config.sinks, model.config.horizon
    model.positions.table.weight.data = weights["embed_pos.weight"][sinks : sinks + horizon].clone()
    state, shared = published.state_dict(), model.state_dict()
    model.load_state_dict({key: state.get(key, value) for key, value in shared.items()})
    return model


def main(checkout: str) -> None:
    run = read_run(CONFIGS / "relic_egocentric.yaml")
    small = replace(run.training, trials=4, trial_steps=40, updates=2, shuffle=False)
    # where keys of sinks are learned, the published angles count from another number
    model = replace(run.model, width=24, heads=2, mlp=32, sink_mode="k0v")
    run = replace(run, training=small, model=model, ppo=replace(run.ppo, epochs=1))
    torch.manual_seed(1)
    published, spare = published_model(Path(checkout), run.model, 40), RelicModel(run.model)
    ours = ours_of(RelicModel(run.model), published)
    begin = torch.nn.utils.parameters_to_vector(ours.parameters()).detach().clone()
    learners = (
        ConcatenatedLearner(run, ours),
        ConcatenatedLearner(run, published, PublishedTrials),
    )
    for net, learner in zip((ours, published), learners):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
        learner.learn(optimizer, torch.Generator().manual_seed(2))
    ends = [ours, ours_of(spare, published)]
    found, expected = (torch.nn.utils.parameters_to_vector(net.parameters()) for net in ends)
    print(float((found - expected).abs().max()), float((expected - begin).abs().max()))


if __name__ == "__main__":
    main(sys.argv[1])
