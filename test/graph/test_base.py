"""A mobile base over real topics: the same run as in one process, stopping, and refusals."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.bringup.environment import share_file
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec, episode_seed
from embodied_rl.core.window import Observation
from embodied_rl.nodes import messages
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout

ROBOT = share_file("sim_worlds/arena/diff_drive.yaml")
TASK = "patrol_two_goals"
TICK_NS = 100_000_000
STREAMS = ("base_position", "base_yaw", "base_linear_velocity", "base_angular_velocity")


class Wanderer:
    """Turns with where it is and is measured, so that the smallest difference would grow. Gives
    three targets for five ticks: at the end of each plan the base is on its way to rest."""

    def __init__(self, embodiment: Embodiment):
        shapes = {key: embodiment.streams[key].shape for key in STREAMS}
        self.spec = PolicySpec(
            "wanderer", shapes, 2, 3, 5, 10.0, 1, 1, embodiment.name,
            embodiment.contract_hash(shapes),
        )  # fmt: skip
        self.reset(EpisodeInfo(0, 0, "", "", 0))

    def reset(self, episode: EpisodeInfo) -> None:
        self.rows: list[Observation] = []
        self.in_force: list[ActionChunk] = []

    def observe(self, observation: Observation) -> None:
        self.rows.append(observation)

    def act(self) -> ActionChunk:
        row = self.rows[-1]
        x, y, _ = row.values["base_position"]
        yaw, speed = row.values["base_yaw"][0], row.values["base_linear_velocity"][0]
        target = [speed + 0.3, np.sin(3 * x + 5 * y + yaw)]
        return ActionChunk(row.stamp_ns, TICK_NS, np.array([target] * 3))

    def executed(self, chunk: ActionChunk) -> None:
        self.in_force.append(chunk)

    def save_memory(self) -> bytes:
        return b""

    def load_memory(self, blob: bytes) -> None:
        pass


@pytest.fixture(params=["TwistStamped", "Twist"])
def robot(request, tmp_path) -> str:
    """The arena's embodiment file, with one or the other kind of velocity command."""
    path = tmp_path / "robot.yaml"
    path.write_text(ROBOT.read_text().replace("TwistStamped", request.param))
    return str(path)


@pytest.fixture
def recorded(robot, processes, probe, host, tmp_path):
    """One episode in lockstep, recorded: the policy inside this process, the folder of the bag."""
    out = tmp_path / "run"
    common = {"embodiment": robot, "use_sim_time": True}
    processes.start("sim_node", mode="lockstep", world="arena", task=TASK, embodiment=robot, seed=3)
    clock = probe.collect(Clock, "/clock")
    probe.until(lambda: clock, "clock")
    processes.start("command_gate_node", mode="lockstep", **common)
    processes.start("recorder_node", out=out, **common)
    policy = host.configure(Wanderer, mode="lockstep", **common)
    host.activate()
    conductor = processes.start("episode_node", episodes=1, record=True, out=out, mode="lockstep")
    probe.until(lambda: conductor.poll() is not None, "end of the episode", 100)
    assert conductor.returncode == 0, processes.log("episode_node")
    return robot, policy, out / "episode_000000"


