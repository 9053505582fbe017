"""An hour of the whole graph on the wall clock, recording: do memory and latency stay flat, and is
anything lost? Ctrl-C ends it early and reports what there is.

The simulator, the shipped diffusion policy, the command gate and the recorder run as
``embodied_rl launch sim mode:=realtime record:=true`` starts them. Resident memory of every
process, the policy node's latency and what the recorder lost are sampled every ten seconds. Memory
is compared between the second tenth of the time after the start-up and the last one, by medians.
Complete bags are checked for their number of messages and removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from _report import report

from embodied_rl.bringup.environment import (
    child_environment,
    defaults,
    private_domain,
    require_ros,
)
from embodied_rl.core.errors import UserError
from embodied_rl.core.parent import die_with_starter

EVERY_S = 10.0
START_UP_MIN = 5.0  # not counted
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Samples:
    """What was seen over time; times are minutes from the start."""

    minutes: list[float] = field(default_factory=list)
    memory_mb: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    latency_ms: list[float] = field(default_factory=list)
    lost: int = 0
    refused: int = 0
    holds: int = 0
    episodes: int = 0


class Watcher:
    """Listens to ``/diagnostics`` of the graph."""

    def __init__(self, domain: int):
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        node = Node("soak_watcher", context=self.context)
        self.figures: dict[str, dict[str, str]] = {}
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 100)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(node)

    def _on_report(self, array) -> None:
        for status in array.status:
            self.figures[status.name] = {item.key: item.value for item in status.values}

    def spin(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._executor.spin_once(timeout_sec=0.1)

    def number(self, node: str, key: str) -> float:
        try:
            return float(self.figures.get(node, {}).get(key, "nan"))
        except ValueError:
            return float("nan")


def nodes_of(graph: subprocess.Popen) -> dict[str, int]:
    """Node -> process id of the graph's children."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        modules = [w.decode() for w in words if w.startswith(b"embodied_rl.nodes.")]
        if modules and parent == graph.pid:
            found[modules[0].rsplit(".", 1)[1]] = int(folder.name)
    return found


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20


def take(samples: Samples, watcher: Watcher, graph: subprocess.Popen, begun_s: float) -> None:
    samples.minutes.append((time.monotonic() - begun_s) / 60)
    for name, pid in nodes_of(graph).items():
        samples.memory_mb[name].append(resident_mb(pid))
    samples.latency_ms.append(watcher.number("policy_node", "latency_p95_ms"))
    for name, key in (("lost", "lost"), ("refused", "refused_commands"), ("holds", "holds")):
        node = {"lost": "recorder_node", "refused": "sim_node", "holds": "command_gate_node"}[name]
        seen = watcher.number(node, key)
        if seen == seen:
            setattr(samples, name, max(getattr(samples, name), int(seen)))


def clear_bags(folder: Path, samples: Samples) -> None:
    """Count the complete bags and make room; the newest one stays."""
    bags = sorted(path for path in folder.glob("episode_??????") if path.is_dir())
    for bag in bags[:-1]:
        samples.episodes += 1
        shutil.rmtree(bag)


def soak(minutes: float) -> Samples:
    """Runs the graph for so long.

    Raises:
        UserError: it ended by itself; with the end of its log.
    """
    require_ros()
    os.environ.update(defaults(local=True))
    domain = private_domain()
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="soak_") as name:
        folder = Path(name)
        log = open(folder / "graph.log", "w")  # noqa: SIM115 - lives with the graph
        graph = subprocess.Popen(
            [sys.executable, "-m", "embodied_rl.cli.main", "launch", "sim", "mode:=realtime"]
            + ["policy:=ptp_replace_object", "cameras:=fixed", "record:=true", f"out:={folder}"],
            env=child_environment({"ROS_DOMAIN_ID": str(domain)}),
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_starter(),
        )
        watcher, begun_s = Watcher(domain), time.monotonic()
        try:
            while time.monotonic() - begun_s < minutes * 60:
                watcher.spin(EVERY_S)
                if graph.poll() is not None:
                    end = (folder / "graph.log").read_text(encoding="utf-8")[-500:]
                    raise UserError(f"the graph ended with {graph.returncode}: {end}")
                take(samples, watcher, graph, begun_s)
                clear_bags(folder, samples)
        except KeyboardInterrupt:
            print(f"interrupted after {samples.minutes[-1]:.0f} minutes", flush=True)
        finally:
            graph.send_signal(signal.SIGINT)
            graph.wait(timeout=60)
    return samples


def growth(values: list[float], minutes: list[float]) -> float:
    """Relative change from the first fifth after the start-up to the last fifth, by medians."""
    times = np.array(minutes[-len(values) :])
    kept = np.array(values)[times >= min(START_UP_MIN, times[-1] / 2)]
    fifth = max(len(kept) // 5, 1)
    return float(np.median(kept[-fifth:]) / np.median(kept[:fifth]) - 1)


@dataclass
class Options:
    """Run the whole graph in real time for a long while and look for growth and losses"""

    minutes: float = 60.0
    """how long; 5 minutes of start-up are not counted"""
    json: Path | None = None
    """write the figures and the samples to this file"""


def main(argv: list[str]) -> int:
    options = tyro.cli(Options, args=argv, prog="embodied_rl bench soak")
    samples = soak(options.minutes)
    long_lived = {k: v for k, v in samples.memory_mb.items() if len(v) > len(samples.minutes) // 2}
    latencies = [value for value in samples.latency_ms if value == value]
    figures = {
        "minutes": samples.minutes[-1],
        "episodes": float(samples.episodes),
        **{
            f"memory growth of {name}": growth(values, samples.minutes)
            for name, values in sorted(long_lived.items())
        },
        "latency p95 in the end, ms": float(np.median(latencies[-len(latencies) // 5 :])),
        "latency p95, growth": growth(latencies, samples.minutes),
        "messages lost": float(samples.lost),
        "commands refused by the robot": float(samples.refused),
    }
    targets = {name: ("<=", 0.01) for name in figures if name.startswith("memory growth")}
    targets |= {"latency p95, growth": ("<=", 0.1), "messages lost": ("<=", 0.0)}
    series = {
        "minutes": np.round(samples.minutes, 2).tolist(),
        "latency_p95_ms": samples.latency_ms,
        **{f"{name}_mb": np.round(values, 1).tolist() for name, values in long_lived.items()},
    }
    return report("soak", figures, targets, options.json, series)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
