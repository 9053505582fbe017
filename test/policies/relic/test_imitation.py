"""The teacher beside a network: what it says, in whose trials it acts, and that it is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trial_cases import config_for, opinionated

from embodied_rl.core.errors import UserError
from embodied_rl.policies.relic.imitation import ImitationSettings, Teacher
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.rollout import Trials, collect
from embodied_rl.policies.relic.run import RelicRun, RelicTraining, read_run
from embodied_rl.policies.relic.train import Learner
from embodied_rl.sim.navigation.base import HELD_OUT
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.sim.navigation.scripted import MapSearcher
from embodied_rl.training.ppo import PpoSettings
from embodied_rl.training.state import TrainState

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_teacher_acts_where_it_leads_and_says_the_same_in_all_trials() -> None:
    """Its labels are those of a searcher that drives trials of its own, as long as it leads."""
    world, count, steps = make_trial_world("apartment"), 6, 40
    model = opinionated(config_for(world))
    trials = Trials(model, world, count, steps, 8)
    worlds = world.worlds(HELD_OUT)[:count]
    trials.begin(worlds, torch.Generator().manual_seed(3))
    teacher = Teacher(world, count, led=4)
    rollout = collect(trials, steps, torch.Generator().manual_seed(4), teacher)
    label = torch.stack(teacher.labels)
    assert torch.equal(rollout.action[:, :4], label[:, :4])
    assert not torch.equal(rollout.action[:, 4:], label[:, 4:])

    alone = make_trial_world("apartment")
    view = alone.reset(worlds, steps, torch.Generator().manual_seed(3))
    searcher, first = MapSearcher(alone, count, keep=True), torch.ones(count, dtype=torch.bool)
    for step in range(steps):
        action = searcher.act(view, first)
        assert torch.equal(action[:4], label[step, :4])
        found = alone.step(torch.where(torch.arange(count) < 4, action, rollout.action[step]))
        view, first = found.view, found.ended


def test_what_the_teacher_does_is_learned_and_reinforcement_follows() -> None:
    """The same trials again and again, led by the teacher alone: they can be learned by heart."""
    world = make_trial_world("egocentric")
    training = RelicTraining("egocentric", trials=4, trial_steps=24, updates=2, warmup=1)
    run = RelicRun(
        "imitator",
        replace(config_for(world, width=32, mlp=64), previous_reward=False),
        training,
        ppo=PpoSettings(epochs=1, minibatches=2),
        imitation=ImitationSettings(transitions=4 * 24, epochs=8, minibatches=2),
    )
    torch.manual_seed(0)
    model = RelicModel(run.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    learner, state = Learner(run, model), TrainState(model, optimizer, None)
    found = [learner.imitate(optimizer, 0.0, torch.Generator().manual_seed(5)) for _ in range(12)]
    assert found[-1].cross_entropy < 0.5 * found[0].cross_entropy
    assert found[-1].agreement > 0.9
    records = [learner.iterate(state, 2)[0] for _ in range(2)]
    assert "cross_entropy" in records[0] and "entropy" not in records[0]
    assert "cross_entropy" not in records[1] and "entropy" in records[1]


def test_a_world_without_a_searcher_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dark.yaml"
    text = (CONFIGS / "relic_darkroom.yaml").read_text(encoding="utf-8")
    path.write_text(text + "imitation: {transitions: 9}\n", encoding="utf-8")
    with pytest.raises(UserError, match="imitation.transitions: expected 0 in world darkroom"):
        read_run(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": -1}, "transitions: expected at least 0, saw -1"),
        ({"epochs": 0}, "epochs: expected at least 1, saw 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
    ],
)
def test_impossible_settings(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImitationSettings(**change)
