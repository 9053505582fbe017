from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section
from embodied_rl.training.config import as_mapping, read_dataclass, read_yaml


@dataclass(frozen=True)
class Part:
    size: int = 1


@dataclass(frozen=True)
class Settings:
    names: tuple[str, ...]
    rate: float = 1.0
    count: int = 2
    on: bool = True
    parts: Mapping[str, Part] = field(default_factory=dict)
    whole: Part = field(default_factory=Part)

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count: expected 0 or more, saw {self.count}")


def read(data):
    return read_dataclass(Settings, Section("a.yaml", "part", data))


def test_round_trip():
    settings = read({"names": ["x", "y"], "rate": 3})
    assert settings == Settings(("x", "y"), 3.0)
    assert read(as_mapping(settings)) == settings
    nested = read({"names": ["x"], "parts": {"a": {}, "b": {"size": 3}}})
    assert nested.whole == Part() and read({"names": ["x"], "whole": {"size": 4}}).whole == Part(4)
    assert nested.parts == {"a": Part(), "b": Part(3)} and read(as_mapping(nested)) == nested


@pytest.mark.parametrize(
    "data, words",
    [
        ({}, "part.names: missing"),
        ({"names": "x"}, "part.names: expected a list"),
        ({"names": ["x"], "rat": 1}, "part.rat: unknown key; did you mean 'rate'"),
        ({"names": ["x"], "count": 1.5}, "part.count: expected a value of type int, saw 1.5"),
        ({"names": ["x"], "on": 1}, "part.on: expected a value of type bool, saw 1"),
        ({"names": ["x"], "parts": 3}, "part.parts: expected a mapping"),
        ({"names": ["x"], "parts": {"a": 3}}, "part.parts.a: expected a mapping"),
        ({"names": ["x"], "parts": {"a": {"sizes": 3}}}, "part.parts.a.sizes: unknown key"),
        ({"names": ["x"], "whole": {"sizes": 3}}, "part.whole.sizes: unknown key"),
        ({"names": ["x"], "whole": 3}, "part.whole: expected a mapping"),
        ({"names": ["x"], "rate": float("nan")}, "part.rate"),
        ({"names": ["x"], "count": -1}, "part.count: expected 0 or more, saw -1"),
    ],
)
def test_errors_name_file_and_key(data, words):
    with pytest.raises(UserError, match="a.yaml") as caught:
        read(data)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "- 1", "a: [", "\x00"])
def test_files_that_are_no_mapping(tmp_path, text):
    path = tmp_path / "a.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match="a.yaml"):
        read_yaml(path)
