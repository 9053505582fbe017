"""Robot and twin from the same starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome, episode_seed
from embodied_rl.policies.evaluation import Evaluation, evaluate_in_process, place_of
from embodied_rl.policies.registry import find_checkpoint
from embodied_rl.policies.tgpo.runtime import RunSettings, load_tgpo
from embodied_rl.policies.tgpo.sim_gap import PairedRuns, figures, paired_runs, starts, world_of
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.sim.stl_tasks.task import load_task

TASK = "unicycle_02"


@pytest.fixture(scope="module")
def policy():
    return load_tgpo(find_checkpoint("tgpo_unicycle"))


def test_the_twin_begins_where_the_robot_truly_stands(policy) -> None:
    evaluation = Evaluation("tgpo_unicycle", TASK, 3, 5, world="arena")
    found = starts(evaluation, policy)
    task = load_task(TASK)
    low, high = (torch.tensor(end) for end in (task.start_low, task.start_high))
    assert found.shape == (3, 4) and len(torch.unique(found[:, 2])) == 3
    assert ((low <= found[:, :2]) & (found[:, :2] <= high)).all() and not found[:, 3].any()
    noisy = make_simulator("arena", TASK)  # the robot's own sensors are not exact
    noisy.reset(episode_seed(5, 1))
    seen = noisy.read()["base_position"].value[:2]
    noisy.close()
    assert 0 < np.abs(seen - found[1, :2].numpy()).max() < 0.05


def test_an_episode_of_the_robot_stands_beside_its_twins(policy) -> None:
    evaluation = Evaluation("tgpo_unicycle", TASK, 1, 0, options={"samples": 64}, world="arena")
    (result,) = evaluate_in_process(evaluation)
    assert result.ticks == 320 and result.outcome.reason.startswith("robustness")
    task = load_task(TASK)
    both = paired_runs(policy, task, evaluation, RunSettings(64), [result])
    start = starts(evaluation, policy)
    alone = policy.run(task, start, RunSettings(64), torch.Generator().manual_seed(0))
    assert both.twin[0] == pytest.approx(float(alone.robustness[0]))


def episodes(*successes: bool) -> list[EpisodeResult]:
    info = EpisodeInfo(0, 0, "", "", 0)
    return [
        EpisodeResult(info, Outcome(True, one, "", 0.0), 1, 0, np.zeros((1, 2)))
        for one in successes
    ]


def test_figures_count_robot_and_twin() -> None:
    tasks = [load_task("unicycle_00"), load_task("unicycle_01")]
    found = figures(
        [
            PairedRuns(tasks[0], episodes(True, True), np.array([0.2, -0.1])),
            PairedRuns(tasks[1], episodes(False, True), np.array([0.3, 0.0])),
        ]
    )
    assert found["episodes"] == 4
    assert found["robot"]["success"] == 0.75 and found["twin"]["success"] == 0.5
    assert found["robot"]["low"] < 0.75 < found["robot"]["high"]
    assert found["tasks"]["unicycle_01"]["twin"]["successes"] == 1


def test_a_policy_of_no_simulated_robot_is_refused() -> None:
    with pytest.raises(UserError, match="no simulated robot is driven as 'linear'"):
        world_of(load_tgpo(find_checkpoint("tgpo_linear")))


def test_a_task_without_a_world_is_one_with_a_name() -> None:
    assert place_of(Evaluation("x", "return_home", 1, 0)) == ("tabletop", "return_home")
    assert place_of(Evaluation("x", TASK, 1, 0, world="arena")) == ("arena", TASK)
    with pytest.raises(UserError, match="unknown task 'unicycle_02'"):
        place_of(Evaluation("x", TASK, 1, 0))
