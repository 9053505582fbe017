"""What other sensors send: read by name, brought into the declared frame and unit, or refused."""

from __future__ import annotations

import math
from types import SimpleNamespace as Msg

import numpy as np
import pytest
import yaml
from core_cases import robot_data
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodied_rl.core.decode import StreamDecoder, decode
from embodied_rl.core.decode_commands import read_targets, target_stamp_ns
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import MessageError, NotForThisStream, UserError, quoted
from embodied_rl.core.frames import quaternion_from

MS = 1_000_000


def body(streams=None, commands=None, **root):
    data = {**robot_data(), **root}
    for key, keys in (streams or {}).items():
        data["streams"][key] = {"topic": key, "rate_hz": 50, "max_age_s": 0.1, **keys}
    for key, keys in (commands or {}).items():
        data["commands"][key] = {**data["commands"].get(key, {}), **keys}
    return Embodiment.parse(yaml.safe_dump(data, sort_keys=False), "own.yaml")


def stream(kind, root=None, **keys):
    return body({"it": {"type": kind, **keys}}, **(root or {})).streams["it"]


def header(frame="base", ms=5000):
    return Msg(stamp=Msg(sec=ms // 1000, nanosec=ms % 1000 * MS), frame_id=frame)


def xyz(values):
    return Msg(**dict(zip("xyz", values, strict=True)))


def xyzw(values):
    return Msg(**dict(zip("xyzw", values, strict=True)))


def pose(place=(1, 2, 3), turn=(0, 0, 0, 1), frame="base"):
    return Msg(header=header(frame), pose=Msg(position=xyz(place), orientation=xyzw(turn)))


def joints(positions, names, ms=5000):
    return Msg(header=header(ms=ms), name=names, position=positions, velocity=[], effort=[])


POSE = "geometry_msgs/msg/PoseStamped"
FRAMES = {
    "frames": {
        "controller": {"parent": "base", "xyz": [0, 0, 0], "rpy": [0, 0, math.pi]},
        "mount": {"parent": "controller", "xyz": [0.1, 0.2, 0.3], "rpy": [0.4, -0.5, 0.6]},
        "world": {"parent": "none", "xyz": [0, 0, 0], "rpy": [0, 0, 0]},
    }
}


# ---------------------------------------------------------------- frames
def test_half_a_turn_about_z_negates_x_and_y():
    source = stream(POSE, FRAMES, field="position")
    found = decode(source, pose((0.5, -0.25, 0.125), frame="controller")).value
    np.testing.assert_allclose(found, [-0.5, 0.25, 0.125], atol=1e-15)
    assert decode(source, pose((0.5, -0.25, 0.125))).value.tolist() == [0.5, -0.25, 0.125]
    assert decode(source, pose(frame="/base")).value.tolist() == [1, 2, 3]  # of ROS 1 drivers


def test_a_chain_of_frames_against_scipy():
    turn = Rotation.from_euler("xyz", [0.3, 1.0, -2.0])
    inner = Rotation.from_euler("xyz", [0.4, -0.5, 0.6])
    half = Rotation.from_euler("z", math.pi)
    message = pose((1, -2, 0.5), turn.as_quat(), "mount")
    found = decode(stream(POSE, FRAMES, field="position"), message).value
    expected = half.apply(inner.apply([1, -2, 0.5]) + [0.1, 0.2, 0.3])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    found = decode(stream(POSE, FRAMES, field="orientation"), message).value
    same = (half * inner * turn).inv() * Rotation.from_quat(found)
    assert same.magnitude() < 1e-12
    upward = stream(POSE, FRAMES, field="position", frame="mount")  # and against the tree
    found = decode(upward, pose((0, 0, 1))).value
    expected = inner.inv().apply(half.inv().apply([0, 0, 1]) - [0.1, 0.2, 0.3])
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_every_rotation_has_its_quaternion(parts):
    if np.linalg.norm(parts) < 1e-3:
        return
    rotation = Rotation.from_quat(parts)
    found = Rotation.from_quat(quaternion_from(rotation.as_matrix()))
    assert (rotation.inv() * found).magnitude() < 1e-7


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("tool0", "expected values in frame 'base', saw 'tool0'; declare where that frame stands"),
        ("", "expected values in frame 'base', saw ''; of a driver that names none"),
        ("world", "expected values in frame 'base', saw 'world'"),
        ("\x1b[1m" * 50, r"saw '\\x1b\[1m"),
    ],
)
def test_a_frame_that_nothing_connects_is_refused(frame, said):
    for field in ("position", "orientation", "yaw"):
        with pytest.raises(MessageError, match=said) as caught:
            decode(stream(POSE, FRAMES, field=field), pose(frame=frame))
        assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_driver_that_names_no_frame_can_be_declared():
    source = stream(POSE, FRAMES, field="position", source_frame="controller")
    np.testing.assert_allclose(decode(source, pose(frame="")).value, [-1, -2, 3], atol=1e-15)
    assert decode(source, pose()).value.tolist() == [1, 2, 3]
    assert decode(stream(POSE, field="position"), pose(frame="")).value.tolist() == [1, 2, 3]
    with pytest.raises(MessageError, match="expected values in frame 'table', saw ''"):
        decode(stream(POSE, field="position", frame="table"), pose(frame=""))


