"""A plan as markers: what is where, in which colour."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("visualization_msgs")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "policies" / "tgpo"))

from builtin_interfaces.msg import Time  # noqa: E402
from test_plan import PLAN, straight  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from embodied_rl.core.plan import Disc, ExecutedPath, PlannedItem, PlanRecord  # noqa: E402
from embodied_rl.nodes.markers import COLOURS, plan_markers  # noqa: E402


def shown(drive: ExecutedPath) -> dict[tuple[str, int], Marker]:
    stamp = Time(sec=7)
    markers = plan_markers(drive, "odom", stamp).markers
    assert markers[0].action == Marker.DELETEALL, "nothing of an older plan stays"
    for marker in markers:
        assert marker.header.frame_id == "odom" and marker.header.stamp == stamp
    found = {(marker.ns, marker.id): marker for marker in markers[1:]}
    assert len(found) == len(markers) - 1, "two markers under one name hide each other"
    return found


def test_regions_times_path_and_robustness() -> None:
    drive = straight()
    drive.band = [(1.0, -3.0, 0.5), (2.0, 0.125, 0.5)]
    found = shown(drive)
    goal, avoided = found[("goals", 0)], found[("avoided", 2)]
    assert goal.type == Marker.CYLINDER and goal.scale.x == 1.0
    assert (goal.pose.position.x, goal.pose.position.y) == (2.0, 0.0)
    assert (goal.color.r, goal.color.g, goal.color.b) == pytest.approx(COLOURS["done"])
    assert (avoided.color.r, avoided.color.g) == pytest.approx(COLOURS["avoided"][:2])
    texts = [marker.text for (kind, _), marker in found.items() if kind == "times"]
    assert texts == ["A 2 s done", "B 5..8 s pending", "O"]
    path = found[("path", 0)]
    assert path.type == Marker.LINE_STRIP and len(path.points) == len(path.colors) == 61
    assert path.points[-1].x == pytest.approx(6.0) and path.colors[0].r < path.colors[-1].r
    robustness = found[("robustness", 0)]
    assert robustness.text == "robustness +0.12 .. +0.50 m"
    assert robustness.color.g == pytest.approx(COLOURS["done"][1])


def test_before_anything_has_moved_there_is_the_plan_alone() -> None:
    assert {kind for kind, _ in shown(ExecutedPath(PLAN))} == {"goals", "avoided", "times"}


def test_balls_of_an_arm_are_spheres() -> None:
    ball = Disc((0.4, 0.1, 0.3), 0.08)
    plan = PlanRecord(
        **{**vars(PLAN), "regions": {"A": ball}, "items": (PlannedItem("A", 3, 3, "pending"),)}
    )
    drive = ExecutedPath(plan, times_s=[0.0, 0.1], positions=[np.zeros(3), np.full(3, 0.1)])
    found = shown(drive)
    goal = found[("goals", 0)]
    assert goal.type == Marker.SPHERE and goal.pose.position.z == pytest.approx(0.3)
    text = found[("times", 0)]
    assert text.pose.position.z > 0.38 and text.scale.z < 0.08, "above the ball, and smaller"
