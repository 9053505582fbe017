"""Actions as they were given: short and partial trajectories, measured states, action servers."""

from __future__ import annotations

import struct
from dataclasses import replace

import bag_maker as maker
import numpy as np
import pytest
from bag_maker import MS, START_NS
from rosbags.rosbag2 import Writer
from test_base_actions import ROBOT as ROVER
from test_base_actions import odometry

from embodied_rl.bags.check import check
from embodied_rl.bags.episode import Episode, read_episode
from embodied_rl.bags.options import AS_RECORDED, Options
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError

ARM = "/arm/joint_trajectory"
MEASURED = Options(measured=True)


def record(folder, script: maker.Script, robot=None, options=AS_RECORDED) -> Episode:
    script.entries.sort(key=lambda entry: entry.log_ns)
    with Bag.open(maker.write(folder / "bag", script)) as bag:
        return read_episode(bag, robot or maker.robot(), options=options)


def streams(seconds=3.0) -> maker.Script:
    return maker.episode(seconds, executed=False, own=False).without(ARM)


@pytest.mark.parametrize("stamped", [True, False])
def test_points_that_hold_at_once(tmp_path, stamped):
    """One point with time_from_start 0, as many teleoperations stream it."""
    script, sent = streams(), []
    for number in range(1, 25):
        at = START_NS + number * 110 * MS + 7 * MS
        sent.append((at, [number / 10, -number / 10]))
        message = maker.trajectory(at if stamped else 0, "ab", [sent[-1][1]], period_ns=0)
        script.add(at, ARM, message)
    episode = record(tmp_path, script)
    assert episode.report.lines() == []
    for tick, action, valid in zip(episode.stamps_ns, episode.actions, episode.action_valid):
        given = [value for at, value in sent if at <= tick]
        assert valid == bool(given)
        if given:
            np.testing.assert_array_equal(action[:2], given[-1])


def test_a_trajectory_that_begins_at_once(tmp_path):
    """Points at 0, 0.2 and 0.4 s: the first is in force at once, the others are led to."""
    script, at = streams(), START_NS + 1000 * MS
    script.add(START_NS, ARM, maker.trajectory(START_NS, "ab", [[0.0, 0.0]], period_ns=MS))
    points = maker.trajectory(at, "ab", [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]], 200 * MS)
    for number, point in enumerate(points.points):
        point.time_from_start.sec, point.time_from_start.nanosec = 0, number * 200 * MS
    script.add(at + MS, ARM, points)
    episode = record(tmp_path, script)
    wanted = [0.0] * 10 + [1.5, 2.0, 2.5, 3.0] + [3.0] * 17
    np.testing.assert_allclose(episode.actions[:, 0], wanted, atol=1e-12)


def test_partial_joints_are_merged(tmp_path):
    """Two publishers, each of one joint, and one of more joints than the robot file names."""
    script, told = streams(), {"a": [], "b": []}
    for number in range(20):
        for place, joint in enumerate("ab"):
            at = START_NS + number * 130 * MS + place * 40 * MS + 3 * MS
            told[joint].append((at, number + 100 * place))
            script.add(at, ARM, maker.trajectory(at, joint, [[number + 100 * place]], MS))
    at = START_NS + 2707 * MS
    script.add(at, ARM, maker.trajectory(at, "xab", [[9.0, -1.0, -2.0]], MS))
    told["a"].append((at, -1.0))
    told["b"].append((at, -2.0))
    episode = record(tmp_path, script)
    for tick, action, valid in zip(episode.stamps_ns, episode.actions, episode.action_valid):
        given = [[value for at, value in told[joint] if at <= tick] for joint in "ab"]
        assert valid == all(given)
        if valid:
            assert action[:2].tolist() == [values[-1] for values in given]


def test_measured_states_as_actions(tmp_path):
    """The action of a row is what the streams measure at the next one."""
    text = maker.ROBOT.replace("joints: [g]", "joints: [extra]")
    text = text.replace(
        "joints: [a, b]\n    unit: rad\n    rate_hz",
        "joints: [a, b, extra]\n    unit: rad\n    rate_hz",
    )
    script = streams().without("/grip/commands")
    episode = record(tmp_path, script, maker.robot(text), MEASURED)
    assert episode.report.lines() == []
    np.testing.assert_array_equal(episode.actions[:-1], episode.values["position"][1:])
    assert episode.action_valid[:-1].all() and not episode.action_valid[-1]
    with Bag.open(tmp_path / "bag") as bag:
        only = read_episode(bag, maker.robot(text), ["camera"], MEASURED)
    np.testing.assert_array_equal(only.actions, episode.actions)
    assert list(only.values) == ["camera"]


def test_measured_velocities_of_a_base(tmp_path):
    odom = "topic: odom, type: nav_msgs/msg/Odometry, rate_hz: 50, max_age_s: 0.1"
    text = ROVER.replace("KIND", "Twist").replace(
        "commands:",
        f"  v: {{{odom}, field: linear_velocity}}\n"
        f"  w: {{{odom}, field: angular_velocity}}\ncommands:",
    )
    script = maker.Script()
    for now in range(START_NS, START_NS + 1000 * MS, 20 * MS):
        message = odometry(now)
        message.twist.twist.linear.x = now / 1e9
        script.add(now, "/odom", message)
    episode = record(tmp_path, script, Embodiment.parse(text, "rover.yaml"), MEASURED)
    np.testing.assert_array_equal(episode.actions[:-1, 0], episode.stamps_ns[1:] / 1e9)