def test_the_frame_enters_the_contract_only_where_it_is_another():
    plain = body({"it": {"type": POSE, "field": "position"}})
    named = body({"it": {"type": POSE, "field": "position", "frame": "base"}})
    other = body({"it": {"type": POSE, "field": "position", "frame": "table"}}, **FRAMES)
    assert plain.contract_hash(["it"]) == named.contract_hash(["it"]) != other.contract_hash(["it"])
    assert body(**FRAMES).contract_hash(["thing"]) == body().contract_hash(["thing"])


def test_frames_that_go_round_are_refused():
    ring = {"a": {"parent": "b", "xyz": [0, 0, 0], "rpy": [0, 0, 0]}}
    ring["b"] = {**ring["a"], "parent": "a"}
    with pytest.raises(UserError, match="frames.a.parent: expected frames that lead to a root"):
        body(frames=ring)


@pytest.mark.parametrize("turn", [(0, 0, 0, 0), (0, 0, 0, 2), (math.nan, 0, 0, 1)])
def test_quaternions_that_nobody_filled_in_are_refused(turn):
    for field in ("orientation", "yaw"):
        with pytest.raises(MessageError, match="orientation: expected a unit quaternion"):
            decode(stream(POSE, field=field), pose(turn=turn))
    assert decode(stream(POSE, field="position"), pose(turn=turn)).value.tolist() == [1, 2, 3]


def test_tf_frames_are_poses():
    def stamped(parent, child, ms):
        way = Msg(translation=xyz((0.1, 0.2, 0.3)), rotation=xyzw((0, 0, 0.6, 0.8)))
        return Msg(header=header(parent, ms), child_frame_id=child, transform=way)

    kind = {"type": "tf2_msgs/msg/TFMessage", "topic": "tf", "child_frame": "tool"}
    robot = body({"place": {**kind, "field": "position"}, "yaw": {**kind, "field": "yaw"}})
    message = Msg(transforms=[stamped("base", "elbow", 6000), stamped("base", "tool", 7000)])
    found = decode(robot.streams["place"], message)
    assert found.stamp_ns == 7000 * MS and found.value.tolist() == [0.1, 0.2, 0.3]
    assert decode(robot.streams["yaw"], message).value == pytest.approx([2 * math.atan2(0.6, 0.8)])
    with pytest.raises(NotForThisStream):
        decode(robot.streams["place"], Msg(transforms=[stamped("base", "elbow", 6000)]))
    with pytest.raises(MessageError, match="saw 'odom'"):
        decode(robot.streams["place"], Msg(transforms=[stamped("odom", "tool", 6000)]))


# ---------------------------------------------------------------- imu, wrench, twist
def imu(frame="imu", first=0.0):
    covariance = [first] + [0.0] * 8
    return Msg(
        header=header(frame),
        orientation=xyzw((0, 0.6, 0, 0.8)),
        angular_velocity=xyz((1, 2, 3)),
        linear_acceleration=xyz((4, 5, 6)),
        orientation_covariance=covariance,
        angular_velocity_covariance=[0.0] * 9,
        linear_acceleration_covariance=[0.0] * 9,
    )