def test_an_episode_over_topics_equals_the_bag_and_the_same_in_one_process(recorded):
    """Rows, commands and verdict, bit for bit."""
    robot, policy, folder = recorded
    with Bag.open(folder) as bag:
        episode = read_episode(bag, keys=STREAMS)
    assert not episode.report.findings and len(episode) == 321
    sim = make_simulator("arena", TASK, embodiment=Embodiment.load(robot))
    twin = Wanderer(sim.embodiment)
    result = rollout(sim, twin, 0, episode_seed(3, 0), keep_observations=True)
    assert result.ticks == 320 and result.outcome == episode.outcome
    assert episode.outcome.reason.startswith("robustness ")
    alone = {key: np.stack([row.values[key] for row in result.observations]) for key in STREAMS}
    live = {key: np.stack([row.values[key] for row in policy.rows]) for key in STREAMS}
    for key in STREAMS:
        assert live[key][:320].tobytes() == alone[key].tobytes(), key
        assert live[key].tobytes() == episode.values[key].tobytes(), key
    np.testing.assert_array_equal(episode.actions[:320], result.commands)
    assert episode.action_valid[:320].all()
    speeds = result.commands[:, 0]
    assert speeds.max() > 0.3 and np.abs(np.diff(speeds)).max() <= 0.1 + 1e-9
    braking = speeds[3::5] - speeds[2:-2:5]
    np.testing.assert_allclose(braking, -np.minimum(speeds[2:-2:5], 0.1), atol=1e-9)
    told = [(c.stamp_ns - policy.in_force[0].stamp_ns, c.values.tobytes()) for c in policy.in_force]
    assert told[: len(twin.in_force)] == [
        (c.stamp_ns - twin.in_force[0].stamp_ns, c.values.tobytes()) for c in twin.in_force
    ]


class Driver:
    """A policy said by hand, in real time: a chunk and a heartbeat whenever it is to drive."""

    def __init__(self, probe, processes):
        self.embodiment = Embodiment.load(ROBOT)
        self.probe = probe
        processes.start("sim_node", mode="realtime", world="arena", task=TASK)
        processes.start("command_gate_node", mode="realtime", embodiment=ROBOT, use_sim_time=True)
        self.odometry = probe.collect(Odometry, "odom")
        self.sent = probe.collect(TwistStamped, "cmd_vel")
        self.clock = probe.collect(Clock, "/clock")
        self.states = probe.collect(DiagnosticArray, "/diagnostics")
        self._chunks = probe.node.create_publisher(JointTrajectory, "policy/chunk", 10)
        self._beats = probe.node.create_publisher(Header, "policy/heartbeat", 10)
        for publisher in (self._chunks, self._beats):
            probe.until(publisher.get_subscription_count, "gate")
        probe.until(lambda: probe.node.count_publishers("cmd_vel"), "gate's output")
        probe.until(lambda: self.clock and self.odometry, "simulator")
        probe.reset_simulator()

    def drive(self, v: float, w: float, ticks: int = 5) -> None:
        now = self.clock[-1][1].clock
        tick_ns = (now.sec * 10**9 + now.nanosec) // TICK_NS * TICK_NS
        chunk = ActionChunk(tick_ns, TICK_NS, np.array([[v, w]] * ticks))
        stamp = messages.time_message(tick_ns)
        self._beats.publish(Header(stamp=stamp, frame_id=str(tick_ns)))
        self._chunks.publish(messages.trajectory(chunk, self.embodiment.action_names, slice(0, 2)))

    def speed(self) -> float:
        return self.odometry[-1][1].twist.twist.linear.x

    def drive_until(self, v: float, fast: float) -> None:
        def moving() -> bool:
            self.drive(v, 0.0)
            return self.speed() > fast

        self.probe.until(moving, f"{fast} m/s", 30)

    def told(self) -> np.ndarray:
        """Velocities ``(K, 2)`` that the gate has sent so far."""
        return np.array([[m.twist.linear.x, m.twist.angular.z] for _, m in self.sent])

    def diagnosed(self, node: str, key: str) -> str:
        found = [
            value.value
            for _, array in self.states
            for status in array.status
            if status.name == node
            for value in status.values
            if value.key == key
        ]
        return found[-1] if found else ""


