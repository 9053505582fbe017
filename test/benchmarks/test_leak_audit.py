"""One row at the decision tells nothing; the same classifiers do see it where it shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _leak_audit import QUESTIONS, Dataset, audit, collect

from embodied_rl.core.errors import UserError
from embodied_rl.sim.registry import TASKS


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny matrices: threads only wait for each other
    yield
    torch.set_num_threads(before)


# episodes: enough for the positive control to be seen, for these few classes
@pytest.mark.parametrize(
    ("task", "episodes"), [("replace_object", 70), ("count_pushes", 72), ("return_home", 72)]
)
def test_state_at_the_decision_is_at_chance(task, episodes):
    question = QUESTIONS[task]
    dataset = collect(episodes, seed=4, task=task)
    assert set(dataset.labels) == set(range(question.classes))
    verdicts = audit(dataset)
    assert len(verdicts) == 4
    for verdict in verdicts:
        assert verdict.total == episodes and verdict.chance == 1 / question.classes
        if verdict.moment == "decision":
            assert verdict.at_chance, verdict
        else:
            # few episodes: half-way between chance and what the full audit asks for
            assert verdict.low > (verdict.chance + question.control_low) / 2, verdict


def test_every_task_with_a_memory_is_audited():
    assert set(QUESTIONS) == set(TASKS) - {"pick_place"}
    with pytest.raises(UserError, match="unknown task to audit 'pick_place'"):
        collect(1, task="pick_place")


def test_classifiers_find_a_planted_leak_in_state_and_image():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=120)
    state = rng.standard_normal((120, 12))
    state[:, 5] += 1.6 * labels
    image = rng.random((120, 3000))
    image[:, 40:60] += 0.5 * labels[:, None]
    for verdict in audit(Dataset(labels, {"decision": {"state": state, "image": image}})):
        assert verdict.low > 0.55, verdict