def test_an_imu():
    kind = "sensor_msgs/msg/Imu"
    assert decode(stream(kind, field="orientation"), imu()).value.tolist() == [0, 0.6, 0, 0.8]
    assert decode(stream(kind, field="angular_velocity"), imu()).value.tolist() == [1, 2, 3]
    turned = stream(kind, FRAMES, field="linear_acceleration", frame="base")
    found = decode(turned, imu("controller")).value
    np.testing.assert_allclose(found, [-4, -5, 6], atol=1e-12)
    with pytest.raises(MessageError, match="orientation: expected a measurement, saw covariance"):
        decode(stream(kind, field="orientation"), imu(first=-1.0))
    assert decode(stream(kind, field="angular_velocity"), imu(first=-1.0)).value.tolist()


def test_a_wrench_in_another_frame_has_the_torque_of_its_lever():
    kind = "geometry_msgs/msg/WrenchStamped"
    force, torque = np.array([1.0, -2, 3]), np.array([0.1, 0.2, 0.3])
    message = Msg(header=header("mount"), wrench=Msg(force=xyz(force), torque=xyz(torque)))
    assert decode(stream(kind, field="torque"), message).value.tolist() == torque.tolist()
    half = Rotation.from_euler("z", math.pi)
    way = half * Rotation.from_euler("xyz", [0.4, -0.5, 0.6])
    arm = half.apply([0.1, 0.2, 0.3])
    found = [
        decode(stream(kind, FRAMES, field=field, frame="base"), message).value
        for field in ("force", "torque")
    ]
    np.testing.assert_allclose(found[0], way.apply(force), atol=1e-12)
    np.testing.assert_allclose(found[1], way.apply(torque) + np.cross(arm, way.apply(force)))