def test_nothing_measures_the_actuators(tmp_path):
    with pytest.raises(UserError, match="expected one that measures every commanded joint"):
        record(tmp_path, streams(), options=MEASURED)  # the gripper's joint


def test_check_tells_what_has_no_command(tmp_path):
    script = streams()
    script.entries.sort(key=lambda entry: entry.log_ns)
    maker.write(tmp_path / "bag", script)
    (place,) = find_bags(tmp_path)
    result = check(place, maker.robot())
    assert not result.trainable and result.actions == 0
    assert result.targets["/grip/commands"] > 0


def test_remapped_topics(tmp_path):
    script = maker.episode(2.0, executed=False, own=False)
    sound = record(tmp_path / "sound", script)
    moved = {
        "/joint_states": "/robot/js",
        "/tool/pose": "ee/pose",
        "/arm/joint_trajectory": "/t/cmd",
    }
    other = maker.Script([replace(e, topic=moved.get(e.topic, e.topic)) for e in script.entries])
    remap = {"joint_states": "/robot/js", "tool/": "ee/", "arm/joint_trajectory": "/t/cmd"}
    episode = record(tmp_path / "other", other, options=Options(remap=remap))
    assert episode.report.lines() == []
    np.testing.assert_array_equal(episode.values["tool"], sound.values["tool"])
    np.testing.assert_array_equal(episode.actions, sound.actions)


def test_commands_stamped_by_another_clock_count_from_their_arrival(tmp_path):
    script = maker.episode(3.0, executed=False, own=False)
    sound = record(tmp_path / "sound", script)
    off = 1_700_000_000 * 10**9
    other = script.change(
        ARM,
        lambda i, e: maker.Entry(
            e.log_ns, e.topic,
            maker.trajectory(e.log_ns + off, "ab", maker.targets(e.log_ns - 5 * MS)[:, :2]),
        ),
    )  # fmt: skip
    episode = record(tmp_path / "other", other)
    # each chunk arrives 5 ms after the tick that it is meant for
    np.testing.assert_allclose(episode.actions[1:-1], sound.actions[1:-1], atol=0.02)
    assert episode.action_valid.sum() >= sound.action_valid.sum() - 1
    (line,) = episode.report.lines()
    assert "another clock" in line and ARM in line


def feedback(now: int, names: str, desired: np.ndarray, stamp: int) -> bytes:
    """A FollowJointTrajectory_FeedbackMessage, from the layout of CDR alone; what follows the
    desired positions differs between distributions."""
    out = bytearray(range(16))  # the goal's number

    def align(size: int) -> None:
        out.extend(bytes(-len(out) % size))

    def text(value: str) -> None:
        align(4)
        out.extend(struct.pack("<I", len(value) + 1) + value.encode() + b"\0")

    out += struct.pack("<iI", stamp // 10**9, stamp % 10**9)
    text("base_link")
    align(4)
    out += struct.pack("<I", len(names))
    for name in names:
        text(name)
    align(4)
    out += struct.pack("<I", len(desired))
    align(8)
    out += struct.pack(f"<{len(desired)}d", *desired) + bytes(60)
    return b"\0\1\0\0" + bytes(out)


@pytest.mark.parametrize("stamped", [True, False])
def test_the_feedback_of_an_action_server(tmp_path, stamped):
    """Two goals with a pause between them; the desired positions are what was commanded."""
    kind = "control_msgs/action/FollowJointTrajectory_FeedbackMessage"
    topic = "/arm/follow_joint_trajectory/_action/feedback"
    script, sent = streams(), []
    for now in [*range(200, 1000, 40), *range(1800, 2600, 40)]:
        at = START_NS + now * MS
        sent.append((at, np.array([now / 1000, 5 - now / 1000])))
    entries = sorted(script.entries, key=lambda entry: entry.log_ns)
    path = tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=maker.StoragePlugin.MCAP) as writer:
        known = {}
        for log, name, type_, data in sorted(
            [(e.log_ns, e.topic, e.kind, e.raw()) for e in entries]
            + [(at, topic, kind, feedback(at, "ba", d[::-1], at * stamped)) for at, d in sent]
        ):
            if name not in known:
                types = (
                    {"typestore": maker.STORE} if type_ != kind else {"msgdef": "", "rihs01": "x"}
                )
                known[name] = writer.add_connection(name, type_, **types)
            writer.write(known[name], log, data)
    with Bag.open(path) as bag:
        episode = read_episode(bag, maker.robot())
    times, places = [at for at, _ in sent], np.array([place for _, place in sent])
    for tick, action, valid in zip(episode.stamps_ns, episode.actions, episode.action_valid):
        due = tick + 100 * MS
        assert valid == (due >= times[0])
        if valid:
            held = min(due, times[19]) if due < times[20] else due
            wanted = [np.interp(held, times, places[:, joint]) for joint in (0, 1)]
            np.testing.assert_allclose(action[:2], wanted, atol=1e-9)
    (line,) = episode.report.lines()
    assert topic in line and not episode.report.damaged
