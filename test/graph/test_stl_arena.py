"""A task of temporal logic driven and watched: the monitor's robustness is what the simulator's
judge finds, its events are those of the bag, and a formula given on the way is watched from then
on."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray, String

import embodied_rl.cli.main as cli
from embodied_rl.bringup.environment import share_file
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.plan import PlanRecord
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.core.window import Sample
from embodied_rl.nodes import qos
from embodied_rl.nodes.messages import encode_topic
from embodied_rl.sim.stl_tasks.task import load_task

TASK = "unicycle_02"
MS = 1_000_000
POLICY = share_file("models/tgpo_unicycle/config.yaml").parent
COMMON = {"embodiment": share_file("sim_worlds/arena/diff_drive.yaml"), "use_sim_time": True}
ODOMETRY_NOISE_M = 0.02  # the judge sees where the robot is, the monitor what its odometry says


@pytest.fixture
def arena(processes, probe, tmp_path):
    """All nodes but the conductor; gives the events as they come."""
    processes.start("sim_node", world="arena", task=TASK, mode="lockstep", cameras="none")
    clock = probe.collect(Clock, "/clock")
    probe.until(lambda: clock, "clock")
    processes.start("command_gate_node", mode="lockstep", **COMMON)
    processes.start("policy_node", policy=POLICY, task=TASK, mode="lockstep", **COMMON)
    processes.start("recorder_node", out=tmp_path / "run", **COMMON)
    processes.start("stl_monitor_node", spec=TASK, **COMMON)
    probe.activate_policy()
    return probe.collect(String, "stl_monitor_node/events", qos.latched(100))


def conduct(processes, probe, folder):
    return processes.start("episode_node", episodes=1, record=True, monitor=True, out=folder)


def ended(conductor, probe, processes) -> None:
    probe.until(lambda: conductor.poll() is not None, "end of the episode", 90)
    assert conductor.returncode == 0, processes.log("episode_node")


def test_the_monitor_agrees_with_the_judge_and_with_the_bag(arena, processes, probe, tmp_path):
    readings = probe.collect(Float64MultiArray, "stl_monitor_node/robustness", qos.reliable(100))
    outcomes = probe.collect(String, "episode/outcome", qos.LATCHED)
    ended(conduct(processes, probe, tmp_path / "run"), probe, processes)
    outcome = Outcome.from_yaml(outcomes[-1][1].data, "episode/outcome")
    true_m = float(outcome.reason.split("robustness ")[1].split()[0])
    check = ["stl", "check", str(tmp_path / "run" / "episode_000000"), "--spec", TASK]
    events = tmp_path / "events.jsonl"
    assert cli.main([*check, "--events", str(events)]) == (0 if true_m > 0 else 1)
    recorded = events.read_text()

    def live() -> str:
        return "".join(message.data + "\n" for _, message in arena)

    probe.until(lambda: live() == recorded, "the events of the bag", 20)
    assert json.loads(recorded.splitlines()[-1])["event"] in ("satisfied", "violated")
    anchor_s, low, high = readings[-1][1].data[:3]
    assert low == high == pytest.approx(true_m, abs=ODOMETRY_NOISE_M)
    assert math.isnan(readings[-1][1].data[3]), "a finished formula has no prediction"


def test_a_formula_given_on_the_way_is_watched_from_then_on(arena, processes, probe, tmp_path):
    starts = probe.collect(String, "episode/start", qos.LATCHED)
    plans = probe.collect(String, "policy/plan", qos.LATCHED)
    instruction = probe.node.create_publisher(String, "instruction", qos.LATCHED)
    conductor = conduct(processes, probe, tmp_path / "run")
    probe.until(lambda: plans, "first plan")
    text = "F[0,16] A and G[0,16] not O1"
    instruction.publish(String(data=text))

    def of_new() -> list[dict]:
        found = [json.loads(message.data) for _, message in arena]
        return [event for event in found if event["spec"] != TASK]

    probe.until(lambda: of_new(), "reset for the new formula")
    probe.until(lambda: [e for e in of_new() if "anchor_ns" in e], "verdict on the new formula")
    plan = next(p for p in (yaml.safe_load(m.data) for _, m in plans) if p["formula"] == text)
    reset, *verdicts = of_new()
    assert reset["event"] == "reset" and reset["stamp_ns"] == plan["start_ns"]
    assert {event["anchor_ns"] for event in verdicts} == {plan["start_ns"]}
    start = EpisodeInfo.from_yaml(starts[-1][1].data, "episode/start").start_ns
    assert plan["start_ns"] > start
    ended(conductor, probe, processes)
    # the next episode is the simulator's task again
    reports = probe.collect(DiagnosticArray, "/diagnostics")
    probe.until(lambda: watched(reports) == "instruction", "name of the formula")
    probe.reset_simulator()
    probe.until(lambda: watched(reports) == TASK, "the task again")


def watched(reports: list) -> str:
    """The specification that the monitor's newest report names."""
    found = [
        value.value
        for _, array in reports
        for status in array.status
        if status.name == "stl_monitor_node"
        for value in status.values
        if value.key == "specification"
    ]
    return found[-1] if found else ""


def test_where_nobody_announces_episodes_the_plan_says_when_one_began(processes, probe):
    """As on a robot: positions and plans by hand, a formula of now, another one, and nonsense."""
    robot = Embodiment.load(COMMON["embodiment"])
    task = load_task(TASK)
    processes.start("stl_monitor_node", spec=TASK, **COMMON)
    readings = probe.collect(Float64MultiArray, "stl_monitor_node/robustness", qos.reliable(100))
    reports = probe.collect(DiagnosticArray, "/diagnostics")
    odometry = probe.node.create_publisher(Odometry, "odom", qos.reliable(100))
    plans = probe.node.create_publisher(String, "policy/plan", qos.LATCHED)
    for publisher in (odometry, plans):
        probe.until(publisher.get_subscription_count, "monitor")
    probe.until(lambda: reports, "monitor's outputs")
    group = robot.topics()["odom"]

    def drive(first_ms: int, last_ms: int) -> None:
        for time_ms in range(first_ms, last_ms, 100):
            samples = {s.key: Sample(time_ms * MS, np.zeros(s.shape)) for s in group}
            samples["base_position"] = Sample(time_ms * MS, np.array([1.6, -0.3, 0.0]))
            odometry.publish(encode_topic(group, samples, "odom"))

    def plan(formula: str, start_ms: int) -> None:
        record = PlanRecord(
            TASK, formula, start_ms * MS, 0.5, 64, 0, 0.0, 0, False, 0.0, dict(task.regions), ()
        )
        plans.publish(String(data=yaml.safe_dump(record.as_mapping())))

    def anchors() -> list[float]:
        return [message.data[0] for _, message in readings]

    drive(1000, 2500)
    plan(task.text, 2000)
    drive(2500, 3500)
    probe.until(lambda: 2.0 in anchors(), "readings from the plan's start on")
    assert set(anchors()) == {2.0}
    plan("F[0,4] A", 3000)
    probe.until(lambda: 3.0 in anchors(), "readings of the other formula")
    low, high = readings[-1][1].data[1:3]
    assert 0.5 < low <= high == pytest.approx(task.regions["A"].radius)
    plan("F[0,4] Z", 3200)
    line = f"task {TASK}: expected names among the regions"
    probe.until(
        lambda: any(line in s.message for _, array in reports for s in array.status), "its name"
    )
    before = len(readings)
    drive(3500, 4500)
    probe.until(lambda: len(readings) > before, "readings after the refusal")
    assert anchors()[-1] == 3.0, "the old formula is watched"
