"""The faults of the benchmark ``faults``: what goes wrong, and what should come of it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from _fault_graph import ARM, BASE, Graph, ScriptedPolicy


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        begin, end: do it and take it back; called with the graph and its policy.
        leads_to: ``hold``, ``stop``, ``ride`` (the robot goes on undisturbed), ``gone`` (it comes
            to rest without a gate) or ``any`` (all that counts is that nothing unsafe is sent).
        says: a part of what the gate says of it, on ``/diagnostics`` or in its log.
        lasts_s: how long, where the robot is to ride through it.
        notice_periods: how many control periods pass before anybody could notice.
    """

    name: str
    robot: str
    begin: Callable[[Graph, ScriptedPolicy], object]
    end: Callable[[Graph, ScriptedPolicy], object] = lambda graph, policy: graph.faults()
    leads_to: str = "hold"
    says: str = ""
    lasts_s: float = 1.0
    notice_periods: float = 0.0


def tick_ns(graph: Graph, ahead: int = 0) -> int:
    period_ns = graph.embodiment.period_ns
    return (time.time_ns() // period_ns + ahead) * period_ns


def chunk(graph: Graph, policy: ScriptedPolicy, values: object, ahead: int = 0) -> None:
    """A chunk of the policy's own making, beside those of its plan."""
    policy.send_chunk(tick_ns(graph, ahead), np.array(values, dtype=np.float64))


def rows(graph: Graph, value: float, count: int = 8) -> np.ndarray:
    return np.full((count, graph.embodiment.action_dim), value)


def attribute(name: str, fault: object, sound: object) -> dict[str, Callable]:
    """Begin and end of a fault of the policy itself."""
    return {
        "begin": lambda graph, policy: setattr(policy, name, fault),
        "end": lambda graph, policy: setattr(policy, name, sound),
    }


def sensor(**faults: object) -> dict[str, Callable]:
    """Begin of a fault of the stand-in robot."""
    return {"begin": lambda graph, policy: graph.faults(**faults)}


class Rival:
    """A second publisher on a topic: of joint states, odometry, commands, or a second policy."""

    def __init__(self, make: Callable[[Graph], tuple[type, str, Callable[[], object]]], hz: float):
        self._make, self._period_s = make, 1 / hz

    def begin(self, graph: Graph, policy: ScriptedPolicy) -> None:
        kind, topic, message = self._make(graph)
        self._ended, self._graph = threading.Event(), graph
        self._publisher = graph.node.create_publisher(kind, topic, 10)

        def run() -> None:
            while not self._ended.wait(self._period_s):
                self._publisher.publish(message())

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def end(self, graph: Graph, policy: ScriptedPolicy) -> None:
        self._ended.set()
        self._thread.join()
        graph.node.destroy_publisher(self._publisher)


def joints_of(value: float, shift: bool = False):
    """Joint states that say ``value``, or the truth and ``value``."""

    def make(graph: Graph):
        from builtin_interfaces.msg import Time
        from sensor_msgs.msg import JointState

        def message():
            now = time.time_ns()
            position = (graph.truth[-1][1] + value) if shift else rows(graph, value, 1)[0]
            state = JointState(name=list(graph.embodiment.action_names), position=position.tolist())
            state.velocity = [0.0] * len(state.name)
            state.header.stamp = Time(sec=now // 10**9, nanosec=now % 10**9)
            return state

        return JointState, "joint_states", message

    return make


def odometry_of(speed: float):
    def make(graph: Graph):
        from builtin_interfaces.msg import Time
        from nav_msgs.msg import Odometry

        def message():
            now = time.time_ns()
            odometry = Odometry()
            odometry.header.stamp = Time(sec=now // 10**9, nanosec=now % 10**9)
            odometry.pose.pose.orientation.w = 1.0
            odometry.twist.twist.linear.x = speed
            return odometry

        return Odometry, "odom", message

    return make


def command_of(kind_name: str, topic: str):
    def make(graph: Graph):
        from geometry_msgs.msg import TwistStamped
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory

        kind = {"t": TwistStamped, "a": Float64MultiArray, "j": JointTrajectory}[kind_name]
        return kind, topic, kind

    return make


class SecondPolicy:
    """Another policy that speaks on the same topics."""

    def __init__(self, silence_first: bool = False):
        self._silence_first = silence_first

    def begin(self, graph: Graph, policy: ScriptedPolicy) -> None:
        self._second = ScriptedPolicy(graph, session="0ddba11")
        self._second.start()
        if self._silence_first:
            policy.beats = policy.chunks = False

    def end(self, graph: Graph, policy: ScriptedPolicy) -> None:
        self._second.end()
        policy.beats = policy.chunks = True


def restart(name: str) -> Callable[[Graph, ScriptedPolicy], None]:
    def act(graph: Graph, policy: ScriptedPolicy) -> None:
        graph.signal(name, signal.SIGKILL)
        graph.processes[name].wait()

    return act


def start_again(name: str) -> Callable[[Graph, ScriptedPolicy], None]:
    return lambda graph, policy: graph.start(name)


def pause(name: str, seconds: float) -> Callable[[Graph, ScriptedPolicy], None]:
    def act(graph: Graph, policy: ScriptedPolicy) -> None:
        graph.signal(name, signal.SIGSTOP)
        time.sleep(seconds)
        graph.signal(name, signal.SIGCONT)

    return act


def nothing(graph: Graph, policy: ScriptedPolicy) -> None:
    """For faults that end by themselves."""


def flood(graph: Graph, policy: ScriptedPolicy) -> None:
    """Two thousand chunks a second, each within range and each of another motion."""
    end_s, sign = time.monotonic() + 1.0, 1
    while time.monotonic() < end_s:
        sign = -sign
        chunk(graph, policy, graph.plan(0, 8) + 0.3 * sign)
        time.sleep(0.0005)


def endless(count: int) -> Callable[[Graph, ScriptedPolicy], float]:
    """A chunk of so many points, and an emergency stop right after it."""

    def act(graph: Graph, policy: ScriptedPolicy) -> float:
        chunk(graph, policy, rows(graph, 0.0, count))
        stopped_s = time.monotonic()
        graph.emergency_stop(True)
        return stopped_s

    return act


def stop_then_guide(graph: Graph, policy: ScriptedPolicy) -> None:
    """Stopped, led by hand by 0.8 rad, released."""
    graph.emergency_stop(True)
    time.sleep(0.3)
    graph.faults(freedrive={"shoulder_pan_joint": 0.8}, inactive=["arm"])
    time.sleep(1.0)
    graph.faults()
    time.sleep(0.3)
    graph.emergency_stop(False)


def reset_then_stop(graph: Graph, policy: ScriptedPolicy) -> None:
    graph.call("command_gate_node/reset_episode")
    graph.emergency_stop(True)


def release(graph: Graph, policy: ScriptedPolicy) -> None:
    """By the service, which ends every stop."""
    from std_srvs.srv import SetBool

    graph.faults()
    graph.call("command_gate_node/emergency_stop", SetBool, data=False)


def heartbeat(text: str) -> Callable[[Graph, ScriptedPolicy], None]:
    return lambda graph, policy: [policy.send_beat(tick_ns(graph), text) for _ in range(20)]


def bad_stop_button(graph: Graph, policy: ScriptedPolicy) -> float:
    """Pressed on one of two buttons; the other says all the while that it is not."""
    from std_msgs.msg import Bool

    other = graph.node.create_publisher(Bool, "emergency_stop", 10)
    graph.until(lambda: other.get_subscription_count(), "gate")
    time.sleep(0.3)
    stopped_s = time.monotonic()
    graph.emergency_stop(True)
    for _ in range(10):
        other.publish(Bool(data=False))
        time.sleep(0.02)
    graph.node.destroy_publisher(other)
    return stopped_s


def best_effort_stop(graph: Graph, policy: ScriptedPolicy) -> None:
    from rclpy.qos import qos_profile_sensor_data
    from std_msgs.msg import Bool

    button = graph.node.create_publisher(Bool, "emergency_stop", qos_profile_sensor_data)
    graph.until(button.get_subscription_count, "gate")
    for _ in range(5):
        button.publish(Bool(data=True))
        time.sleep(0.02)
    graph.node.destroy_publisher(button)
    time.sleep(0.2)


def latched_stop_before_the_gate(graph: Graph, policy: ScriptedPolicy) -> None:
    """The gate is started again while a latched stop is in force."""
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import Bool

    profile = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    graph.latched = graph.node.create_publisher(Bool, "emergency_stop", profile)
    graph.latched.publish(Bool(data=True))
    restart("command_gate_node")(graph, policy)
    graph.start("command_gate_node")


def unlatch(graph: Graph, policy: ScriptedPolicy) -> None:
    from std_srvs.srv import SetBool

    graph.node.destroy_publisher(graph.latched)
    graph.call("command_gate_node/emergency_stop", SetBool, data=False)


SILENT_ARM = sensor(silent=["joint_states"])
FAULTS = (
    # the policy
    Fault("policy silent", ARM, **attribute("beats", False, True), says="no heartbeat"),
    Fault("policy gives no chunks", ARM, **attribute("chunks", False, True), says="run out",
          notice_periods=8),
    Fault("policy refuses", ARM, **attribute("refusal", "stream 'x' is too slow", ""),
          says="stream 'x' is too slow"),
    Fault("policy silent", BASE, **attribute("beats", False, True), says="no heartbeat"),
    Fault("policy gives no chunks", BASE, **attribute("chunks", False, True), says="run out",
          notice_periods=8),
    Fault("policy refuses", BASE, **attribute("refusal", "camera late", ""), says="camera late"),
    Fault("policy's clock 2 s ahead", ARM, **attribute("shift_ns", 2 * 10**9, 0),
          says="ahead of the clock", notice_periods=8),
    Fault("policy's clock 1 h behind", ARM, **attribute("shift_ns", -3600 * 10**9, 0),
          says="newer than", notice_periods=8),
    Fault("policy's clock half a period off the grid", ARM,
          lambda g, p: [p.send_chunk(tick_ns(g) + 37, rows(g, 0.0)) for _ in range(3)], nothing,
          "ride", "control tick"),
    Fault("a second policy", ARM, *(lambda s: (s.begin, s.end))(SecondPolicy()), "ride",
          "saw another one"),
    Fault("a second policy, the first stopped", ARM,
          *(lambda s: (s.begin, s.end))(SecondPolicy(True)), says="no heartbeat"),
    # its chunks
    Fault("NaN in a chunk", ARM, lambda g, p: chunk(g, p, rows(g, np.nan)), nothing, "ride",
          "not finite"),
    Fault("infinity in a chunk", BASE, lambda g, p: chunk(g, p, rows(g, np.inf)), nothing, "ride",
          "not finite"),
    Fault("1e300 in a chunk", ARM, lambda g, p: chunk(g, p, rows(g, 1e300)), nothing, "ride"),
    Fault("-1e300 in a chunk", BASE, lambda g, p: chunk(g, p, rows(g, -1e300)), nothing, "ride"),
    Fault("chunk 2 s ahead", ARM, lambda g, p: chunk(g, p, rows(g, 0.5), 20), nothing, "ride",
          "ahead of the clock"),
    Fault("chunk 1 h ahead", BASE, lambda g, p: chunk(g, p, rows(g, 0.5), 36000), nothing, "ride",
          "ahead of the clock"),
    Fault("chunk of 1970", ARM, lambda g, p: p.send_chunk(10**9, rows(g, 0.5)), nothing, "ride",
          "newer than"),
    Fault("chunk of 50,000 points, then a stop", ARM, endless(50_000), release, "stop",
          "at most 1024 points"),
    Fault("chunk of 2,000 points, then a stop", BASE, endless(2_000), release, "stop"),
    Fault("2,000 chunks a second", ARM, flood, nothing, "any", "newer than"),
    Fault("2,000 chunks a second", BASE, flood, nothing, "any", "newer than"),
    Fault("heartbeat of 5,000 digits", ARM, heartbeat("9" * 5000), nothing, "ride",
          "policy/heartbeat: frame_id"),
    Fault("heartbeat with control characters", ARM, heartbeat("\x1b[2J\x07map"), nothing, "ride",
          "policy/heartbeat: frame_id"),
    Fault("foreign heartbeats", ARM, heartbeat("ab12 77"), nothing, "ride", "saw another one"),
    # stops
    Fault("emergency stop", ARM, lambda g, p: g.emergency_stop(True), release, "stop"),
    Fault("emergency stop", BASE, lambda g, p: g.emergency_stop(True), release, "stop"),
    Fault("emergency stop, best effort", ARM, best_effort_stop, release, "stop"),
    Fault("two stop buttons, one not pressed", ARM, bad_stop_button, release, "stop",
          "not released"),
    Fault("latched stop before the gate starts", ARM, latched_stop_before_the_gate, unlatch,
          "any", "emergency stop", lasts_s=4.0),
    Fault("stop, led by hand, release", ARM, stop_then_guide, nothing, "stop"),
    Fault("reset in motion", ARM, lambda g, p: g.call("command_gate_node/reset_episode"), nothing,
          "hold", "a new episode"),
    Fault("reset in motion", BASE, lambda g, p: g.call("command_gate_node/reset_episode"), nothing,
          "hold", "a new episode"),
    Fault("reset in motion, then a stop", ARM, reset_then_stop, release, "stop"),
    Fault("reset in motion, then a stop", BASE, reset_then_stop, release, "stop"),
    # the robot and its controllers
    Fault("pendant stop", ARM, **sensor(pendant_stop=True), says="does not follow",
          notice_periods=20, lasts_s=3.0),
    Fault("blocked joint", ARM, **sensor(blocked=["wrist_1_joint"]), says="does not follow",
          notice_periods=20, lasts_s=3.0),
    Fault("led by hand", ARM, **sensor(freedrive={"elbow_joint": 1.0}, inactive=["arm"]),
          says="does not follow", notice_periods=20, lasts_s=2.0),
    Fault("controller not active", ARM, **sensor(inactive=["arm"]), says="does not follow",
          notice_periods=20, lasts_s=3.0),
    Fault("robot's clock 0.15 s ahead, emergency stop", ARM,
          lambda g, p: (g.faults(clock_offset_s=0.15), time.sleep(0.3), g.emergency_stop(True)),
          release, "stop", notice_periods=3),
    Fault("robot's clock 0.15 s behind, emergency stop", ARM,
          lambda g, p: (g.faults(clock_offset_s=-0.15), time.sleep(0.3), g.emergency_stop(True)),
          release, "stop", notice_periods=3),
    Fault("commands late by up to a period", ARM, **sensor(command_delay_s=0.1), leads_to="ride"),
    Fault("commands late by up to a period", BASE, **sensor(command_delay_s=0.1), leads_to="ride"),
    Fault("robot's clock 1 s ahead", ARM, **sensor(clock_offset_s=1.0), says="stamp within",
          lasts_s=2.0),
    Fault("robot's clock 1 h behind", BASE, **sensor(clock_offset_s=-3600.0), says="stamp within",
          lasts_s=2.0),
    Fault("driver killed", ARM, restart("stand_in_node"), start_again("stand_in_node")),
    Fault("driver killed", BASE, restart("stand_in_node"), start_again("stand_in_node")),
    # sensors
    Fault("joint states silent", ARM, **SILENT_ARM, says="no sound sample"),
    Fault("odometry silent", BASE, **sensor(silent=["odom"]), says="no sound sample"),
    Fault("joint states NaN", ARM, **sensor(nan=["joint_states"]), says="finite"),
    Fault("odometry NaN", BASE, **sensor(nan=["odom"]), says="finite"),
    Fault("joint states 1 s late", ARM, **sensor(late_s={"joint_states": 1.0}),
          says="no sound sample"),
    Fault("odometry 1 s late", BASE, **sensor(late_s={"odom": 1.0}), says="no sound sample"),
    Fault("joint states at 5 of 50 Hz", ARM, **sensor(thin={"joint_states": 10}),
          says="no sound sample", notice_periods=2),
    Fault("odometry at 5 of 50 Hz", BASE, **sensor(thin={"odom": 10}), says="no sound sample",
          notice_periods=2),
    Fault("joint states stamped 1 h ahead", ARM, **sensor(stamp_s={"joint_states": 3600.0}),
          says="stamp within"),
    Fault("odometry stamped 1 h behind", BASE, **sensor(stamp_s={"odom": -3600.0}),
          says="stamp within"),
    Fault("joint states frozen, stamps go on", ARM, **sensor(frozen=["joint_states"]),
          says="does not follow", notice_periods=20, lasts_s=3.0),
    Fault("joint states off by 2 rad", ARM, **sensor(shift={"joint_states": 2.0}),
          says="tells another place", notice_periods=1),
    Fault("joint states with glitches of 2 rad", ARM, **sensor(glitch={"joint_states": 2.0}),
          leads_to="ride"),
    Fault("odometry with glitches of 5 m/s", BASE, **sensor(glitch={"odom": 5.0}),
          leads_to="ride"),
    Fault("odometry with glitches of 1e300 m/s", BASE, **sensor(glitch={"odom": 1e300}),
          leads_to="ride"),
    Fault("second publisher of zeros on joint_states", ARM,
          *(lambda r: (r.begin, r.end))(Rival(joints_of(0.0), 50)), says="two publishers",
          notice_periods=2),
    Fault("second publisher near the truth on joint_states", ARM,
          *(lambda r: (r.begin, r.end))(Rival(joints_of(0.01, True), 50)), says="two publishers",
          notice_periods=2),
    Fault("second publisher of odometry", BASE,
          *(lambda r: (r.begin, r.end))(Rival(odometry_of(1.9), 50)), says="two publishers",
          notice_periods=2),
    # the command topics
    Fault("another node commands the arm", ARM,
          *(lambda r: (r.begin, r.end))(
              Rival(command_of("j", "joint_trajectory_controller/joint_trajectory"), 1)),
          says="another node publishes", notice_periods=1),
    Fault("another node commands the gripper", ARM,
          *(lambda r: (r.begin, r.end))(Rival(command_of("a", "gripper_controller/commands"), 1)),
          says="another node publishes", notice_periods=1),
    Fault("another node drives the base", BASE,
          *(lambda r: (r.begin, r.end))(Rival(command_of("t", "cmd_vel"), 1)),
          says="another node publishes", notice_periods=1),
    # the gate's own process
    Fault("gate stalled for 0.5 s", ARM, pause("command_gate_node", 0.5), nothing,
          "any", "stood still"),
    Fault("gate stalled for 3 s", ARM, pause("command_gate_node", 3.0), nothing,
          "any", "stood still"),
    Fault("gate stalled for 3 s", BASE, pause("command_gate_node", 3.0), nothing,
          "any", "stood still"),
    Fault("gate killed and started again", ARM, restart("command_gate_node"),
          start_again("command_gate_node"), "gone"),
    Fault("gate killed and started again", BASE, restart("command_gate_node"),
          start_again("command_gate_node"), "gone"),
)  # fmt: skip
