"""Self-verification over real topics: the score of the plan that won is on the diagnostics."""

from __future__ import annotations

import math

import pytest
from diagnostic_msgs.msg import DiagnosticArray

from embodied_rl.bringup.graph import find_policy

from .conftest import EMBODIMENT

pytest.importorskip("torch")


def test_the_winning_score_is_published(probe, processes):
    common = {"embodiment": EMBODIMENT, "use_sim_time": True, "mode": "lockstep"}
    processes.start("sim_node", mode="lockstep", task="replace_object")
    processes.start("command_gate_node", **common)
    model = find_policy("ptp_replace_object")
    options = {"task": "replace_object", "policy_options": "{samples: 4}"}
    processes.start("policy_node", policy=model, **options, **common)
    states = probe.collect(DiagnosticArray, "/diagnostics")

    def figures() -> list[dict[str, str]]:
        return [
            {value.key: value.value for value in status.values}
            for _, array in states
            for status in array.status
            if status.name == "policy_node"
        ]

    def scored() -> list[dict[str, str]]:
        return [f for f in figures() if math.isfinite(float(f.get("verify_score", "nan")))]

    probe.activate_policy()
    assert not scored(), "a score before anything was planned"
    probe.reset_simulator()
    newest = probe.until(scored, "score of a plan")[-1]
    assert float(newest["verify_score"]) > 0
    assert newest["samples"] == "4"
    assert int(newest["verify_ticks"]) > 0
