"""An evaluation over topics: what is launched, and what is read back of its results."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embodied_rl.bringup.evaluate import _command, _with_figures
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.policies.evaluation import Evaluation
from embodied_rl.sim.rollout import EpisodeResult


@pytest.mark.parametrize(
    ("task", "world", "words"),
    [
        ("return_home", None, ["world:=tabletop", "task:=return_home"]),
        ("find_object", "apartment", ["world:=apartment", "task:=find_object"]),
        ("arm_00", "reach", ["world:=reach", "spec:=arm_00", "pictures:=false"]),
    ],
)
def test_world_and_task_are_named_as_the_launch_takes_them(tmp_path, task, world, words):
    model = "tgpo_arm" if world == "reach" else "expert"
    command = _command(Evaluation(model, task, 16, 3, world=world), tmp_path)
    assert set(words) <= set(command) and {"episodes:=16", "seed:=3"} <= set(command)
    assert not {"task:=arm_00", "spec:=find_object"} & set(command)


def test_figures_of_an_episode_are_those_that_the_graph_wrote(tmp_path):
    outcome, commands = Outcome(True, True, "found", 1.0), np.zeros((3, 2))
    results = [
        EpisodeResult(EpisodeInfo(number, 0, "", "", 0), outcome, 3, 0, commands)
        for number in range(2)
    ]
    written = [
        {
            "episode": number,
            "real_time_factor": 1.5 + number,
            "policy_node": {"actions": 7 - number, "step_ms": 2.5, "model": "small"},
        }
        for number in (1, 0)
    ]
    path = tmp_path / "episodes.json"
    path.write_text(json.dumps(written))
    first, second = _with_figures(results, path)
    assert first.figures == {"actions": 7.0, "step_ms": 2.5, "real_time_factor": 1.5}
    assert second.figures == {"actions": 6.0, "step_ms": 2.5, "real_time_factor": 2.5}
    assert first.outcome is outcome and first.commands is commands
