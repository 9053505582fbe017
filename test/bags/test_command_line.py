"""``embodied_rl bags``: exit codes, one line for each fault, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import bag_maker as maker
import pytest

from embodied_rl.bags.cache import EpisodeCache
from embodied_rl.cli.main import main

ABC = [[0.1, 0.2], [0.3, 0.4]]


@pytest.fixture
def bags(tmp_path) -> Path:
    root = tmp_path / "bags"
    maker.write(root / "episode_000000", maker.episode(1.0))
    maker.write(root / "episode_000001", maker.episode(1.0))
    return root


def test_info(bags, tmp_path, capsys):
    assert main(["bags", "info", str(bags), "--json", str(tmp_path / "i.json")]) == 0
    text = capsys.readouterr().out
    for part in "/joint_states", "'lift the cube'", "success (placed)", "49.7 Hz", "2 bags":
        assert part in text
    figures = json.loads((tmp_path / "i.json").read_text())["bags"][0]
    topics = {topic["name"]: topic for topic in figures["topics"]}
    assert topics["/camera/image_raw"]["count"] == 11
    assert figures["info"]["seed"] == 42 and figures["outcome"]["success"] is True


def test_check(bags, tmp_path, capsys):
    assert main(["bags", "check", str(bags)]) == 0
    assert "0 of 2 bags damaged" in capsys.readouterr().out
    slow = maker.episode(3.0).change("/joint_states", lambda i, e: None if i % 2 else e)
    maker.write(bags / "episode_000002", slow)
    assert main(["bags", "check", str(bags), "--json", str(tmp_path / "c.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "80 %" in line]
    assert line == (
        "episode_000002: /joint_states: expected at least 40 Hz (80 % of the declared rate), "
        "saw 25.0 Hz"
    )
    assert json.loads((tmp_path / "c.json").read_text())["damaged"] == 1
    assert main(["bags", "check", str(bags), "--streams", "tool", "camera"]) == 0


def test_check_names_the_command_that_nobody_sent(tmp_path, capsys):
    """The arm was led, but the gripper's only command came from the time before the episode."""
    silent = maker.episode(1.0, executed=False)
    late = silent.change("/grip/commands", lambda i, e: e if i > 4 else None)
    maker.write(tmp_path / "late" / "episode_000000", late)
    assert main(["bags", "check", str(tmp_path / "late")]) == 0
    assert "/grip/commands: a target at 6 of 11 ticks" in capsys.readouterr().out
    ahead = silent.change(
        "/arm/joint_trajectory",
        lambda i, e: maker.Entry(e.log_ns, e.topic, maker.trajectory(e.log_ns - 10**10, "ab", ABC)),
    )
    maker.write(tmp_path / "none" / "episode_000000", ahead)
    report = tmp_path / "none.json"
    assert main(["bags", "check", str(tmp_path / "none"), "--json", str(report)]) == 1
    text = capsys.readouterr().out
    assert "no action episode_000000: 11 control ticks, 11 with all streams, 0 with an" in text
    assert "/arm/joint_trajectory: a target at 0 of 11 ticks: whoever led the robot" in text
    assert "0 of 1 bags damaged, 1 without any action" in text
    (bag,) = json.loads(report.read_text())["bags"]
    assert bag["targets"] == {"/arm/joint_trajectory": 0, "/grip/commands": 11}


def test_convert(bags, tmp_path, capsys):
    out = tmp_path / "cache"
    words = ["bags", "convert", str(bags), "--out", str(out), "--workers", "1"]
    assert main([*words, "--streams", "tool"]) == 0
    assert "2 of 2 bags usable, 22 rows; 2 converted" in capsys.readouterr().out
    assert [len(episode) for episode in EpisodeCache(out)] == [11, 11]
    assert main(words) == 1
    assert capsys.readouterr().err.startswith("error: ")
    only = tmp_path / "only"
    maker.write(only / "bad", maker.episode(1.0).without("/tool/pose"))
    words = ["bags", "convert", str(only), "--out", str(tmp_path / "none"), "--workers", "1"]
    text = str(tmp_path / "robot.yaml")
    Path(text).write_text(maker.ROBOT)
    assert main([*words, "--streams", "tool", "--embodiment", text]) == 1
    assert "0 of 1 bags usable" in capsys.readouterr().out


