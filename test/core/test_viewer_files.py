"""The shipped files for RViz and Foxglove name topics and frames that there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from embodied_rl.core.camera_topics import camera_info_topics
from embodied_rl.core.embodiment import Embodiment

ROOT = Path(__file__).resolve().parents[2]
ROBOTS = {
    "tabletop": "tabletop/ur5e_2f85.yaml",
    "arena": "arena/diff_drive.yaml",
    "apartment": "apartment/home_base.yaml",
}
BESIDE = {"robot_description", "sim/scene", "sim/objects", "stl/markers", "diagnostics"}
MONITOR = "stl_monitor_node/"


@pytest.fixture(params=ROBOTS)
def world(request) -> tuple[str, Embodiment]:
    return request.param, Embodiment.load(ROOT / "sim_worlds" / ROBOTS[request.param])


def infos(robot: Embodiment) -> dict[str, str]:
    """Topic of an image -> topic of its camera_info."""
    cameras = {key: s.topic.split("/")[1] for key, s in robot.streams.items() if s.encoding}
    topics = camera_info_topics(robot.streams.values(), cameras)
    return {robot.streams[key].topic: topic for key, topic in topics.items()}


def check(topic: str, robot: Embodiment) -> None:
    assert topic.startswith("/"), topic
    name = topic[1:]
    known = {*robot.topics(), *infos(robot).values(), *BESIDE}
    assert name in known or name.startswith(MONITOR), topic


def test_rviz(world):
    name, robot = world
    text = (ROOT / "config" / "rviz" / f"{name}.rviz").read_text()
    manager = yaml.safe_load(text)["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == robot.base_frame
    shown = {}
    for display in manager["Displays"]:
        kind = display["Class"].rpartition("/")[2]
        topic = display.get("Topic", display.get("Description Topic"))
        if kind == "DepthCloud":
            topic = {"Value": display["Depth Map Topic"], "Durability Policy": "Volatile"}
        if topic is None:
            assert kind in ("Grid", "TF")
        else:
            check(topic["Value"], robot)
            latched = topic["Durability Policy"] == "Transient Local"
            once = topic["Value"] in ("/robot_description", "/sim/scene", "/stl/markers")
            assert latched == once, topic
            shown[topic["Value"][1:]] = kind
    kinds = {"sensor_msgs/msg/LaserScan": "LaserScan", "nav_msgs/msg/Odometry": "Odometry"}
    for stream in robot.streams.values():
        expected = kinds.get(stream.type, "Image" if stream.encoding == "rgb8" else None)
        if expected:
            assert shown[stream.topic] == expected
    assert shown["robot_description"] == "RobotModel" and shown["sim/scene"] == "MarkerArray"
    # RViz looks for the intrinsics of a depth image beside it
    for depth in (s for s in robot.streams.values() if s.encoding == "32FC1"):
        assert infos(robot)[depth.topic] == depth.topic.rpartition("/")[0] + "/camera_info"


def test_foxglove(world):
    name, robot = world
    layout = json.loads((ROOT / "config" / "foxglove" / f"{name}.json").read_text())
    panels = set(leaves(layout["layout"]))
    assert panels == set(layout["configById"])
    for key, panel in layout["configById"].items():
        mode = panel.get("imageMode", {})
        if mode:
            check(mode["imageTopic"], robot)
            assert infos(robot)[mode["imageTopic"][1:]] == mode["calibrationTopic"][1:]
        if key.startswith("3D"):
            assert panel["followTf"] == robot.base_frame
        for topic in panel.get("topics", {}):
            check(topic, robot)
        for path in panel.get("paths", []):
            check(path["value"].partition(".")[0], robot)


def leaves(part) -> list[str]:
    return [part] if isinstance(part, str) else leaves(part["first"]) + leaves(part["second"])
