"""Launch arguments: types, bounds, choices, and what is said about mistakes."""

from __future__ import annotations

import pytest

from embodied_rl.bringup.arguments import Argument, parse, split
from embodied_rl.core.errors import UserError

ARGUMENTS = (
    Argument("mode", "lockstep", "clock", choices=("lockstep", "realtime")),
    Argument("seed", "0", "seed", "int", minimum=0),
    Argument("rate", "1.5", "rate", "float"),
    Argument("record", "false", "record", "bool"),
    Argument("cameras", "fixed,wrist", "cameras", choices=("fixed", "wrist"), several=True),
    Argument("namespace", "", "namespace", "namespace"),
    Argument("embodiment", None, "embodiment file"),
)


def values(*words: str) -> dict:
    return parse("demo", ARGUMENTS, split(["embodiment:=a.yaml", *words]))


def test_defaults_and_types():
    assert values() == {
        "mode": "lockstep",
        "seed": 0,
        "rate": 1.5,
        "record": False,
        "cameras": "fixed,wrist",
        "namespace": "",
        "embodiment": "a.yaml",
    }
    got = values("mode:=realtime", "seed:=7", "record:=True", "cameras:=none", "namespace:=/a/b/")
    assert got["mode"] == "realtime" and got["seed"] == 7 and got["record"] is True
    assert got["cameras"] == "none" and got["namespace"] == "a/b"
    assert values("cameras:=wrist, fixed")["cameras"] == "wrist,fixed"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "mode:=realtme",
            "mode:=realtme: expected one of lockstep, realtime (did you mean realtime?)",
        ),
        ("seed:=1.5", "seed:=1.5: expected a whole number of at least 0"),
        ("seed:=-1", "seed:=-1: expected a whole number of at least 0"),
        ("seed:=9223372036854775808", "expected a number up to 9223372036854775807"),
        ("rate:=inf", "rate:=inf: expected a number up to"),
        ("rate:=nan", "rate:=nan: expected a number"),
        ("record:=maybe", "record:=maybe: expected true or false"),
        ("cameras:=front", "cameras:=front: expected some of fixed, wrist, or none"),
        ("namespace:=1robot", "expected a ROS namespace"),
        ("sed:=1", "graph 'demo' has no argument 'sed' (did you mean seed?); it has mode, seed"),
        ("seed=1", "arguments are written name:=value"),
    ],
)
def test_mistakes_name_the_argument_and_what_is_valid(word, said):
    with pytest.raises(UserError) as caught:
        values(word)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_required_argument_and_one_given_twice():
    with pytest.raises(UserError, match="needs embodiment:="):
        parse("demo", ARGUMENTS, {})
    with pytest.raises(UserError, match="'seed' is given twice"):
        split(["seed:=1", "seed:=2"])
