"""A policy that learns in context behind its node: trials, boundaries, and a memory that outlives
the process. The robot stands in a closet, so that all it can do is turn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.bringup.environment import share_file
from embodied_rl.core.checkpoint import unpack_memory
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.core.window import Sample
from embodied_rl.nodes import messages, qos
from embodied_rl.policies.registry import load_policy
from embodied_rl.policies.relic.config import RelicConfig
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.tokens import Tokens
from embodied_rl.sim.navigation.egocentric import STOP
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.training.publish import publish

ROBOT = share_file("sim_worlds/apartment/home_base.yaml")
CAMERA = ("camera_front_depth", "camera_front_segmentation")


@pytest.fixture
def model(tmp_path):
    """The folder of an untrained network that never stops."""
    world = make_trial_world("apartment")
    sizes = {
        "action_count": world.action_count, "horizon": world.horizon,
        "feature_count": world.feature_count, "cell_count": world.cell_count,
        "code_count": world.code_count, "previous_reward": False,
        "width": 16, "heads": 2, "layers": 2, "mlp": 32,
    }  # fmt: skip
    torch.manual_seed(0)
    network = RelicModel(RelicConfig(**sizes))
    with torch.no_grad():
        network.actor.weight.normal_()
        network.actor.bias[STOP] = -100.0
    folder = tmp_path / "model"
    publish(
        folder, policy="relic", name="relic_untrained", task="apartment", parts={"model": sizes},
        model=network, seed=0, data="none",
    )  # fmt: skip
    return folder


class ClosetRobot:
    """Publishes the streams of a base that turns as it is told, with walls all around it."""

    def __init__(self, probe):
        self.node, self.body = probe.node, Embodiment.load(ROBOT)
        self.silent: set[str] = set()
        self.yaw, self.rate = 0.0, 0.0
        self.chunks: list[JointTrajectory] = []
        self._publishers = {
            topic: self.node.create_publisher(messages.MESSAGE_CLASSES[group[0].type], topic, 20)
            for topic, group in self.body.topics().items()
            if topic != "camera/front/image_raw"
        }
        self.node.create_subscription(JointTrajectory, "policy/chunk", self._on_chunk, qos.COMMANDS)
        self._timers = [
            self.node.create_timer(1 / group[0].rate_hz, lambda topic=topic: self._publish(topic))
            for topic, group in self.body.topics().items()
            if topic in self._publishers
        ]

    def _on_chunk(self, message: JointTrajectory) -> None:
        self.chunks.append(message)
        self.rate = message.points[0].positions[1]

    def _publish(self, topic: str) -> None:
        if topic in self.silent:
            return
        if topic == "odom":
            self.yaw += self.rate / 20
        now_ns = self.node.get_clock().now().nanoseconds
        values = {
            "base_position": np.array([3.25, 3.25, 0.0]),
            "base_yaw": np.array([math.atan2(math.sin(self.yaw), math.cos(self.yaw))]),
            "base_linear_velocity": np.zeros(3),
            "base_angular_velocity": np.array([0.0, 0.0, self.rate]),
            "scan": np.full(360, 0.3, dtype=np.float32),
            CAMERA[0]: np.full((72, 128), 0.3, dtype=np.float32),
            CAMERA[1]: np.zeros((72, 128), dtype=np.uint16),
        }
        group = self.body.topics()[topic]
        samples = {stream.key: Sample(now_ns, values[stream.key]) for stream in group}
        message = messages.encode_topic(group, samples, "odom")
        self._publishers[topic].publish(message)


@pytest.fixture
def robot(probe):
    return ClosetRobot(probe)


def start_policy(processes, model, folder) -> None:
    processes.start(
        "policy_node",
        mode="realtime",
        embodiment=ROBOT,
        policy=model,
        memory_path=folder / "memory",
        policy_options="{context_steps: 500, device: cpu}",
    )


def report(probe) -> dict:
    return yaml.safe_load(probe.call(Trigger, "policy_node/episode_report").message)


def after_actions(probe, count: int) -> dict:
    """The report when the running episode has so many actions."""
    found: dict = {}

    def enough() -> bool:
        found.update(report(probe))
        return found["actions"] >= count

    probe.until(enough, f"{count} actions", 60)
    return found


@pytest.fixture
def searching(robot, probe, processes, model, tmp_path):
    """The node at work on its own, asked for the bell."""
    asked = probe.node.create_publisher(String, "instruction", qos.LATCHED)
    asked.publish(String(data="find the bell"))
    start_policy(processes, model, tmp_path)
    probe.activate_policy()
    return robot


def test_trials_of_a_robot_on_its_own_and_what_stops_it(searching, probe):
    first = after_actions(probe, 2)
    assert first["context_episodes"] == 1 and first["context_steps"] >= 2
    assert first["cache_bytes"] > 0 and first["step_ms"] > 0 and 0 < first["sink_mass"] < 1
    answer = probe.call(Trigger, "policy_node/next_episode")
    assert answer.success, answer.message
    info = EpisodeInfo.from_yaml(answer.message, "next_episode")
    assert (info.episode, info.instruction) == (1, "find the bell")
    second = after_actions(probe, 1)
    assert second["trial"] == first["trial"] == info.trial and second["episode"] == 1
    assert second["context_episodes"] == 2
    assert second["context_steps"] >= first["context_steps"] + 1
    assert probe.call(Trigger, "policy_node/reset_episode").success
    third = after_actions(probe, 1)
    assert third["trial"] == info.trial + 1 and third["episode"] == 0
    assert third["context_episodes"] == 1 and third["context_steps"] == third["actions"]

    fall_silent(searching, probe)
    conductor = probe.node.create_publisher(String, "episode/start", qos.LATCHED)
    now_ns = probe.node.get_clock().now().nanoseconds
    info = EpisodeInfo(3, 0, "find_object", "find the sofa", now_ns, 7)
    probe.until(lambda: conductor.get_subscription_count() > 0, "the policy")
    refused = probe.call(Trigger, "policy_node/next_episode")
    assert not refused.success
    assert refused.message == "probe announces the episodes on episode/start"
    # what it does not know it is told in the diagnostics, and stands still
    states = probe.collect(DiagnosticArray, "/diagnostics")
    conductor.publish(String(data=info.to_yaml()))
    said = "instruction refused: instruction: expected 'find the ' and one of lantern"
    probe.until(lambda: any(said in line for line in lines(states)), "the refusal")
    searching.chunks.clear()
    probe.until(lambda: len(searching.chunks) > 5, "chunks")
    values = [point.positions for chunk in searching.chunks[2:] for point in chunk.points]
    assert not np.any(values) and report(probe)["actions"] == 0


def fall_silent(robot, probe) -> None:
    """Without odometry the robot stops, and the node says why; with it, it goes on."""
    states = probe.collect(DiagnosticArray, "/diagnostics")
    robot.silent = {"odom"}
    said = "not acting: no sample of base_position, base_yaw, base_linear_velocity, base_angular_"
    probe.until(lambda: any(said in line for line in lines(states)), "the silence")
    robot.chunks.clear()
    before = report(probe)["actions"]
    assert report(probe)["actions"] == before and not robot.chunks
    robot.silent, robot.rate = set(), 0.0
    after_actions(probe, before + 1)


def lines(states) -> list[str]:
    return [s.message for _, a in states for s in a.status if s.name == "policy_node"]


def test_a_killed_policy_draws_the_next_action_that_it_would_have_drawn(
    searching, probe, processes, model, tmp_path
):
    after_actions(probe, 2)
    probe.call(Trigger, "policy_node/next_episode")
    after_actions(probe, 2)
    saved = probe.call(Trigger, "policy_node/save_memory")
    assert saved.success, saved.message
    blob = (tmp_path / "memory").read_bytes()
    processes.kill("policy_node")
    # A dead process is known by the end of its lease; until then its services seem to be there.
    probe.until(lambda: "policy_node" not in probe.node.get_node_names(), "end of the lease")
    searching.rate = 0.0
    start_policy(processes, model, tmp_path)
    assert probe.change(Transition.TRANSITION_CONFIGURE)
    probe.until(lambda: probe.change(Transition.TRANSITION_ACTIVATE), "activation")
    loaded = probe.call(Trigger, "policy_node/load_memory")
    assert loaded.success, loaded.message
    alone = load_policy(str(model), Embodiment.load(ROBOT), context_steps=500, device="cpu")
    alone.load_memory(blob)
    held, figures = alone._memory.length, alone.figures()
    assert figures["context_episodes"] == 2
    probe.until(lambda: report(probe)["context_steps"] > held + 1, "actions after the restart")
    assert probe.call(Trigger, "policy_node/save_memory").success
    fields, later = unpack_memory(alone._memory.owner, (tmp_path / "memory").read_bytes())
    # what it kept from before, and then the actions that the saved memory leads to
    for name in Tokens._fields:
        before = alone._memory.tokens._asdict()[name][0].numpy()
        np.testing.assert_array_equal(later[f"token_{name}"][0, :held], before)
    taken = [*(later["token_action"][0, held + 1 :] - 1), fields["previous"] - 1]
    for step, action in enumerate(taken, held):
        shown = [torch.from_numpy(later[f"token_{n}"][:, step].copy()) for n in Tokens._fields]
        logits = alone._step(Tokens(*shown)._replace(cells=shown[0].long()))
        assert alone._draw(logits) == action
    assert fields["episode"] == 1 and len(taken) >= 2
