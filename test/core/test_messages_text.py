"""Texts that anybody may send: refused in one short line, whatever they hold."""

from __future__ import annotations

import pytest

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.core.schema import LONGEST_MESSAGE, parse_message, parse_yaml, plain

SOUND = "{episode: 1, seed: 2, task: t, instruction: i, start_ns: 3}"
LAUGHS = "a: &a [x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 8)}]"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "{a: " * 4000,
        LAUGHS,
        "x" * 10**6,
        "\x1b[2J\x00",
        "- &a [*a]",
        SOUND.replace("3}", "-5}"),
        SOUND.replace("3}", "9" * 23 + "}"),
        SOUND.replace("3}", "9" * 5000 + "}"),
        SOUND.replace("2,", "true,"),
        SOUND.replace("t,", "[" * 300 + "]" * 300 + ","),
        SOUND.replace("{", "{'\\e[31mred': 1, "),
    ],
)
def test_a_hostile_announcement_costs_one_short_line(text):
    with pytest.raises(UserError) as said:
        EpisodeInfo.from_yaml(text, "episode/start")
    line = str(said.value)
    assert line.startswith("episode/start: ") and len(line) < 500 and line.isprintable()


def test_a_sound_announcement_of_any_usual_size_is_taken():
    told = "go there; " * 900
    info = EpisodeInfo(1, 2, "t", told, 3)
    assert EpisodeInfo.from_yaml(info.to_yaml(), "t") == info
    assert len(told) < LONGEST_MESSAGE < len(told * 3)


def test_files_may_have_aliases_and_messages_may_not():
    text = "{a: &x [1, 2], b: *x}"
    assert parse_yaml(text, "file") == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(UserError, match="an alias"):
        parse_message(text, "topic")
    with pytest.raises(UserError, match="too deeply"):
        parse_yaml("[" * 3000 + "]" * 3000, "file")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n  b\tc", "a b c"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("grün \u202e", "grün \\u202e"),
        ("x" * 1000, "x" * 297 + "..."),
    ],
)
def test_what_is_shown_of_a_text_of_unknown_origin(text, shown):
    assert plain(text) == shown
