"""docs/embodiment.md: its example is a file that loads, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.images import CONVERTIBLE
from embodied_rl.core.message_types import COMMAND_TYPES, STREAM_FIELDS

TEXT = (Path(__file__).parents[2] / "docs" / "embodiment.md").read_text(encoding="utf-8")


def test_the_example_loads():
    example, tool = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    robot = Embodiment.parse(example, "docs/embodiment.md")
    assert robot.streams["camera_wrist"].latency_ns == 90_000_000
    assert "base" in robot.streams["tool_position"].transforms
    assert robot.streams["gripper_position"].wire_joints == ("left_finger",)
    data = yaml.safe_load(example)
    data["commands"] = yaml.safe_load(tool)
    data["streams"]["tool_orientation"] = {
        **data["streams"]["tool_position"], "field": "orientation", "unit": ""
    }  # fmt: skip
    robot = Embodiment.parse(yaml.safe_dump(data), "docs/embodiment.md")
    assert robot.action_names[::5] == ("tool_x", "tool_rz")


def test_every_type_field_and_encoding_is_named():
    for kind, fields in STREAM_FIELDS.items():
        assert kind.split("/")[-1] in TEXT
        for field in fields:
            assert f"`{field}`" in TEXT, field
    for kind in COMMAND_TYPES:
        assert kind.split("/")[-1] in TEXT
    for target, sources in CONVERTIBLE.items():
        assert target in TEXT and all(f"`{source}`" in TEXT for source in sources)
