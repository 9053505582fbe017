"""A pose over fixed and moving transforms, from a bag: against scipy, and against a live node."""

from __future__ import annotations

import bag_maker as maker
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from embodied_rl.bags.check import check
from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.core.decode import StreamDecoder
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import NotForThisStream
from embodied_rl.core.window import RowBuilder

MS = maker.MS
TF = "tf2_msgs/msg/TFMessage"
ROBOT = f"""
name: turret
control_rate_hz: 10
streams:
  place: {{topic: tf, type: {TF}, field: position, child_frame: camera, rate_hz: 20,
          max_age_s: 0.2}}
  turn: {{topic: tf, type: {TF}, field: orientation, child_frame: camera, rate_hz: 20,
         max_age_s: 0.2}}
commands:
  arm: {{topic: pan, type: std_msgs/msg/Float64, joints: [pan], lower: [-3], upper: [3],
        max_velocity: [2]}}
"""
BODY = Embodiment.parse(ROBOT, "turret.yaml")
MOUNT = ([0.1, -0.2, 0.3], [0.4, -0.5, 0.6])  # camera in tilt: fixed


def transforms(*edges):
    def named(kind, names, values):
        return maker.make(f"geometry_msgs/msg/{kind}", **dict(zip(names, map(float, values))))

    return maker.make(
        TF,
        transforms=[
            maker.make(
                "geometry_msgs/msg/TransformStamped",
                header=maker.header(now, parent),
                child_frame_id=child,
                transform=maker.make(
                    "geometry_msgs/msg/Transform",
                    translation=named("Vector3", "xyz", shift),
                    rotation=named("Quaternion", "xyzw", Rotation.from_rotvec(turn).as_quat()),
                ),
            )
            for parent, child, now, shift, turn in edges
        ],
    )


def pan(now):
    return [0.0, 0.0, 1.0], [0.0, 0.0, np.sin(now / 1e9)]


def tilt(now):
    return [0.0, 0.0, 0.1], [0.0, now / 1e10, 0.0]


def script(static_at_ms=1000):
    """Pan at 20 Hz and tilt at 100 Hz in messages of their own, as two drivers send them."""
    found = maker.Script()
    found.add(maker.START_NS, "/embodiment", maker.string(ROBOT))
    for now in range(maker.START_NS, maker.START_NS + 2000 * MS + 1, 10 * MS):
        if now == maker.START_NS + static_at_ms * MS:
            found.add(now, "/tf_static", transforms(("tilt", "camera", 0, *MOUNT)))
        if now % (50 * MS) == 0:
            found.add(now + MS, "/tf", transforms(("base_link", "pan", now, *pan(now))))
            found.add(now + MS, "/pan", maker.make("std_msgs/msg/Float64", data=0.5))
        late = now + 4 * MS
        found.add(late + MS, "/tf", transforms(("pan", "tilt", late, *tilt(late))))
    return found


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return maker.write(tmp_path_factory.mktemp("turret") / "bag", script())


def matrix(shift, turn):
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), shift
    return found


def test_rows_are_the_products_of_the_transforms_at_one_time(bag):
    result = check(*find_bags(bag))
    assert (
        all("check sums" in line for line in result.lines)
        and not result.damaged
        and result.rows >= 18
    )
    with Bag.open(bag) as opened:
        episode = read_episode(opened, BODY)
    assert all(valid.all() for valid in episode.valid.values()) and len(episode) >= 18
    for row, tick in enumerate(episode.stamps_ns.tolist()):
        # at the tick the newest pan is of the tick; tilt is interpolated between 6 ms before it
        # and 4 ms after, along one axis at a constant rate: exact
        whole = matrix(*pan(tick)) @ matrix(*tilt(tick)) @ matrix(*MOUNT)
        assert episode.values["place"][row] == pytest.approx(whole[:3, 3], abs=1e-9)
        turn = Rotation.from_quat(episode.values["turn"][row])
        assert (turn.inv() * Rotation.from_matrix(whole[:3, :3])).magnitude() < 1e-7


def test_a_live_node_that_knows_the_fixed_ones_from_its_start_has_the_same_rows(bag):
    with Bag.open(bag) as opened:
        episode, decode = read_episode(opened, BODY), Decoder()
        seen = [(m.topic, decode(m.topic, TF, bytes(m.data)))
                for m in opened.messages(["/tf", "/tf_static"])]  # fmt: skip
    decoders = {key: StreamDecoder(stream) for key, stream in BODY.streams.items()}
    builder = RowBuilder(BODY, list(decoders))
    for key, each in decoders.items():
        for topic, message in seen:
            if topic == "/tf_static":
                each.latch(message)
        for topic, message in seen:
            if topic == "/tf":
                try:
                    builder.add(key, each(message))
                except NotForThisStream:
                    continue
    for row, tick in enumerate(episode.stamps_ns.tolist()):
        live = builder.row(tick)
        for key in decoders:
            assert live.values[key].tobytes() == episode.values[key][row].tobytes()


def test_a_bag_without_the_fixed_transform_says_which_frame_is_apart(tmp_path):
    broken = maker.write(tmp_path / "bag", script().without("/tf_static"))
    result = check(*find_bags(broken))
    assert result.damaged and result.valid_rows == 0
    assert any(
        "connect 'camera' with 'base_link', saw 'camera' without a parent" in line
        for line in result.lines
    )


def test_the_fixed_ones_have_a_topic_beside_that_of_the_stream():
    assert BODY.static_topics() == {"tf_static": TF}
    assert maker.robot().static_topics() == {}