def test_bad_usage(tmp_path, capsys):
    assert main(["bags", "info", str(tmp_path / "nothing")]) == 1
    assert main(["bags", "explode"]) == 2
    assert main(["bags", "convert", str(tmp_path)]) == 2  # no --out
    capsys.readouterr()
    words = ["bags", "convert", str(tmp_path), "--out", str(tmp_path / "o"), "--workers", "0"]
    assert main(words) == 2
    assert "--workers: expected 1 or more, saw 0" in capsys.readouterr().err
    assert main(["bags", "--help"]) == 0
    assert "embodied_rl bags convert" in capsys.readouterr().out


def test_episodes_without_an_outcome_are_told(tmp_path, capsys):
    half = maker.episode(1.0).without("/episode/outcome")
    maker.write(tmp_path / "bags" / "half", half)
    assert main(["bags", "check", str(tmp_path / "bags")]) == 0
    assert "no outcome half: 11 control ticks" in capsys.readouterr().out
    words = [
        "bags",
        "convert",
        str(tmp_path / "bags"),
        "--out",
        str(tmp_path / "o"),
        "--workers",
        "1",
    ]
    assert main(words) == 0
    assert "half: 1 without an outcome" in capsys.readouterr().out


def test_several_episodes_offsets_and_cuts(tmp_path, capsys):
    script = maker.episode(6.0, executed=False, own=False)
    late = [maker.Entry(e.log_ns + 2 * 10**9, e.topic, e.message) for e in script.entries]
    maker.write(tmp_path / "day", maker.Script(late))
    (tmp_path / "robot.yaml").write_text(maker.ROBOT)
    robot = ["--embodiment", str(tmp_path / "robot.yaml")]
    assert main(["bags", "check", str(tmp_path / "day"), *robot, "--cut", "2", "4"]) == 0
    text = capsys.readouterr().out
    assert "sound day: 3 episodes" in text and "log time minus stamp: " in text
    assert "/joint_states 2.003 s" in text
    words = ["--out", str(tmp_path / "cache"), "--workers", "1", "--cut", "3", "--json",
             str(tmp_path / "c.json")]  # fmt: skip
    assert main(["bags", "convert", str(tmp_path / "day"), *robot, *words]) == 0
    assert "day: 2 episodes" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["episodes"] == 2
    assert (
        main(["bags", "cut", str(tmp_path / "day"), "--out", str(tmp_path / "d"), "--cut", "3"])
        == 0
    )
    assert "2 bags in" in capsys.readouterr().out
    both = [str(tmp_path / "d"), "--out", str(tmp_path / "whole")]
    assert main(["bags", "merge", *both]) == 0
    assert f"{len(script.entries)} messages of 2 bags" in capsys.readouterr().out
    for words, said in (
        (["--cut", "3", "--marks", "/m"], "one of them"),
        (["--gap", "0.1"], "--gap"),
        (["--remap", "joint_states"], "FROM:=TO"),
    ):
        assert main(["bags", "check", str(tmp_path / "day"), *robot, *words]) in (1, 2)
        assert said in capsys.readouterr().err


def test_no_action_at_all_is_red_and_refused(tmp_path, capsys):
    script = maker.episode(1.0, own=False).without("/command/executed")
    script = script.without("/arm/joint_trajectory")
    maker.write(tmp_path / "bags" / "silent", script)
    (tmp_path / "robot.yaml").write_text(maker.ROBOT)
    robot = ["--embodiment", str(tmp_path / "robot.yaml")]
    assert main(["bags", "check", str(tmp_path / "bags"), *robot]) == 1
    assert "/arm/joint_trajectory: a target at 0 of 11 ticks" in capsys.readouterr().out
    words = [str(tmp_path / "bags"), *robot, "--out", str(tmp_path / "o"), "--workers", "1"]
    assert main(["bags", "convert", *words]) == 0
    assert "silent: no action at any tick: nothing to imitate" in capsys.readouterr().out
