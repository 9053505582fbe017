"""Is every emergency stop accepted by a controller, and how far does the arm travel after it?

A stand-in robot with the acceptance rules of ``joint_trajectory_controller`` follows a scripted
policy through the command gate, over real topics. Stops come at random moments of the control
period; commands take up to a whole period on their way, and the robot's clock is up to 0.19 s
ahead of or behind the gate's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
import yaml
from _fault_graph import ARM, Graph, ScriptedPolicy, unsafe
from _report import report

from embodied_rl.bringup.environment import share_file

RATES_HZ = (10, 30, 50, 100)
OFFSETS_S = (-0.19, -0.1, 0.0, 0.1, 0.19)
JUDGED = 20  # stops between two looks at what was sent; a graph remembers minutes, not hours
SERVO_S = 0.15  # the joint comes to rest so long after its set point does, with a busy machine


@dataclass(frozen=True)
class Stopped:
    """One stop. ``travel`` is the farthest of a joint after it, in units of what its fastest motion
    covers until the stop can be there and the servo is at rest."""

    refused: int  # commands, by the controller
    rests: bool  # at the end
    travel: float

    @property
    def accepted(self) -> bool:
        return self.refused == 0 and self.rests


def robot(rate_hz: int) -> str:
    data = yaml.safe_load(share_file(ARM).read_text(encoding="utf-8"))
    data["control_rate_hz"] = rate_hz
    return yaml.safe_dump(data, sort_keys=False)


def measure(rate_hz: int, count: int, rng: np.random.Generator) -> tuple[list[Stopped], int]:
    """``count`` stops at a control rate, spread over the clock offsets, and how many messages were
    unsafe."""
    graph = Graph(ARM, robot(rate_hz))
    policy = ScriptedPolicy(graph)
    policy.start()
    found, wrong, judged_s = [], 0, time.monotonic()
    try:
        for number in range(count):
            if number % max(count // len(OFFSETS_S), 1) == 0:
                place = min(number * len(OFFSETS_S) // count, len(OFFSETS_S) - 1)
                graph.faults(clock_offset_s=OFFSETS_S[place], command_delay_s=1 / rate_hz)
                time.sleep(0.5)
            found.append(_one(graph, rate_hz, rng))
            if not found[-1].accepted:
                print(f"{rate_hz} Hz, stop {number}: {found[-1]}", flush=True)
            if number % JUDGED == JUDGED - 1 or number == count - 1:
                now_s = time.monotonic()
                lines = unsafe(graph, judged_s, now_s)
                for line in lines[: max(5 - wrong, 0)]:
                    print(f"{rate_hz} Hz, stop {number}: {line}", flush=True)
                wrong, judged_s = wrong + len(lines), now_s
        return found, wrong
    finally:
        policy.end()
        graph.close()


def _one(graph: Graph, rate_hz: int, rng: np.random.Generator) -> Stopped:
    graph.until(graph.following, "motion before a stop", 20)
    time.sleep(0.05 + rng.uniform(0.0, 2.0 / rate_hz))
    before = graph.refused
    graph.emergency_stop(True)
    graph.until(lambda: not graph.following(), "hold", 5)
    heard_s = time.monotonic()  # the stop itself took its way to the gate
    at_stop = graph.truth[-1][1]
    settles_s = 2 / rate_hz + SERVO_S  # the way of the stop, its point, and the servo
    time.sleep(settles_s)
    states = np.array([state for at, state in list(graph.truth) if at >= heard_s])
    refused = graph.refused - before
    rate = graph.embodiment.limits()[2]
    moved = np.abs(states - at_stop).max(axis=0) if len(states) else np.zeros(len(rate))
    travel = float(np.max(moved / (rate * settles_s)))
    rests = len(states) < 2 or bool(np.all(np.ptp(states[-3:], axis=0) < 0.02))
    graph.emergency_stop(False)
    graph.until(graph.following, "motion after the release", 10)
    return Stopped(refused, rests, travel)


@dataclass
class Options:
    """Stop a moving arm again and again, at 10, 30, 50 and 100 Hz"""

    stops: int = 1000
    """stops at each control rate"""
    json: Path | None = None
    """write the figures to this file"""


def main(argv: list[str]) -> int:
    options = tyro.cli(Options, args=argv, prog="embodied_rl bench stops")
    figures: dict[str, float] = {}
    targets = {}
    for rate_hz in RATES_HZ:
        stops, wrong = measure(rate_hz, options.stops, np.random.default_rng(rate_hz))
        name = f"{rate_hz} Hz"
        figures[f"accepted, {name}"] = float(np.mean([stop.accepted for stop in stops]))
        figures[f"travel over what the limits need, most, {name}"] = max(s.travel for s in stops)
        figures[f"unsafe messages, {name}"] = float(wrong)
        targets[f"accepted, {name}"] = (">=", 1.0)
        targets[f"travel over what the limits need, most, {name}"] = ("<=", 1.0)
        targets[f"unsafe messages, {name}"] = ("<=", 0.0)
        print({key: value for key, value in figures.items() if key.endswith(name)}, flush=True)
    return report("stops", figures, targets, options.json)


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