def test_a_twist_measures_an_arm_that_is_led_by_one():
    kind = {"type": "geometry_msgs/msg/TwistStamped", "topic": "speed"}
    message = Msg(header=header(), twist=Msg(linear=xyz((1, 2, 3)), angular=xyz((4, 5, 6))))
    source = stream(kind=kind["type"], field="angular_velocity")
    assert decode(source, message).value.tolist() == [4, 5, 6]
    names = [f"{part}_{axis}" for part in ("linear", "angular") for axis in "xyz"]
    servo = {
        "topic": "servo/delta_twist_cmds",
        "type": kind["type"],
        "dimensions": names,
        "lower": [-1] * 6,
        "upper": [1] * 6,
        "max_acceleration": [1] * 6,
        "frame": "tool0",
    }
    command = body(commands={"servo": servo}).commands["servo"]
    assert command.velocity and command.frame == "tool0"
    assert read_targets(message, command).tolist() == [1, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------- numbers without a header
def test_numbers_need_the_time_they_are_received():
    single = stream("std_msgs/msg/Float64", stamps="receive", unit="N")
    sample = decode(single, Msg(data=2.5), 7 * MS)
    assert (sample.stamp_ns, sample.value.tolist()) == (7 * MS, [2.5])
    assert single.components == ("it",)
    several = stream("std_msgs/msg/Float32MultiArray", stamps="receive", names=["a", "b"])
    assert decode(several, Msg(data=[1, 2]), 7).value.tolist() == [1, 2]
    with pytest.raises(MessageError, match="expected 2 values .*'a', 'b'.*, saw 3"):
        decode(several, Msg(data=[1, 2, 3]), 7)
    with pytest.raises(MessageError, match="b: expected a finite number, saw nan"):
        decode(several, Msg(data=[1, math.nan]), 7)
    with pytest.raises(MessageError, match="expected a time of receipt"):
        decode(single, Msg(data=1.0))
    with pytest.raises(UserError, match="it.stamps: expected 'receive'.* saw 'header'"):
        stream("std_msgs/msg/Float64")


def test_receive_time_replaces_a_stamp_that_nobody_set():
    source = stream("sensor_msgs/msg/Joy", field="axes", names=["x", "y"], stamps="receive")
    message = Msg(header=header(ms=0), axes=[0.5, -0.5], buttons=[1])
    assert decode(source, message, 9 * MS).stamp_ns == 9 * MS
    keyed = stream("sensor_msgs/msg/Joy", field="buttons", names=["grip"])
    with pytest.raises(MessageError, match="stamp in the header, saw 0 ns; .*stamps: receive"):
        decode(keyed, message, 9 * MS)


# ---------------------------------------------------------------- joints
def test_prefixed_joints_are_short_inside():
    robot = body(prefix="left_")
    message = joints([0.5, 0.25], ["left_elbow", "left_shoulder"])
    assert decode(robot.streams["arm"], message).value.tolist() == [0.25, 0.5]
    assert robot.action_names == ("shoulder", "elbow", "finger")
    assert robot.commands["links"].wire_names == ("left_shoulder", "left_elbow")
    assert robot.contract_hash(["arm"]) == body().contract_hash(["arm"])
    own = {"type": "sensor_msgs/msg/JointState", "field": "position", "joints": ["a"]}
    own = body({"own": {**own, "prefix": "right_"}}, prefix="left_").streams["own"]
    assert own.wire_joints == ("right_a",)


JOINTS = {"type": "sensor_msgs/msg/JointState", "field": "position", "unit": "rad"}


@given(st.floats(-50, 50))
def test_endless_joints_are_read_within_half_a_turn(angle):
    wheel = body({"it": {**JOINTS, "joints": ["w"], "continuous": True}}).streams["it"]
    (found,) = decode(wheel, joints([angle], ["w"])).value
    assert -math.pi - 1e-9 <= found <= math.pi + 1e-9
    assert math.isclose(math.cos(found), math.cos(angle), abs_tol=1e-9)
    assert math.isclose(math.sin(found), math.sin(angle), abs_tol=1e-9)


def test_an_endless_joint_can_have_another_centre():
    keys = {**JOINTS, "joints": ["w", "v"], "continuous": {"v": 3.0}}
    robot = body({"it": keys})
    found = decode(robot.streams["it"], joints([9.0, -1.0], ["w", "v"])).value
    np.testing.assert_allclose(found, [9.0, 2 * math.pi - 1])
    assert robot.contract_hash(["it"]) != body({"it": {**keys, "continuous": ["v"]}}).contract_hash(
        ["it"]
    )
    for wrong in (["u"], {"v": "x"}, 3, [["v"]]):
        with pytest.raises(UserError, match="it.continuous: expected true, a list of joints"):
            body({"it": {**keys, "continuous": wrong}})


def test_a_joint_one_turn_off_is_refused_and_says_so():
    arm = body().streams["arm"]  # shoulder within [-3, 3], elbow within [-2.5, 2.5]
    for angle in (1.0 + 2 * math.pi, 1.0 - 2 * math.pi):
        with pytest.raises(MessageError, match="elbow: expected an angle within .* one turn off"):
            decode(arm, joints([0.0, angle], ["shoulder", "elbow"]))
    near = decode(arm, joints([3.2, -2.6], ["shoulder", "elbow"])).value  # just past the limits
    assert near.tolist() == [3.2, -2.6]


def test_degrees_and_millimetres_are_converted_by_declaration():
    keys = {**JOINTS, "joints": ["a", "b"], "source_unit": "deg"}
    found = decode(body({"it": keys}).streams["it"], joints([180.0, -90.0], ["a", "b"])).value
    np.testing.assert_allclose(found, [math.pi, -math.pi / 2])
    place = stream(POSE, field="position", unit="m", source_unit="mm")
    np.testing.assert_allclose(decode(place, pose((1000, 20, 3))).value, [1, 0.02, 0.003])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"unit": "deg"}, "unit: expected 'rad', .*'source_unit: deg'"),
        ({"unit": "degrees"}, "unit: expected 'rad', .*'source_unit: deg'"),
        ({"source_unit": "mm"}, r"source_unit: expected one of \['deg'\]"),
    ],
)
def test_units_that_are_not_ours_are_refused(keys, said):
    with pytest.raises(UserError, match=f"streams.it.{said}"):
        body({"it": {**JOINTS, "joints": ["a"], **keys}})
    with pytest.raises(UserError, match="commands.links.unit: expected 'rad'"):
        body(commands={"links": {"unit": "deg"}})
    with pytest.raises(UserError, match="streams.it.unit: expected 'm', the unit of position"):
        stream(POSE, field="position", unit="rad")


