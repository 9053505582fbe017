"""The embodiment file: what is read, what is refused with file and key, what the hash covers."""

import hashlib
import json
import math

import numpy as np
import pytest
import yaml
from core_cases import ABSENT, ROBOT, changed, robot, robot_data

from embodied_rl.core.embodiment import Embodiment, common_period_ns
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import load_yaml_mapping

NOT_TEXT = {"a": 1}


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        Embodiment.parse(text, "robot.yaml")
    message = str(caught.value)
    assert message.startswith("robot.yaml: ") and "\n" not in message
    return message


def test_a_sound_file_is_read_as_written():
    body = robot()
    assert body.name == "planar" and body.base_frame == "base" and body.origin == "planar.yaml"
    assert body.period_ns == 100_000_000
    assert body.action_names == ("shoulder", "elbow", "finger") and body.action_dim == 3
    assert body.slices() == {"links": slice(0, 2), "fingers": slice(2, 3)}
    lower, upper, speed = body.limits()
    assert lower.tolist() == [-3, -2.5, 0]
    assert upper.tolist() == [3, 2.5, 0.8]
    assert speed.tolist() == [2, 3, 4]
    shapes = {key: (s.shape, s.dtype) for key, s in body.streams.items()}
    assert shapes == {
        "arm": ((2,), "float64"),
        "speed": ((2,), "float64"),
        "grip": ((1,), "float64"),
        "thing": ((3,), "float64"),
        "turn": ((4,), "float64"),
        "camera": ((2, 3, 3), "uint8"),
        "labels": ((2, 3), "uint16"),
        "depth": ((2, 3), "float32"),
    }
    assert [s.key for s in body.topics()["joint_states"]] == ["arm", "speed", "grip"]
    assert body.streams["arm"].period_ns == 20_000_000
    assert body.streams["arm"].max_age_ns == 100_000_000
    assert body.text == ROBOT


MISSING = [
    *("name", "control_rate_hz", "streams", "commands"),
    *(f"streams.arm.{k}" for k in ("topic", "type", "field", "joints", "rate_hz", "max_age_s")),
    *(f"streams.camera.{k}" for k in ("encoding", "shape")),
    *(f"commands.links.{k}" for k in ("topic", "type", "joints", "lower", "upper", "max_velocity")),
    *(f"kinematics.joints.elbow.{k}" for k in ("xyz", "rpy", "axis")),
    *("kinematics.joints", "kinematics.tool.xyz", "workspace.lower", "workspace.upper"),
]


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_key_is_named(path):
    assert refusal(changed(path, ABSENT)) == f"robot.yaml: {path}: missing"


WRONG = [
    ("name", 3, "text"),
    ("base_frame", ["base"], "text"),
    ("description", 7, "text"),
    ("control_rate_hz", "10", "a number"),
    ("control_rate_hz", True, "a number"),
    ("control_rate_hz", 0, "above 0"),
    ("control_rate_hz", -1.0, "above 0"),
    ("control_rate_hz", math.inf, "finite"),
    ("control_rate_hz", math.nan, "finite"),
    ("control_rate_hz", 10**400, "finite"),
    ("control_rate_hz", 1e10, "between"),
    ("streams.arm.rate_hz", 1e-9, "between"),
    ("streams", [], "a mapping"),
    ("streams", {}, "at least one"),
    ("streams.arm", "joint_states", "a mapping"),
    ("streams.arm.topic", "/joint_states", "relative ROS name"),
    ("streams.arm.topic", "joint states", "relative ROS name"),
    ("streams.arm.topic", "", "relative ROS name"),
    ("streams.arm.topic", "a//b", "relative ROS name"),
    ("streams.arm.topic", NOT_TEXT, "text"),
    ("streams.arm.type", "sensor_msgs/JointState", "one of"),
    ("streams.arm.type", ["x"], "one of"),
    ("streams.arm.field", "acceleration", "one of"),
    ("streams.thing.field", "effort", "one of"),
    ("streams.arm.joints", [], "names"),
    ("streams.arm.joints", "shoulder", "names"),
    ("streams.arm.joints", ["shoulder", 2], "names"),
    ("streams.arm.joints", ["elbow", "elbow"], "different names"),
    ("streams.arm.unit", 1, "text"),
    ("streams.arm.max_age_s", 0.019, "at least one period (0.02 s)"),
    ("streams.arm.max_age_s", -math.inf, "finite"),
    ("streams.camera.encoding", "bgr8", "one of"),
    ("streams.camera.shape", [2, 3], "[height, width, 3] for rgb8"),
    ("streams.camera.shape", [2, 3, 4], "[height, width, 3] for rgb8"),
    ("streams.labels.shape", [2, 3, 1], "[height, width] for mono16"),
    ("streams.camera.shape", [], "whole numbers"),
    ("streams.camera.shape", [2, 0, 3], "whole numbers"),
    ("streams.camera.shape", [2.0, 3, 3], "whole numbers"),
    ("streams.camera.shape", [True, 3, 3], "whole numbers"),
    ("streams.camera.shape", 6, "whole numbers"),
    ("commands.links.topic", "/arm", "relative ROS name"),
    ("commands.links.type", "std_msgs/msg/Float", "one of"),
    ("commands.links.joints", ["elbow", "elbow"], "different names"),
    ("commands.links.lower", [-3], "2 numbers"),
    ("commands.links.lower", -3, "2 numbers"),
    ("commands.links.lower", [-3, "x"], "2 numbers"),
    ("commands.links.lower", [-3, True], "2 numbers"),
    ("commands.links.lower", [-math.inf, -1], "finite"),
    ("commands.links.lower", [-(10**400), -1], "finite"),
    ("commands.links.upper", [3, math.nan], "finite"),
    ("commands.links.max_velocity", [0, 1], "above 0"),
    ("kinematics.joints.elbow.axis", [0, 0, 0], "a direction"),
    ("kinematics.joints.elbow.axis", [0, 1], "3 numbers"),
    ("kinematics.joints.elbow.xyz", [0, 1, math.nan], "finite"),
    ("kinematics.joints", {}, "at least one"),
    ("kinematics.tool", "none", "a mapping"),
    ("workspace.upper", [1, 1], "3 numbers"),
]


