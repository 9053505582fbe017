"""Streams as drivers send them, in a bag: parts of one topic, no header, other pictures."""

from __future__ import annotations

import io

import bag_maker as maker
import numpy as np
import pytest
from PIL import Image as Pillow

from embodied_rl.bags.check import check
from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.core.embodiment import Embodiment

MS = maker.MS
JOINTS = (
    "topic: joint_states, type: sensor_msgs/msg/JointState, field: position, unit: rad, "
    "rate_hz: 50, max_age_s: 0.1"
)
ROBOT = f"""
name: parts
control_rate_hz: 10
streams:
  arm: {{{JOINTS}, joints: [a, b]}}
  grip: {{{JOINTS}, joints: [g]}}
  all: {{{JOINTS}, joints: [g, a, b], split: true}}
  force: {{topic: force, type: std_msgs/msg/Float64, stamps: receive, unit: N, rate_hz: 20,
          max_age_s: 0.2}}
  eye: {{topic: eye/compressed, type: sensor_msgs/msg/CompressedImage, encoding: mono8,
        source_encoding: rgb8, source_shape: [6, 8], resize: area, shape: [3, 4], rate_hz: 10,
        max_age_s: 0.25}}
commands:
  arm: {{topic: arm/joint_trajectory, type: trajectory_msgs/msg/JointTrajectory, joints: [a, b],
        prefix: left_, unit: rad, lower: [-3, -3], upper: [3, 3], max_velocity: [2, 2]}}
  grip: {{topic: grip/command, type: control_msgs/msg/GripperCommand, joints: [g], unit: rad,
         lower: [0], upper: [1], max_velocity: [5]}}
"""
BODY = Embodiment.parse(ROBOT, "parts.yaml")


def part(stamp_ns, **positions):
    return maker.make(
        "sensor_msgs/msg/JointState",
        header=maker.header(stamp_ns),
        name=list(positions),
        position=np.array(list(positions.values())),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )


def png(tick):
    file = io.BytesIO()
    Pillow.fromarray(maker.pixels(tick)).save(file, "PNG")
    return np.frombuffer(file.getvalue(), np.uint8)


def script():
    found = maker.Script()
    found.add(maker.START_NS, "/embodiment", maker.string(ROBOT))
    for now in range(maker.START_NS, maker.START_NS + 2000 * MS + 1, 10 * MS):
        log, value = now + 2 * MS, maker.wave(now)
        if now % (20 * MS) == 0:
            found.add(log, "/joint_states", part(now, a=value, b=-value))
            found.add(log + MS, "/joint_states", part(now + 3 * MS, g=value / 2))
        if now % (50 * MS) == 0:
            found.add(log, "/force", maker.make("std_msgs/msg/Float64", data=value))
        if now % (100 * MS) == 0:
            tick = now // (100 * MS)
            found.add(log, "/eye/compressed", maker.make(
                "sensor_msgs/msg/CompressedImage", header=maker.header(now, "eye"),
                format="rgb8; png compressed bgr8", data=png(tick),
            ))  # fmt: skip
            names = ["left_a", "left_b"]
            values = maker.targets(now)[:, :2]
            found.add(log, "/arm/joint_trajectory", maker.trajectory(now, names, values))
            found.add(log, "/grip/command", maker.make(
                "control_msgs/msg/GripperCommand", position=0.5, max_effort=0.0
            ))  # fmt: skip
    return found


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return maker.write(tmp_path_factory.mktemp("parts") / "bag", script())


def test_parts_of_a_topic_are_no_damage(bag):
    result = check(*find_bags(bag))
    (line,) = result.lines
    assert "without check sums" in line and not result.damaged
    assert result.rows >= 20 and result.valid_rows == result.rows


def test_rows_hold_what_each_driver_sent(bag):
    with Bag.open(bag) as opened:
        episode = read_episode(opened, BODY)
    for row, tick in enumerate(episode.stamps_ns.tolist()):
        value = maker.wave(tick)
        assert episode.values["arm"][row].tolist() == [value, -value]
        before = maker.wave(tick - 20 * MS)  # its part of this moment comes after the tick
        assert episode.values["grip"][row].tolist() == [before / 2]
        assert episode.values["all"][row].tolist() == [value / 2, value, -value]
        received = tick - 50 * MS if tick % (50 * MS) == 0 else tick - tick % (50 * MS)
        assert episode.values["force"][row].tolist() == [maker.wave(received)]
        grey = maker.pixels(tick // (100 * MS)) @ np.array([0.299, 0.587, 0.114])
        mean = grey.reshape(3, 2, 4, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(episode.values["eye"][row], mean, atol=1.1)
    known = episode.actions[episode.action_valid]
    assert len(known) > 15 and (known[:, 2] == 0.5).all()


def test_a_part_too_slow_is_named(bag, tmp_path):
    few = script().change(
        "/joint_states", lambda n, entry: entry if n % 2 == 0 or n % 6 == 1 else None
    )
    result = check(*find_bags(maker.write(tmp_path / "bag", few)), keys=["arm", "grip"])
    assert result.damaged and any("/joint_states: expected at least 40 Hz" in line
                                  for line in result.lines)  # fmt: skip
