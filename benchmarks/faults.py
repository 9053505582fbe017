"""Faults injected into a running graph: is anything unsafe sent, how soon does the robot hold, and
does it go on by itself when the fault goes away?

A stand-in robot, the command gate and a scripted policy run as they would on a robot, in real time
over real topics. A watcher reads every actuator message and judges it by the limits of the
embodiment file alone (:func:`_fault_graph.unsafe`). ``--only WORD`` runs the faults whose name
holds the word.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _fault_cases import FAULTS, Fault
from _fault_graph import ARM, BASE, Graph, ScriptedPolicy, unsafe
from _report import report
from rich.console import Console
from rich.table import Table

SETTLE_S = 0.7  # of sound motion before a fault
HOLD_WITHIN_S = 3.0
RECOVER_WITHIN_S = 12.0  # after joints that did not follow the gate waits for up to ten


@dataclass(frozen=True)
class Verdict:
    fault: Fault
    unsafe: list[str]
    hold_periods: float  # from the fault to the hold; nan where there was none
    recovered: bool
    said: bool
    why: str  # the gate's own word for the hold

    @property
    def good(self) -> bool:
        sound = not self.unsafe and self.recovered and self.said
        if self.fault.leads_to == "any":
            return sound
        return sound and bool(np.isfinite(self.hold_periods)) == (self.fault.leads_to != "ride")


def run(graph: Graph, policy: ScriptedPolicy, fault: Fault) -> Verdict:
    """Sound motion, the fault, and what comes of it."""
    graph.until(graph.following, "sound motion before the fault", 20)
    time.sleep(SETTLE_S)
    graph.until(graph.following, "sound motion before the fault", 20)
    log_before, begun_s = len(graph.log("command_gate_node")), time.monotonic()
    counted_s = fault.begin(graph, policy)
    if isinstance(counted_s, float):  # it took a while to bring about
        begun_s = counted_s
    said = [graph.state()]
    waits_s = HOLD_WITHIN_S if fault.leads_to in ("hold", "stop") else 0.0
    waits_s += fault.notice_periods * graph.embodiment.period_ns / 1e9
    while (passed_s := time.monotonic() - begun_s) < max(waits_s, fault.lasts_s):
        if passed_s > fault.lasts_s and _first_hold(graph, begun_s):
            break
        said += [graph.state(), graph.last_error()]
        time.sleep(0.01)
    held_s = _first_hold(graph, begun_s)
    at_rest = _rests(graph, begun_s)
    fault.end(graph, policy)
    recovered = _goes_on(graph, time.monotonic())
    time.sleep(0.2)
    log = graph.log("command_gate_node")[log_before:]
    said += [graph.state(), graph.last_error(), log]
    periods = (held_s - begun_s) * 1e9 / graph.embodiment.period_ns if held_s else float("nan")
    if fault.leads_to == "gone":
        periods = 0.0 if at_rest else float("inf")
    why = [line.split("]: ", 1)[-1] for line in log.splitlines() if "[WARN]" in line]
    return Verdict(
        fault,
        unsafe(graph, begun_s, time.monotonic()),
        max(periods - fault.notice_periods, 0.0) if periods == periods else periods,
        recovered,
        any(fault.says in text for text in said),
        (why or [""])[0],
    )


def _first_hold(graph: Graph, since_s: float) -> float:
    """When the gate first said that it holds; 0 if it has not."""
    holds = [at for at, m in list(graph.executed) if at > since_s and len(m.points) == 1]
    return holds[0] if holds else 0.0


def _rests(graph: Graph, since_s: float) -> bool:
    """Whether a robot without a gate has come to rest: nothing is sent far ahead."""
    last = np.array([state for at, state in list(graph.truth) if at > since_s + 0.7])
    return bool(len(last)) and bool(np.all(np.ptp(last, axis=0) < 0.02))


def _goes_on(graph: Graph, since_s: float) -> bool:
    """Whether the policy is obeyed again, without a restart."""
    try:
        graph.until(
            lambda: any(at > since_s and len(m.points) > 1 for at, m in list(graph.executed)),
            "motion after the fault",
            RECOVER_WITHIN_S,
        )
    except TimeoutError:
        return False
    return True


@contextmanager
def running(robot: str) -> Iterator[tuple[Graph, ScriptedPolicy]]:
    graph = Graph(robot)
    policy = ScriptedPolicy(graph)
    policy.start()
    try:
        yield graph, policy
    finally:
        policy.end()
        graph.close()


@dataclass
class Options:
    """Inject every fault into a running graph and judge what the actuators are told."""

    only: str = ""
    """run the faults whose name holds this word"""
    json: Path | None = None
    """write the figures and the verdict of every fault to this file"""


def main(argv: list[str]) -> int:
    options = tyro.cli(Options, args=argv, prog="embodied_rl bench faults")
    verdicts: list[Verdict] = []
    for robot in (ARM, BASE):
        chosen = [f for f in FAULTS if f.robot == robot and options.only in f.name]
        while chosen:
            with running(robot) as (graph, policy):
                chosen = _some(graph, policy, chosen, verdicts)
    _show(verdicts)
    holds = [v.hold_periods for v in verdicts if v.fault.leads_to in ("hold", "stop")]
    holds = [float("inf") if periods != periods else periods for periods in holds]
    figures = {
        "faults": float(len(verdicts)),
        "unsafe commands": float(sum(len(v.unsafe) for v in verdicts)),
        "periods to the hold, most": float(np.max(holds, initial=0.0)),
        "share as it should be": float(np.mean([v.good for v in verdicts])),
    }
    targets = {
        "unsafe commands": ("<=", 0.0),
        "periods to the hold, most": ("<=", 2.0),
        "share as it should be": (">=", 1.0),
    }
    series = {
        f"{v.fault.name} ({_robot(v.fault)})": {
            "unsafe": v.unsafe[:5],
            "hold_periods": v.hold_periods if np.isfinite(v.hold_periods) else None,
            "recovered": v.recovered,
            "said": v.said,
            "good": v.good,
            "why": v.why,
        }
        for v in verdicts
    }
    return report("faults", figures, targets, options.json, series)


def _some(
    graph: Graph, policy: ScriptedPolicy, faults: list[Fault], verdicts: list[Verdict]
) -> list[Fault]:
    """Runs one fault after the other; what is left when the graph did not survive one."""
    for number, fault in enumerate(faults):
        print(f"  {_robot(fault):4} {fault.name}", flush=True)
        try:
            verdicts.append(run(graph, policy, fault))
        except TimeoutError as error:
            verdicts.append(Verdict(fault, [str(error)], float("nan"), False, False, ""))
        if not verdicts[-1].recovered:  # the next one begins with a graph of its own
            return faults[number + 1 :]
    return []


def _robot(fault: Fault) -> str:
    return "arm" if fault.robot == ARM else "base"


def _show(verdicts: list[Verdict]) -> None:
    table = Table(title="faults", title_justify="left")
    for column in ("robot", "fault", "should", "unsafe", "hold", "goes on", "said", "", "why"):
        table.add_column(column)
    for v in verdicts:
        hold = f"{v.hold_periods:.1f}" if np.isfinite(v.hold_periods) else "-"
        mark = "[green]ok[/]" if v.good else "[red]BAD[/]"
        words = [str(len(v.unsafe)), hold, *("yes" if x else "no" for x in (v.recovered, v.said))]
        table.add_row(_robot(v.fault), v.fault.name, v.fault.leads_to, *words, mark, v.why)
    Console(width=max(Console().width, 150)).print(table)
    for v in verdicts:
        for line in v.unsafe[:3]:
            print(f"{v.fault.name}: {line}")


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
