"""Recall: labels by walking through the steps, a loss where there is one, learned in seconds."""

from __future__ import annotations

import pytest
import torch
from trial_cases import config_for

from embodied_rl.core.errors import UserError
from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.recall import UNKNOWN, LandmarkLayout, recall_labels
from embodied_rl.policies.relic.rollout import Trials, collect
from embodied_rl.policies.relic.run import check_world
from embodied_rl.policies.relic.tokens import Tokens
from embodied_rl.sim.navigation.base import HELD_OUT
from embodied_rl.sim.navigation.registry import make_trial_world


def recalling(world, **changes: object) -> RelicConfig:
    return config_for(world, object_types=6, map_width=13, map_height=13, **changes)


def played(config: RelicConfig, world, count: int, steps: int) -> Tokens:
    """Steps of an untrained network in held-out homes ``(N, T)``."""
    trials = Trials(RelicModel(config), world, count, steps, 4)
    generator = torch.Generator().manual_seed(0)
    trials.begin(world.worlds(HELD_OUT)[:count], generator)
    tokens = collect(trials, steps, generator).observation
    return Tokens(*(part.transpose(0, 1) for part in tokens))


def test_labels_are_what_has_been_in_view() -> None:
    world, count, steps = make_trial_world("apartment"), 5, 80
    tokens = played(recalling(world), world, count, steps)
    labels = recall_labels(tokens.features, LandmarkLayout(6, 13, 13, 30))
    known = 0
    for n in range(count):
        objects = world.objects(int(world.worlds(HELD_OUT)[n])).tolist()
        places = {kind - 1: (x, y) for y, row in enumerate(objects) for x, kind in enumerate(row)}
        met: set[int] = set()
        for t in range(steps):
            met |= {code - 3 for code in tokens.cells[n, t].tolist() if code >= 3}
            wanted = int(tokens.features[n, t, :6].argmax())
            expected = places[wanted] if wanted in met else (UNKNOWN, UNKNOWN)
            assert tuple(labels[n, t].tolist()) == expected
            known += wanted in met
    assert 20 < known < count * steps


@torch.no_grad()
def test_steps_without_a_label_have_no_loss() -> None:
    torch.manual_seed(0)
    world = make_trial_world("egocentric")
    config = recalling(world)
    model, tokens = RelicModel(config), played(config, world, 4, 50)
    (logits, value), loss = model.study(tokens)
    plain = model(tokens)
    assert torch.equal(logits, plain.logits) and torch.equal(value, plain.value)
    label = recall_labels(tokens.features, model.recall.layout)
    assert loss.shape == (4, 50) and (loss[label[..., 0] == UNKNOWN] == 0).all()
    hidden = model.transformer(model.embed(tokens), tokens.episode)
    x, y = (scores.log_softmax(dim=-1) for scores in model.recall(hidden))
    for n, t in (label[..., 0] != UNKNOWN).nonzero()[::7].tolist():
        at_x, at_y = label[n, t].tolist()
        expected = -(x[n, t, at_x] + y[n, t, at_y]) / 2
        assert float(loss[n, t]) == pytest.approx(float(expected), abs=1e-5)


def test_what_was_seen_is_recalled_after_a_short_fit() -> None:
    """One home's steps by heart: the loss falls from chance far below it."""
    torch.manual_seed(0)
    world = make_trial_world("egocentric")
    config = recalling(world, width=32)
    model, tokens = RelicModel(config), played(config, world, 2, 40)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        by_step = model.study(tokens)[1]
        loss = by_step.sum() / (by_step > 0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 2.0 and losses[-1] < 0.2


def test_features_must_be_laid_out_for_it() -> None:
    world = make_trial_world("egocentric")
    with pytest.raises(ValueError, match="feature_count: expected 192 with object_types 6"):
        recalling(world, feature_count=190)
    with pytest.raises(ValueError, match="object_types: expected at least 0, saw -6"):
        config_for(world, object_types=-6)


@pytest.mark.parametrize(
    ("name", "landmarks", "message"),
    [
        ("egocentric", (6, 14, 12), "model.map_width: expected 13 as world egocentric has, saw 14"),
        ("egocentric_relative", (6, 25, 25), "model.object_types: expected 0 as world egocentric_"),
        ("darkroom", (2, 1, 1), "model.object_types: expected 0 as world darkroom has, saw 2"),
    ],
)
def test_a_world_must_tell_objects_on_such_a_map(
    name: str, landmarks: tuple[int, int, int], message: str
) -> None:
    """All have the right number of features."""
    world = make_trial_world(name)
    keys = ("object_types", "map_width", "map_height")
    config = config_for(world, **dict(zip(keys, landmarks)))
    with pytest.raises(UserError, match=f"^here: {message}"):
        check_world(config, world, "here")
