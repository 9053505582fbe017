"""The gate node against real processes: clock, activation, refusal, deadline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from embodied_rl.bringup.environment import child_environment, defaults, private_domain

pytest.importorskip("rclpy")
FAKE = str(Path(__file__).with_name("fake_lifecycle.py"))


@pytest.fixture
def environment() -> dict[str, str]:
    return child_environment(
        defaults(local=True)
        | {
            "ROS_DOMAIN_ID": str(private_domain()),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        }
    )


@pytest.fixture
def fakes(environment):
    running: list[subprocess.Popen] = []

    def start(kind: str) -> subprocess.Popen:
        command = [sys.executable, FAKE, kind]
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate(timeout=10)


def gate(environment: dict[str, str], **parameters: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "embodied_rl.nodes.lifecycle_node", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_waits_for_the_clock_and_activates(environment, fakes):
    fakes("clock")
    node = fakes("good")
    done = gate(environment, target="policy_node", use_sim_time="true", timeout_s=20.0)
    assert done.returncode == 0, done.stderr
    assert "policy_node is active" in done.stderr + done.stdout
    assert node.stdout.readline() == "activated\n"
    # a second bring-up finds it active and is content
    assert gate(environment, target="policy_node", timeout_s=20.0).returncode == 0


def test_a_refusal_is_named(environment, fakes):
    fakes("refuses")
    done = gate(environment, target="policy_node", timeout_s=20.0)
    assert done.returncode == 1
    assert "policy_node refused to configure" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"use_sim_time": "true"}, "is the simulator running? no message on /clock within 1 s"),
        (
            {"target": "policy_node"},
            "is policy_node a lifecycle node, and running?",
        ),
    ],
)
def test_deadlines_pass_without_a_clock(environment, parameters, said):
    done = gate(environment, timeout_s=1.0, **parameters)
    assert done.returncode == 1
    assert said in done.stderr + done.stdout
