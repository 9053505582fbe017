"""A mobile base in the embodiment file, its odometry and its velocity commands."""

from __future__ import annotations

import math
from types import SimpleNamespace as Msg

import numpy as np
import pytest
import yaml
from base_cases import ROBOT, odometry, rover, rover_with_lift, text, twist, xyz
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.decode import decode
from embodied_rl.core.decode_commands import read_targets
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import MessageError, UserError
from embodied_rl.core.heading import quaternion_of, wrapped, yaw_of
from embodied_rl.core.schema import Section
from embodied_rl.core.signals import parse_signals

BODY = rover()
KEYS = ("base_position", "base_yaw", "base_linear_velocity")


# The file


def test_a_base_is_read_with_names_units_and_limits():
    command = BODY.commands["base"]
    assert BODY.action_names == command.names == ("linear_x", "angular_z")
    assert command.velocity and command.unit == "m/s, rad/s"
    lower, upper, rate = BODY.limits()
    assert (lower.tolist(), upper.tolist(), rate.tolist()) == ([-0.5, -1], [2, 1], [1, 5])
    shapes = {key: stream.shape for key, stream in BODY.streams.items()}
    assert shapes == {
        "base_position": (3,),
        "base_orientation": (4,),
        "base_yaw": (1,),
        "base_linear_velocity": (3,),
        "base_angular_velocity": (3,),
    }


