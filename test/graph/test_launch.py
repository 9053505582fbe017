"""``embodied_rl launch`` with the real nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from embodied_rl.bringup.environment import child_environment, defaults
from embodied_rl.bringup.graph import build
from embodied_rl.bringup.runner import command_of
from embodied_rl.core.policy import episode_seed
from embodied_rl.policies.registry import load_policy
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout

from .conftest import EMBODIMENT

DEADLINE_S = 90


def launch(domain: int, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "embodied_rl.cli.main",
            "launch",
            "sim",
            "cameras:=none",
            *arguments,
        ],
        env=child_environment({"ROS_DOMAIN_ID": str(domain)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def launched():
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def test_two_robots_side_by_side(domain, tmp_path, launched):
    for name in ("left", "right"):
        launched.append(
            launch(domain, f"namespace:={name}", "episodes:=1", f"out:={tmp_path / name}")
        )
    for process, name in zip(launched, ("left", "right"), strict=True):
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, output
        (episode,) = json.loads((tmp_path / name / "episodes.json").read_text())
        assert episode["success"], output
        # With another robot's messages mixed in there would be duplicates and odd rates.
        assert episode["policy_node"]["duplicate_samples"] == 0
        assert episode["policy_node"]["arm_position.rate_hz"] == pytest.approx(50.0)


def test_an_arm_after_a_formula_does_what_it_does_in_one_process(domain, tmp_path, launched):
    task, seed = "arm_02", 7
    arguments = ("world:=reach", "policy:=tgpo", f"spec:={task}", "episodes:=1", f"seed:={seed}")
    launched.append(launch(domain, *arguments, f"out:={tmp_path}"))
    output, _ = launched[0].communicate(timeout=DEADLINE_S)
    assert launched[0].returncode == 0, output
    (episode,) = json.loads((tmp_path / "episodes.json").read_text())
    sim = make_simulator("reach", task)
    alone = rollout(sim, load_policy("tgpo_arm", sim.embodiment, task), 0, episode_seed(seed, 0))
    sim.close()
    assert episode["success"] and episode["steps"] == alone.ticks == 64
    assert episode["reason"] == alone.outcome.reason
    assert episode["policy_node"]["plan_step"] == 64


@pytest.mark.parametrize("clock", ["", "/clock"])
def test_a_recorder_hears_the_clock_of_a_simulator_in_its_namespace(domain, launched, clock):
    """Both as bring-up starts them: one of its own by default, the absolute one if told so."""
    where = {"namespace": "left", "clock": clock}
    simulator = build("sim", {"cameras": "none"} | where).nodes[0]
    robot = {"embodiment": str(EMBODIMENT), "use_sim_time": "true"}
    gate = build("record", robot | where).nodes[0]
    environment = child_environment(defaults(local=True) | {"ROS_DOMAIN_ID": str(domain)})
    launched.append(subprocess.Popen(command_of(simulator, "left"), env=environment))
    done = subprocess.run(
        command_of(gate, "left"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0 and "clock is running" in done.stderr + done.stdout


def test_a_dead_policy_ends_the_graph_with_its_name(domain, tmp_path, launched):
    process = launch(domain, f"out:={tmp_path}")
    launched.append(process)
    deadline_s = time.monotonic() + DEADLINE_S
    while "policy_node is active" not in process.stdout.readline():
        assert time.monotonic() < deadline_s
    time.sleep(1.0)
    os.kill(policy_of(process.pid), signal.SIGKILL)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "required node policy_node ended with signal SIGKILL" in output, output


def policy_of(parent: int) -> int:
    """Process id of the policy node among the runner's children."""
    found = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", "embodied_rl.nodes.policy_node"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout.split()[0])


def test_names_what_is_valid(domain):
    for argument, valid in (
        ("task:=replace_objekt", "replace_object"),
        ("policy:=no_such_model", "expert"),
        ("epsodes:=3", "episodes"),
    ):
        process = launch(domain, argument)
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 2
        assert valid in output and len(output.strip().splitlines()) == 1, output