@pytest.mark.parametrize(("path", "value", "expected"), WRONG)
def test_a_wrong_value_is_named_with_what_was_expected(path, value, expected):
    message = refusal(changed(path, value))
    assert message.startswith(f"robot.yaml: {path}: expected "), message
    assert expected in message and ", saw " in message and len(message) < 400


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("control_rate", "did you mean 'control_rate_hz'?"),
        ("streams.arm.rate_hs", "did you mean 'rate_hz'?"),
        ("streams.camera.shapes", "did you mean 'shape'?"),
        ("commands.links.max_velocty", "did you mean 'max_velocity'?"),
        ("workspace.uper", "did you mean 'upper'?"),
        ("kinematics.tol", "did you mean 'tool'?"),
        ("kinematics.joints.elbow.axiss", "did you mean 'axis'?"),
        ("kinematics.tool.zzz", "known: ['rpy', 'xyz']"),
        ("streams.thing.joints", "known: "),  # a key of another type of stream
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(path, hint):
    message = refusal(changed(path, [1]))
    assert message.startswith(f"robot.yaml: {path}: unknown key; {hint}")


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("commands.links.lower", [-3, 2.5], "commands.links.lower"),
        ("commands.links.upper", [-4, 2.5], "commands.links.lower"),
        ("workspace.upper", [-5, 1.5, 1], "workspace.lower"),
        ("commands.fingers.joints", ["elbow"], "commands"),
        ("kinematics", ABSENT, "workspace"),
        ("kinematics.joints.wrist", {"xyz": [0] * 3, "rpy": [0] * 3, "axis": [0, 0, 1]}, "kin"),
    ],
)
def test_values_that_contradict_each_other(path, value, key):
    assert refusal(changed(path, value)).startswith(f"robot.yaml: {key}")