def test_only_velocities_come_to_rest_at_zero():
    body = rover_with_lift()
    assert body.action_names == ("linear_x", "angular_z", "lift", "claw")
    assert body.velocities.tolist() == [True, True, False, False]
    assert body.at_rest(np.array([1.0, 0.5, 0.3, 0.05])).tolist() == [0, 0, 0.3, 0.05]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dimensions": None}, "commands.base.dimensions: missing"),
        ({"max_acceleration": None}, "commands.base.max_acceleration: missing"),
        ({"dimensions": ["linear_x", "yaw"]}, "dimensions: expected names among ['linear_x'"),
        ({"dimensions": ["linear_x", "linear_x"]}, "dimensions: expected different names"),
        ({"dimensions": ["linear_x"]}, "lower: expected 1 numbers, saw 2"),
        ({"lower": [0.1, -1]}, "lower: expected 0 within the limits"),
        ({"upper": [-0.1, 1]}, "lower: expected 0 within the limits"),
        ({"max_acceleration": [0, 1]}, "max_acceleration: expected values above 0"),
        ({"max_velocity": [1, 1]}, "commands.base.max_velocity: unknown key"),
        ({"joints": ["left"]}, "commands.base.joints: unknown key"),
        ({"unit": "m/s"}, "commands.base.unit: unknown key"),
        ({"type": "geometry_msgs/msg/Pose"}, "commands.base.type: expected one of"),
    ],
)
def test_a_wrong_base_is_refused_in_one_line(changes, said):
    with pytest.raises(UserError) as caught:
        rover(**changes)
    assert str(caught.value).startswith("rover.yaml: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hash_is_of_the_meaning_not_of_the_message():
    same = BODY.contract_hash(KEYS)
    assert rover(topic="base/cmd_vel").contract_hash(KEYS) == same
    assert rover(type="geometry_msgs/msg/Twist").contract_hash(KEYS) == same
    assert rover(max_acceleration=[2, 2]).contract_hash(KEYS) == same
    assert rover(dimensions=["angular_z", "linear_x"]).contract_hash(KEYS) != same
    sideways = yaml.safe_load(text())
    sideways["streams"]["base_yaw"]["unit"] = ""
    assert Embodiment.parse(yaml.safe_dump(sideways)).contract_hash(KEYS) != same


# Odometry


def test_every_field_of_an_odometry():
    values = {key: decode(stream, odometry()).value for key, stream in BODY.streams.items()}
    assert values["base_position"].tolist() == [1, 2, 3]
    assert values["base_orientation"].tolist() == [0, 0, 0.6, 0.8]
    assert values["base_yaw"] == pytest.approx([2 * math.atan2(0.6, 0.8)])
    assert values["base_linear_velocity"].tolist() == [0.4, 0.5, 0.6]
    assert values["base_angular_velocity"].tolist() == [0.7, 0.8, 0.9]
    assert decode(BODY.streams["base_yaw"], odometry()).stamp_ns == 12_000_000_345


@pytest.mark.parametrize(
    ("key", "message", "said"),
    [
        ("base_position", odometry(sec=-1), "odom: expected a stamp"),
        ("base_position", odometry(position=xyz(y=math.nan)), "odom: position[1]: expected a fin"),
        ("base_linear_velocity", odometry(linear=xyz(math.inf)), "odom: linear_velocity[0]: exp"),
        ("base_angular_velocity", odometry(angular=xyz(0, 0, math.nan)), "odom: angular_velocity"),
        *(
            (key, odometry(orientation=Msg(x=0.0, y=0.0, z=z, w=w)), "expected a unit quaternion")
            for key in ("base_yaw", "base_orientation")
            for z, w in ((0.0, 0.0), (0.5, 0.5), (math.nan, 1.0), (0.0, math.inf))
        ),
    ],
)
def test_an_unsound_odometry_is_refused(key, message, said):
    with pytest.raises(MessageError) as caught:
        decode(BODY.streams[key], message)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@given(yaw=st.floats(-20, 20))
def test_a_yaw_survives_the_quaternion_bit_for_bit(yaw):
    heading = wrapped(yaw)
    assert yaw_of(quaternion_of(heading)) == heading
    assert math.isclose(math.cos(heading), math.cos(yaw), abs_tol=1e-11)
    assert math.isclose(math.sin(heading), math.sin(yaw), abs_tol=1e-11)
    assert -math.pi - 1e-12 <= heading <= math.pi + 1e-12


@given(yaw=st.floats(-3.1, 3.1), pitch=st.floats(-1.2, 1.2), roll=st.floats(-1.2, 1.2))
def test_the_yaw_of_a_tilted_base_is_that_of_its_rotation_matrix(yaw, pitch, roll):
    """The x axis of R = Rz Ry Rx stands at the yaw, seen from above."""
    (sr, sp, sy), (cr, cp, cy) = (
        [f(angle / 2) for angle in (roll, pitch, yaw)] for f in (math.sin, math.cos)
    )
    turn = (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )
    assert math.isclose(yaw_of(turn), yaw, abs_tol=1e-9)


def test_signals_of_a_base():
    declared = """
    heading: {stream: base_yaw, component: yaw, unit: rad, bounds: [-3.15, 3.15]}
    speed: {stream: base_linear_velocity, component: x, unit: m/s}
    to_goal: {stream: base_position, minus: [4, 6, 0], norm: [x, y], unit: m}
    turning: {stream: base_angular_velocity, component: z}
    """
    data = {"signals": yaml.safe_load(declared)}
    signals = parse_signals(Section("spec.yaml", "", data).children("signals"), BODY)
    values = {key: decode(stream, odometry()).value for key, stream in BODY.streams.items()}
    found = {name: float(value) for name, value in signals.evaluate(values).items()}
    assert found["to_goal"] == 5.0 and found["speed"] == 0.4 and found["turning"] == 0.9
    assert found["heading"] == pytest.approx(2 * math.atan2(0.6, 0.8))
    data["signals"]["heading"]["component"] = "z"
    with pytest.raises(UserError, match=r"component: expected one of \['yaw'\]"):
        parse_signals(Section("spec.yaml", "", data).children("signals"), BODY)


# Twists


@pytest.mark.parametrize("kind", ["TwistStamped", "Twist"])
def test_a_twist_is_read_in_the_order_of_the_dimensions(kind):
    body = rover(type=f"geometry_msgs/msg/{kind}", dimensions=["angular_z", "linear_x"])
    message = twist(xyz(0.3), xyz(z=-0.2))
    stamped = Msg(twist=message) if kind == "TwistStamped" else message
    assert read_targets(stamped, body.commands["base"]).tolist() == [-0.2, 0.3]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (twist(xyz(math.nan)), "cmd_vel: linear_x: expected a finite number, saw nan"),
        (twist(angular=xyz(z=-math.inf)), "cmd_vel: angular_z: expected a finite number"),
        (twist(xyz(y=math.nan)), "cmd_vel: linear_y: expected a finite number"),
        (twist(xyz(y=0.1)), "cmd_vel: linear_y: expected 0, for this robot has only ['linear_x'"),
        (twist(angular=xyz(x=1.0)), "cmd_vel: angular_x: expected 0"),
    ],
)
def test_an_unsound_twist_is_refused(message, said):
    with pytest.raises(MessageError) as caught:
        read_targets(Msg(twist=message), BODY.commands["base"])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_file_of_the_tests_is_what_it_says():
    assert Embodiment.parse(ROBOT).contract_hash(KEYS) == BODY.contract_hash(KEYS)