# ---------------------------------------------------------------- split joint states
def test_a_message_of_other_joints_is_for_another_stream():
    robot = body()
    finger = joints([0.25], ["finger"])
    assert decode(robot.streams["grip"], finger).value.tolist() == [0.25]
    with pytest.raises(NotForThisStream):
        decode(robot.streams["arm"], finger)
    with pytest.raises(MessageError, match="expected joint elbow, .*split: true") as caught:
        decode(robot.streams["arm"], joints([0.5], ["shoulder"]))
    assert not isinstance(caught.value, NotForThisStream)


def halves(order):
    """Shoulder every 20 ms, elbow 3 ms later; a few swapped on the way."""
    parts = []
    for i in range(10):
        pair = [(i * 20, "shoulder"), (i * 20 + 3, "elbow")]
        parts += pair if order(i) else pair[::-1]
    return [joints([ms / 1000], [name], ms=5000 + ms) for ms, name in parts]


def test_parts_of_one_moment_are_put_together_whatever_their_order():
    split = {**JOINTS, "joints": ["elbow", "shoulder"], "split": True}
    found = []
    for order in (lambda i: True, lambda i: False, lambda i: i % 3):
        decoder, samples = StreamDecoder(body({"it": split}).streams["it"]), []
        for message in halves(order):
            try:
                samples.append(decoder(message))
            except NotForThisStream:
                continue
        found.append([(s.stamp_ns, *s.value.tolist()) for s in samples])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 10 and found[0][1] == (5020 * MS, 0.023, 0.020)


def test_a_part_that_fell_silent_is_never_taken_for_a_new_one():
    split = {**JOINTS, "joints": ["elbow", "shoulder"], "split": True}
    decoder = StreamDecoder(body({"it": split}).streams["it"])
    with pytest.raises(NotForThisStream):
        decoder(joints([1.0], ["elbow"], ms=5000))
    for ms in (5020, 5040, 5060):  # at 50 Hz parts are 10 ms apart at most
        with pytest.raises(NotForThisStream, match="elbow is still to come"):
            decoder(joints([2.0], ["shoulder"], ms=ms))
    with pytest.raises(MessageError, match="elbow: expected a finite number"):
        decoder(joints([math.nan], ["elbow"], ms=5061))
    assert decoder(joints([3.0], ["elbow"], ms=5062)).value.tolist() == [3.0, 2.0]


