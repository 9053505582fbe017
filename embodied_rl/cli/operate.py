"""What ``embodied_rl stop``, ``record`` and ``status`` share: asking a running graph for something.

Only nodes speak ROS, so a small one is run for each request, in this terminal.
"""

from __future__ import annotations

import subprocess
import sys

from embodied_rl.bringup.environment import child_environment, defaults, require_ros

NO_GRAPH = "is the graph running"  # part of what it says when it finds nobody


def ask(word: str, namespace: str, timeout_s: float) -> int:
    """Runs the operator's node; returns its exit code.

    A graph of a robot speaks on the network, a simulation on this machine only: they are looked
    for in that order.
    """
    require_ros()
    command = [sys.executable, "-m", "embodied_rl.nodes.operator_node", "--ros-args"]
    command += ["-p", f"ask:={word}", "-p", f"timeout_s:={timeout_s}"]
    command += ["--log-level", "error"]
    if namespace.strip("/"):
        command += ["-r", f"__ns:=/{namespace.strip('/')}"]
    for local in (False, True):
        environment = child_environment(defaults(local=local))
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0 or local or NO_GRAPH not in done.stderr:
            break
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        reason = lines[-1].split("]: ", 1)[-1] if lines else "no message"
        print(f"error: {reason}", file=sys.stderr)
    return 1 if done.returncode else 0
