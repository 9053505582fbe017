"""The viewer by itself: a plan, positions and a monitor's words become markers and pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from nav_msgs.msg import Odometry
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from embodied_rl.bringup.environment import share_file
from embodied_rl.core.plan import AVOIDED, PENDING, Disc, PlannedItem, PlanRecord
from embodied_rl.nodes import messages, qos

pytest.importorskip("matplotlib")

ROBOT = share_file("sim_worlds/arena/diff_drive.yaml")
STEPS = 8


class Watched:
    """What the viewer hears, said by the test: a robot on its way along x."""

    def __init__(self, probe):
        self.probe = probe
        node = probe.node
        self._plans = node.create_publisher(String, "policy/plan", qos.LATCHED)
        self._odometry = node.create_publisher(Odometry, "odom", 50)
        self._words = node.create_publisher(
            Float64MultiArray, "stl_monitor_node/robustness", qos.reliable(10)
        )
        for publisher in (self._plans, self._odometry, self._words):
            probe.until(publisher.get_subscription_count, "viewer")
        now_ns = node.get_clock().now().nanoseconds
        self.plan = PlanRecord(
            task="case",
            formula="F[1,4] A and G[0,4] not O",
            start_ns=now_ns - 5_000_000_000,
            dt_s=0.5,
            steps=STEPS,
            step=0,
            value=0.0,
            replanned=0,
            violated=False,
            follow_error_m=float("nan"),
            regions={"A": Disc((1.0, 0.0), 0.4), "O": Disc((0.0, 2.0), 0.5)},
            items=(PlannedItem("A", 4, 4, PENDING), PlannedItem("O", 0, 8, AVOIDED)),
        )

    def show(self, plan: PlanRecord) -> None:
        text = yaml.safe_dump(plan.as_mapping(), sort_keys=False)
        self._plans.publish(String(data=text))

    def drive(self, plan: PlanRecord) -> None:
        """All of the plan's time, at 10 Hz, and the monitor's verdict at its end."""
        for tick in range(STEPS * 5 + 1):
            message = Odometry()
            message.header.stamp = messages.time_message(plan.start_ns + tick * 100_000_000)
            message.pose.pose.position.x = 0.05 * tick
            message.pose.pose.orientation.w = 1.0
            self._odometry.publish(message)
        anchor_s = plan.start_ns / 1e9
        for low in (-1.0, 0.4):
            self._words.publish(Float64MultiArray(data=[anchor_s, low, 0.4, 0.0, 0.0]))


def test_where_nobody_conducts_each_plan_gets_its_picture(probe, processes, tmp_path):
    processes.start("plan_view_node", embodiment=ROBOT, out=tmp_path)
    markers = probe.collect(MarkerArray, "stl/markers", qos.LATCHED)
    watched = Watched(probe)
    watched.show(watched.plan)
    probe.until(lambda: markers, "markers")
    watched.drive(watched.plan)

    def whole_path() -> bool:
        """DDS keeps no order between topics: the positions may come after the plan."""
        watched.show(replace(watched.plan, step=STEPS - 1))
        points = [p.x for m in markers[-1][1].markers if m.ns == "path" for p in m.points]
        return bool(points) and points[-1] == pytest.approx(2.0)

    probe.until(whole_path, "the whole path in the markers")
    watched.show(replace(watched.plan, step=STEPS))
    first, second = tmp_path / "episode_000000.png", tmp_path / "episode_000001.png"
    probe.until(first.exists, "picture of a plan that is over")
    other = replace(
        watched.plan, start_ns=watched.plan.start_ns + 1_000_000_000, formula="F[1,4] A"
    )
    count = len(markers)
    watched.show(other)
    probe.until(lambda: len(markers) > count, "markers of the other plan")
    watched.show(replace(other, start_ns=other.start_ns + 1_000_000_000))
    probe.until(second.exists, "picture of a plan that was replaced")
    answer = probe.call(Trigger, "plan_view_node/picture")
    third = tmp_path / "episode_000002.png"
    assert answer.success and answer.message == f"picture: {third}" and third.exists()


def test_what_is_no_plan_is_said_and_passed_over(probe, processes, tmp_path):
    processes.start("plan_view_node", embodiment=ROBOT, out=tmp_path)
    watched = Watched(probe)
    watched._plans.publish(String(data="task: none"))
    probe.until(lambda: "policy/plan: " in processes.log("plan_view_node"), "line about the plan")
    markers = probe.collect(MarkerArray, "stl/markers", qos.LATCHED)
    watched.show(watched.plan)
    probe.until(lambda: markers, "markers of a sound plan")
    assert "Traceback" not in processes.log("plan_view_node")
