"""How far the nodes of a graph can be heard."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embodied_rl.bringup.environment import child_environment, defaults

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
FIRST_PORT = 7400  # of DDS: 250 a domain from here on
ANYWHERE, LOOPBACK = "00000000", "0100007F"


def listening(pid: int, domain: int) -> set[str]:
    """Addresses, as /proc writes them, at which a process hears DDS."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(descriptor))
        except OSError:  # closed meanwhile
            continue
    first, found = FIRST_PORT + 250 * domain, set()
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        if f"socket:[{fields[9]}]" in sockets and first <= int(port, 16) < first + 250:
            found.add(address)
    return found


@pytest.mark.parametrize("local, expected", [(True, {LOOPBACK}), (False, {ANYWHERE})])
def test_a_local_graph_hears_the_loopback_interface_only(domain, monkeypatch, local, expected):
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    environment = child_environment(defaults(local) | {"ROS_DOMAIN_ID": str(domain)})
    code = "import rclpy, time; rclpy.init(); node = rclpy.create_node('a'); print(flush=True); "
    node = subprocess.Popen(
        [sys.executable, "-c", code + "time.sleep(60)"], env=environment, stdout=subprocess.PIPE
    )
    try:
        node.stdout.readline()
        deadline_s = time.monotonic() + 10
        while not (found := listening(node.pid, domain)) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    finally:
        node.kill()
        node.wait()
    assert found == expected
