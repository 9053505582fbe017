"""A plan in temporal logic on the simulated base: launched, instructed, killed and taken up."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from embodied_rl.bringup.environment import share_file
from embodied_rl.core.plan import PlanRecord
from embodied_rl.core.policy import episode_seed
from embodied_rl.nodes import qos
from embodied_rl.policies.registry import load_policy
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout

from .test_launch import DEADLINE_S, launch

ROBOT = share_file("sim_worlds/arena/diff_drive.yaml")
TASK, MODEL = "patrol_two_goals", "tgpo_unicycle"


def test_a_launch_drives_an_episode_and_leaves_its_picture(domain, tmp_path):
    """Over topics as in one process, to the last digit of the robustness."""
    process = launch(
        domain, "world:=arena", "policy:=tgpo", f"spec:={TASK}", "episodes:=1", f"out:={tmp_path}"
    )
    try:
        output, _ = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    (episode,) = json.loads((tmp_path / "episodes.json").read_text())
    sim = make_simulator("arena", TASK)
    policy = load_policy(MODEL, sim.embodiment, TASK)
    alone = rollout(sim, policy, 0, episode_seed(0, 0))
    sim.close()
    assert episode["steps"] == alone.ticks == 320
    assert episode["reason"] == alone.outcome.reason
    assert episode["policy_node"]["plan_step"] == 64
    picture = tmp_path / "episode_000000.png"
    assert f"picture: {picture}" in output, output
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def driving(probe, processes, tmp_path):
    """The base on its way in real time; gives the plans that the policy shows."""
    common = {"embodiment": ROBOT, "use_sim_time": True}
    processes.start("sim_node", mode="realtime", world="arena", task=TASK)
    clock = probe.collect(Clock, "/clock")
    probe.until(lambda: clock, "clock")
    processes.start("command_gate_node", mode="realtime", **common)
    start_policy(processes, tmp_path)
    shown: list[PlanRecord] = []
    probe.node.create_subscription(
        String,
        "policy/plan",
        lambda message: shown.append(PlanRecord.from_yaml(message.data, "policy/plan")),
        qos.LATCHED,
    )
    probe.activate_policy()
    probe.reset_simulator()
    probe.until(lambda: shown and shown[-1].step >= 2, "plan")
    return shown


def start_policy(processes, folder) -> subprocess.Popen:
    return processes.start(
        "policy_node",
        mode="realtime",
        embodiment=ROBOT,
        use_sim_time=True,
        policy=MODEL,
        task=TASK,
        memory_path=folder / "memory",
    )


def instruct(probe, text: str) -> None:
    publisher = probe.node.create_publisher(String, "instruction", qos.LATCHED)
    probe.until(publisher.get_subscription_count, "policy")
    publisher.publish(String(data=text))


def pause(probe, paused: bool) -> bool:
    return probe.call(SetBool, "sim/pause", SetBool.Request(data=paused)).success


def policy_lines(states) -> list[str]:
    return [s.message for _, a in states for s in a.status if s.name == "policy_node"]


def test_a_new_formula_is_driven_and_a_bad_one_changes_nothing(driving, probe, processes, tmp_path):
    processes.start("plan_view_node", embodiment=ROBOT, use_sim_time=True, out=tmp_path)
    markers = probe.collect(MarkerArray, "stl/markers", qos.LATCHED)
    old = driving[-1]
    assert {item.region for item in old.subgoals} == {"A", "B"} and old.task == TASK
    formula = "F[2,25] B and G[0,30] not O1"
    instruct(probe, formula)
    probe.until(lambda: driving[-1].formula == formula, "plan for the new formula")
    new = next(plan for plan in driving if plan.formula == formula)
    assert new.step == 0 and new.start_ns > old.start_ns, "a clock of its own"
    assert [item.region for item in new.subgoals] == ["B"]
    states = probe.collect(DiagnosticArray, "/diagnostics")
    instruct(probe, "F[2,99] B")
    said = "instruction refused: instruction: formula: expected a horizon of at most 32 s, saw 99 s"
    probe.until(
        lambda: any(said in line for line in policy_lines(states)), "refusal with its reason"
    )
    step = driving[-1].step
    probe.until(lambda: driving[-1].step >= step + 2, "the plan to go on")
    assert driving[-1].formula == formula and driving[-1].start_ns == new.start_ns
    probe.until(lambda: markers, "markers")
    texts = [m.text for m in markers[-1][1].markers if m.ns == "times"]
    assert any(text.startswith("B ") for text in texts) and "O1" in texts


def test_a_killed_policy_goes_on_from_its_saved_memory(driving, probe, processes, tmp_path):
    formula = "F[2,30] B"
    instruct(probe, formula)
    probe.until(lambda: driving[-1].formula == formula and driving[-1].step >= 2, "new formula")
    saved = probe.call(Trigger, "policy_node/save_memory")
    assert saved.success, saved.message
    before = driving[-1]
    processes.kill("policy_node")
    # The formula's time must not run out while this machine starts a process: the clock stands.
    assert pause(probe, True)
    # A dead process is known by the end of its lease; until then its services seem to be there.
    probe.until(lambda: "policy_node" not in probe.node.get_node_names(), "end of the lease")
    driving.clear()
    start_policy(processes, tmp_path)
    assert probe.change(Transition.TRANSITION_CONFIGURE)
    assert pause(probe, False)
    probe.until(lambda: probe.change(Transition.TRANSITION_ACTIVATE), "activation")
    loaded = probe.call(Trigger, "policy_node/load_memory")
    assert loaded.success, loaded.message
    probe.until(lambda: driving and driving[-1].start_ns == before.start_ns, "the plan of before")
    assert driving[-1].formula == formula and driving[-1].step >= before.step
    items = [(item.region, item.first) for item in driving[-1].subgoals]
    if not driving[-1].replanned:
        assert items == [(item.region, item.first) for item in before.subgoals]
    assert yaml.safe_load(probe.call(Trigger, "policy_node/episode_report").message)["plan_step"]
