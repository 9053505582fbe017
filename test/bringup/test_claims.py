"""One launch a name and domain on a machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from embodied_rl.bringup import claims
from embodied_rl.bringup.spec import Graph, NodeSpec, Role
from embodied_rl.core.errors import UserError

CLAIM = """
import sys, time
from embodied_rl.bringup.claims import claim
from embodied_rl.bringup.spec import Graph, NodeSpec, Role

namespace, *names = sys.argv[1:]
claim(Graph("test", tuple(NodeSpec(name, name, 0) for name in names), namespace))
print("claimed", flush=True)
time.sleep(60)
"""


def graph(*names: str, namespace: str = "", role: Role = Role.REQUIRED) -> Graph:
    return Graph("test", tuple(NodeSpec(name, name, 0, role=role) for name in names), namespace)


@pytest.fixture
def other(monkeypatch, tmp_path):
    """Another launch with a gate and a policy, in a domain and with locks of the test's own."""
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(claims.tempfile, "tempdir", None)
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, "", "gate", "policy"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_launch_is_told_about_the_first(other):
    with pytest.raises(UserError) as caught:
        claims.claim(graph("recorder", "policy"))
    line = str(caught.value)
    for part in ("policy runs already in ROS domain 7", f"process {other.pid}", "namespace:=..."):
        assert part in line
    claims.claim(graph("recorder"))  # a refused launch keeps nothing


def test_another_domain_a_namespace_and_other_names_are_free(other, monkeypatch):
    claims.claim(graph("gate", "policy", namespace="left"))
    claims.claim(graph("recorder"))
    claims.claim(graph("gate", role=Role.GATE))
    monkeypatch.setenv("ROS_DOMAIN_ID", "8")
    claims.claim(graph("gate", "policy"))


def test_a_killed_launch_leaves_nothing_behind(other):
    other.kill()
    other.wait()
    claims.claim(graph("gate", "policy"))