def test_silence_and_an_emergency_stop_bring_the_base_to_rest_within_its_limits(probe, processes):
    driver = Driver(probe, processes)
    driver.drive_until(1.5, 0.5)
    count = len(driver.sent)
    probe.until(lambda: len(driver.sent) > count and not driver.told()[-1].any(), "zero", 10)
    ramp = driver.told()[count - 1 :, 0]
    assert len(ramp) >= 5 and (np.diff(ramp) >= -0.1 - 1e-9).all(), ramp
    probe.until(lambda: abs(driver.speed()) < 0.05, "rest", 10)
    # A busy machine adds messages that were under way, but only zeros follow the zero.
    count, mark = len(driver.sent), time.monotonic()
    probe.until(lambda: time.monotonic() > mark + 0.5, "half a second")
    assert not driver.told()[count:].any(), "told to move after the base stood"

    driver.drive_until(1.5, 0.5)
    count = len(driver.sent)
    stop = "command_gate_node/emergency_stop"
    assert probe.call(SetBool, stop, SetBool.Request(data=True)).success
    probe.until(lambda: not driver.told()[-1].any(), "zero", 10)
    told = driver.told()[count - 1 :, 0]
    assert (np.abs(np.diff(told)) <= 0.1 + 1e-9).all(), "braked harder than the limits allow"
    count = len(driver.sent)
    driver.drive(1.0, 0.0)
    mark = time.monotonic()
    probe.until(lambda: time.monotonic() > mark + 0.5, "half a second")
    assert len(driver.sent) > count, "a stop is repeated as long as it is in force"
    assert not driver.told()[count:].any(), "driven on while stopped"


def test_what_must_not_reach_the_base_does_not(probe, processes):
    driver = Driver(probe, processes)

    def driving() -> bool:
        driver.drive(9.0, -9.0)
        return bool(driver.sent) and driver.told()[-1, 0] > 0.5

    probe.until(driving, "commands", 30)
    told = driver.told()
    assert (told[:, 0] <= 2).all() and (np.abs(told[:, 1]) <= 1).all()
    ticks = [m.header.stamp.sec * 10 + m.header.stamp.nanosec / TICK_NS for _, m in driver.sent]
    for rise, periods in zip(np.diff(told[:, 0]), np.diff(ticks), strict=True):
        assert abs(rise) <= 0.1 * max(periods, 1) + 1e-9
    driver.drive(float("nan"), 0.0)
    error = "linear_x: point 0 is not finite"
    probe.until(lambda: error in driver.diagnosed("command_gate_node", "last_error"), "refusal", 10)
    probe.until(lambda: not driver.told()[-1].any(), "rest after the chunk", 10)

    # Past the gate, on the base's own topic: too old, not finite, along a missing dimension.
    publisher = probe.node.create_publisher(TwistStamped, "cmd_vel", 10)
    probe.until(lambda: publisher.get_subscription_count() >= 2, "simulator")
    for stale, v, aside in ((True, 1.0, 0.0), (False, float("nan"), 0.0), (False, 1.0, 0.5)):
        command = TwistStamped()
        command.header.stamp.sec = 1 if stale else 0
        command.twist.linear.x, command.twist.linear.y = v, aside
        publisher.publish(command)
    probe.until(lambda: driver.diagnosed("sim_node", "refused_commands") == "3", "refusals", 10)
    log = processes.log("sim_node")
    for said in ("of the last 0.5 s, saw one", "saw nan", "linear_y: expected 0"):
        assert said in log
    assert abs(driver.speed()) < 0.05


def test_the_simulated_base_stops_by_itself_when_its_commands_fall_silent(probe, processes):
    """As a diff_drive_controller does, should the gate itself die."""
    processes.start("sim_node", mode="realtime", world="arena", task=TASK)
    odometry = probe.collect(Odometry, "odom")
    publisher = probe.node.create_publisher(TwistStamped, "cmd_vel", 10)
    probe.until(lambda: publisher.get_subscription_count() and odometry, "simulator")
    command = TwistStamped()
    command.twist = Twist()
    command.twist.linear.x = 0.8  # no stamp: it counts from when it arrives
    publisher.publish(command)
    probe.until(lambda: odometry[-1][1].twist.twist.linear.x > 0.6, "motion", 10)
    begin = odometry[-1][1].header.stamp
    probe.until(lambda: abs(odometry[-1][1].twist.twist.linear.x) < 0.05, "rest", 10)
    end = odometry[-1][1].header.stamp
    assert (end.sec - begin.sec) + (end.nanosec - begin.nanosec) / 1e9 < 1.0