# ---------------------------------------------------------------- point clouds
def cloud(points, extra=0, big=0, frame="lidar", names=("x", "y", "z")):
    """An organised cloud of two rows ``(2, n, 3)`` with padded points and rows."""
    order = ">f4" if big else "<f4"
    rows = []
    for row in points:
        data = b"".join(np.array(p, order).tobytes() + bytes(extra) for p in row)
        rows.append(data + b"\xff" * 7)
    fields = [Msg(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(names)]
    step = 12 + extra
    return Msg(
        header=header(frame), height=len(points), width=len(points[0]), fields=fields,
        is_bigendian=big, point_step=step, row_step=step * len(points[0]) + 7,
        data=b"".join(rows), is_dense=False,
    )  # fmt: skip


CLOUD = "sensor_msgs/msg/PointCloud2"


@pytest.mark.parametrize(("extra", "big"), [(0, 0), (4, 0), (20, 1)])
def test_a_cloud_is_thinned_by_a_rule_and_marks_what_is_missing(extra, big):
    points = np.arange(24, dtype=float).reshape(2, 4, 3)
    points[0, 1, 2] = math.nan
    message = cloud(points, extra, big)
    valid = np.delete(points.reshape(8, 3), 1, axis=0)
    source = stream(CLOUD, channels=["z", "x"], shape=[3, 2])
    expected = valid[[0, 2, 4]][:, [2, 0]]
    np.testing.assert_array_equal(decode(source, message).value, expected)
    wide = decode(stream(CLOUD, channels=["x", "y", "z"], shape=[9, 3]), message).value
    np.testing.assert_array_equal(wide[:7], valid)
    assert wide.dtype == np.float32 and np.isnan(wide[7:]).all()


def test_a_cloud_is_brought_into_a_frame():
    source = stream(CLOUD, FRAMES, channels=["x", "y", "z"], shape=[2, 3], frame="base")
    message = cloud([[[1, 2, 3], [4, 5, 6]]], frame="controller")
    found = decode(source, message).value
    np.testing.assert_allclose(found, [[-1, -2, 3], [-4, -5, 6]], atol=1e-6)


def test_unsound_clouds_are_refused():
    source = stream(CLOUD, channels=["x", "y", "intensity"], shape=[2, 3])
    with pytest.raises(MessageError, match="expected field 'intensity', saw"):
        decode(source, cloud([[[1, 2, 3]]]))
    source = stream(CLOUD, channels=["x", "y", "z"], shape=[2, 3])
    with pytest.raises(MessageError, match="expected a cloud with valid points, saw none"):
        decode(source, cloud([[[math.nan, 2, 3]]]))
    short = cloud([[[1, 2, 3]]])
    short.data = short.data[:-1]
    with pytest.raises(MessageError, match="expected 1 rows of 19 bytes, saw 18"):
        decode(source, short)
    with pytest.raises(UserError, match=r"shape: expected \[points, 3\]"):
        stream(CLOUD, channels=["x", "y", "z"], shape=[2, 4])


# ---------------------------------------------------------------- commands
FINGER = {"joints": ["finger"], "unit": "rad", "lower": [0], "upper": [1], "max_velocity": [1]}


@pytest.mark.parametrize(
    ("kind", "message", "bad"),
    [
        ("std_msgs/msg/Float64", Msg(data=0.25), Msg(data=math.nan)),
        ("control_msgs/msg/GripperCommand", Msg(position=0.25), Msg(position=math.inf)),
        (
            "sensor_msgs/msg/JointState",
            joints([0.25], ["r_finger"]),
            joints([0.25, 0.5], ["r_finger", "other"]),
        ),
    ],
)
def test_commands_of_other_types_are_read(kind, message, bad):
    grip = {"type": kind, "prefix": "r_", **FINGER}
    command = body(commands={"fingers": grip}).commands["fingers"]
    assert read_targets(message, command).tolist() == [0.25]
    stamp = target_stamp_ns(message, command)
    assert stamp == (5000 * MS if kind.endswith("JointState") else 0)
    with pytest.raises(MessageError, match="^gripper/commands: expected"):
        read_targets(bad, command)
    if "JointState" not in kind:
        with pytest.raises(UserError, match="fingers.joints: expected one, for"):
            body(commands={"fingers": {**grip, "joints": ["finger", "thumb"]}})


@pytest.mark.parametrize(
    ("path", "keys", "said"),
    [
        ("fingers", {"topic": "arm/joint_trajectory"}, "topic: expected another than that of"),
        ("fingers", {"topic": "emergency_stop"}, "topic: expected a topic of the robot; "),
        ("links", {"topic": "policy/chunk"}, "topic: expected a topic of the robot; "),
        ("links", {"topic": "joint_states"}, "topic: expected a topic that is no stream's"),
    ],
)
def test_commands_that_cannot_be_meant_are_refused_with_the_file(path, keys, said):
    with pytest.raises(UserError, match=f"own.yaml: commands.{path}.{said}"):
        body(commands={path: keys})


def test_a_misspelt_joint_is_refused_but_a_gripper_without_feedback_is_not():
    links = {"joints": ["shoulder", "elbows"]}
    with pytest.raises(UserError, match="links.joints: .* such as 'elbow', saw 'elbows'"):
        body(commands={"links": links})
    assert "thumb" in body(commands={"fingers": {"joints": ["thumb"]}}).action_names


def test_two_types_on_one_topic_are_refused():
    with pytest.raises(UserError, match="streams.it.type: expected 'sensor_msgs/msg/JointState'"):
        stream(POSE, field="position", topic="joint_states")


@given(st.text(max_size=200))
def test_quoted_text_is_printable_short_and_tells_texts_apart(text):
    assert quoted(text).isprintable() and quoted(text).isascii() and len(quoted(text)) <= 64
    assert len(quoted([text] * 1000)) < 1000