def test_a_command_joint_twice_names_the_joint():
    assert "'elbow' twice" in refusal(changed("commands.fingers.joints", ["elbow"]))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "NoneType"),
        ("[1, 2]", "list"),
        ("a: [1", "not valid YAML"),
        ("a: 1\na: 2", "key 'a' twice"),
        ("a: 2020-13-45", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_a_text_that_is_no_mapping(text, seen):
    assert seen in refusal(text)


def test_a_stream_written_twice_is_not_dropped_in_silence():
    text = ROBOT.replace("  thing:", "  arm:", 1)
    assert "key 'arm' twice" in refusal(text)


def test_merge_keys_may_be_overridden():
    text = ROBOT.replace("  turn: {", "  turn: {<<: {unit: m}, unit: q, ")
    assert Embodiment.parse(text).streams["turn"].unit == "q"


def test_keys_that_are_not_names():
    data = robot_data()
    data["streams"] = {1: data["streams"]["arm"]}
    assert refusal(yaml.safe_dump(data)).startswith("robot.yaml: streams: expected names as keys")
    assert "5: unknown key" in refusal(ROBOT + "5: 6\n")


def test_a_key_with_a_dot_stays_whole():
    data = robot_data()
    data["streams"]["cam.left"] = data["streams"].pop("arm")
    body = Embodiment.parse(yaml.safe_dump(data))
    assert body.streams["cam.left"].key == "cam.left"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="absent.yaml: cannot be read: No such file"):
        Embodiment.load(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        Embodiment.load(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Größe".encode("latin-1"))
    with pytest.raises(UserError, match="latin.yaml: expected UTF-8"):
        Embodiment.load(latin)
    listing = tmp_path / "list.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(UserError, match="list.yaml: expected a mapping, saw list"):
        load_yaml_mapping(listing)


def test_load_names_the_file_in_errors(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(changed("name", ABSENT))
    with pytest.raises(UserError) as caught:
        Embodiment.load(path)
    assert str(caught.value) == f"{path}: name: missing"


def test_limits_cannot_be_changed_behind_the_file():
    command = robot().commands["links"]
    with pytest.raises(ValueError, match="read-only"):
        command.upper[0] = 99.0


def test_require_keeps_the_order_asked_for_and_names_what_there_is():
    assert list(robot().require(["thing", "arm"])) == ["thing", "arm"]
    with pytest.raises(UserError, match=r"planar.yaml: no stream 'hand'.*'arm'"):
        robot().require(["arm", "hand"])


KEYS = ("thing", "arm", "camera")
SAME = [
    ("name", "other"),
    ("base_frame", "world"),
    ("streams.arm.topic", "robot/joints"),
    ("streams.arm.rate_hz", 100),
    ("streams.arm.max_age_s", 0.5),
    ("streams.grip.unit", "m"),  # a stream that the policy does not see
    ("commands.links.topic", "arm_2/joint_trajectory"),
    ("commands.links.lower", [-1, -1]),
    ("commands.links.max_velocity", [1, 1]),
    ("workspace.upper", [1, 1, 1]),
]
OTHER = [
    ("control_rate_hz", 20),
    ("streams.arm.joints", ["elbow", "shoulder"]),
    ("streams.arm.field", "effort"),
    ("streams.arm.unit", "m"),
    ("streams.camera.shape", [3, 2, 3]),
    ("commands.links.joints", ["elbow", "shoulder"]),
    ("commands.links.unit", "m"),
    ("commands.fingers.unit", "m"),
]


@pytest.mark.parametrize(("path", "value"), SAME)
def test_the_hash_ignores_what_a_policy_does_not_see(path, value):
    moved = Embodiment.parse(changed(path, value))
    assert moved.contract_hash(KEYS) == robot().contract_hash(KEYS)


@pytest.mark.parametrize(("path", "value"), OTHER)
def test_the_hash_changes_with_the_meaning_of_a_number(path, value):
    moved = Embodiment.parse(changed(path, value))
    assert moved.contract_hash(KEYS) != robot().contract_hash(KEYS)


def test_the_hash_changes_with_the_order_of_command_groups():
    """Groups in another order are another action vector."""
    data = robot_data()
    data["commands"] = dict(reversed(data["commands"].items()))
    moved = Embodiment.parse(yaml.safe_dump(data, sort_keys=False))
    assert moved.action_names == ("finger", "shoulder", "elbow")
    assert moved.slices() == {"fingers": slice(0, 1), "links": slice(1, 3)}
    assert moved.limits()[0].tolist() == [0, -3, -2.5]
    assert moved.contract_hash(KEYS) != robot().contract_hash(KEYS)


def test_the_hash_does_not_depend_on_the_order_of_streams():
    data = robot_data()
    data["streams"] = dict(reversed(data["streams"].items()))
    moved = Embodiment.parse(yaml.safe_dump(data, sort_keys=False))
    assert moved.contract_hash(KEYS) == robot().contract_hash(reversed(KEYS))


def test_the_hash_is_what_checkpoints_on_disk_carry():
    """Written out by hand: changing the recipe would orphan every trained checkpoint."""
    content = {
        "commands": {
            "links": [["shoulder", "elbow"], "rad"],
            "fingers": [["finger"], "rad"],
        },
        "control_rate_hz": 10.0,
        "streams": {
            "arm": [
                *("sensor_msgs/msg/JointState", "position", ["shoulder", "elbow"]),
                *("", [2], "rad"),
            ],
            "camera": ["sensor_msgs/msg/Image", "", [], "rgb8", [2, 3, 3], ""],
        },
    }
    wanted = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    assert robot().contract_hash(["camera", "arm"]) == wanted


def test_workspace_and_periods():
    box = robot().workspace
    assert box.contains(np.array([1.8, 1.5, 1.0])) and not box.contains(np.array([1.81, 0, 0]))
    assert common_period_ns([20, 50, 100]) == (10, 100)
    assert common_period_ns([100]) == (100, 100)
