"""``embodied_rl stl``: formulas explained, recordings checked, pictures and events written."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bags"))

import bag_maker  # noqa: E402
from bag_maker import MS, START_NS  # noqa: E402

import embodied_rl.cli.main as cli  # noqa: E402
from embodied_rl.core.embodiment import Embodiment  # noqa: E402
from embodied_rl.stl import conformal  # noqa: E402
from embodied_rl.stl import spec as specification  # noqa: E402

ROOT = Path(__file__).parents[2]
SPEC = """
name: test_task
dt_s: 0.1
formulas:
  low: G[0,1] tool_x < {limit}
  rises: F[0,{end}] tool_x > -0.3
signals:
  tool_x: {{stream: tool, component: x, bounds: [-2, 2]}}
"""


@pytest.fixture
def bag(tmp_path) -> Path:
    return bag_maker.write(tmp_path / "bag", bag_maker.episode(2.0))


def spec(tmp_path: Path, limit: float = 0.9, end: float = 2.0) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(limit=limit, end=end), encoding="utf-8")
    return str(path)


def check(bag: Path, spec_file: str, *more: object) -> int:
    return cli.main(["stl", "check", str(bag), "--spec", spec_file, *map(str, more)])


def test_explain_shows_tree_horizon_and_groundings(capsys):
    assert cli.main(["stl", "explain", "F[0,1] A and G[0,2] not C", "--dt", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("F[0,1] A >= 0 and G[0,2] not C >= 0\n\nand  (4 steps, 2 s)\n├─ F[0,1]")
    assert "horizon   4 steps of 0.5 s = 2 s: 5 samples decide\nsignals   A, C\n" in shown
    assert shown.endswith(
        "grounding 1 of 1, up to 3 choices of times\n"
        "  t1 in [0, 1] s   from F[0,1] A >= 0\n"
        "  reach  A >= 0   at t1\n"
        "  hold   C < 0   over [0, 2]\n"
    )


def test_explain_says_why_a_formula_has_no_groundings(capsys):
    text = "G[0,2] (A U[0,1] B)"
    assert cli.main(["stl", "explain", text, "--until", "inclusive", "--rtamt"]) == 0
    shown = capsys.readouterr().out
    assert "groundings: none, outside the fragment: 'G[0,2] (A >= 0 U[0,1] (A >= 0" in shown
    assert "rtamt     always[0:20] ((A >= 0) until[0:10] ((A >= 0) and (B >= 0)))" in shown


def test_explain_points_at_the_column(capsys):
    assert cli.main(["stl", "explain", "G[0,0.25] x > 0"]) == 1
    assert capsys.readouterr().err == (
        "error: formula, column 5: expected a multiple of dt = 0.1 s (0.2 or 0.3 s), saw 0.25 s\n"
        "  G[0,0.25] x > 0\n"
        "      ^\n"
    )


def test_check_prints_verdicts_and_writes_events_picture_and_json(bag, tmp_path, capsys):
    out, events, figures = tmp_path / "a.png", tmp_path / "a.jsonl", tmp_path / "a.json"
    options = ("--out", out, "--events", events, "--json", figures)
    assert check(bag, spec(tmp_path), *options) == 0
    shown = capsys.readouterr().out
    assert "21 steps of 0.1 s, 0 with a missing signal, 0 late samples" in shown
    assert "tail rule 'interval', until strict" in shown
    found = [json.loads(line) for line in events.read_text().splitlines()]
    # the tool's x is sin t, from t = 5 s on: -0.96 and rising above -0.3 after 0.98 s
    assert [(e["event"], e["formula"], (e["stamp_ns"] - START_NS) // MS) for e in found] == [
        ("satisfied", "low", 1000),
        ("satisfied", "rises", 1000),
    ]
    result = json.loads(figures.read_text())
    assert result["kept"] is True and result["tail"] == "interval"
    assert result["formulas"]["low"]["verdict"] == "satisfied"
    assert out.read_bytes().startswith(b"\x89PNG")


def test_check_fails_for_a_violation_and_for_an_open_verdict(bag, tmp_path, capsys):
    assert check(bag, spec(tmp_path, limit=-0.5)) == 1
    assert "because tool_x < -0.5 by" in capsys.readouterr().out
    long = spec(tmp_path, end=30)
    Path(long).write_text(Path(long).read_text().replace("-0.3", "1.5"), encoding="utf-8")
    assert check(bag, long) == 1
    assert "undecided" in capsys.readouterr().out


def test_the_same_bag_gives_the_same_bytes_however_topics_lag(tmp_path):
    script = bag_maker.episode(2.0)
    written = []
    for name, lag_ns in (("plain", 0), ("lagging", 900 * MS)):
        entries = [
            bag_maker.Entry(e.log_ns + lag_ns * (e.topic == "/tool/pose"), e.topic, e.message)
            for e in script.entries
        ]
        entries.sort(key=lambda entry: entry.log_ns)
        folder = bag_maker.write(tmp_path / name, bag_maker.Script(entries))
        events = tmp_path / f"{name}.jsonl"
        assert check(folder, spec(tmp_path), "--events", events) == 0
        written.append(events.read_bytes())
    assert written[0] == written[1] and written[0]


def test_a_message_without_a_stamp_and_a_nan_are_reported_not_used(tmp_path, capsys):
    def spoil(number, entry):
        if number == 4:
            return bag_maker.Entry(entry.log_ns, entry.topic, bag_maker.pose(0, 0.5))
        if number == 6:
            stamp = START_NS + 300 * MS
            return bag_maker.Entry(entry.log_ns, entry.topic, bag_maker.pose(stamp, float("nan")))
        return entry

    script = bag_maker.episode(2.0).change("/tool/pose", spoil)
    assert check(bag_maker.write(tmp_path / "bag", script), spec(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "expected a stamp in the header, saw 0 ns" in shown
    assert "expected a finite number, saw nan" in shown


def test_a_clock_set_back_resets_the_monitor(tmp_path, capsys):
    script = bag_maker.episode(2.0, START_NS + 20_000 * MS, own=False)
    script.entries += [
        bag_maker.Entry(e.log_ns + 30_000 * MS, e.topic, e.message)
        for e in bag_maker.episode(2.0, START_NS, own=False).entries
    ]
    robot = tmp_path / "robot.yaml"
    robot.write_text(bag_maker.ROBOT, encoding="utf-8")
    folder = bag_maker.write(tmp_path / "bag", script)
    assert check(folder, spec(tmp_path), "--embodiment", robot) == 0
    shown = capsys.readouterr().out
    assert "reset" in shown and "a clock that runs on" in shown


def scaled(folder: Path, factor: float) -> None:
    """A bag whose tool moves by ``factor`` times the usual way."""

    def change(_, entry):
        stamp_ns = entry.message.header.stamp.sec * 10**9 + entry.message.header.stamp.nanosec
        x = factor * entry.message.pose.position.x
        return bag_maker.Entry(entry.log_ns, entry.topic, bag_maker.pose(stamp_ns, x))

    bag_maker.write(folder, bag_maker.episode(1.2).change("/tool/pose", change))


def test_a_calibration_of_recorded_episodes_by_hand(tmp_path, capsys):
    """Held, the first sample is the highest prediction of `G[0,1] tool_x < limit`, so the score of
    an episode is how far the tool still rises: 0.68 m times the episode's factor."""
    file = spec(tmp_path)
    text = Path(file).read_text().replace("dt_s: 0.1", "dt_s: 0.1\npredictor: hold")
    Path(file).write_text(text.replace("  rises: F[0,2.0] tool_x > -0.3\n", ""), encoding="utf-8")
    factors = np.random.default_rng(0).uniform(0.5, 1.5, 100)
    for i, factor in enumerate(factors):
        scaled(tmp_path / "bags" / f"episode_{i:06d}", factor)
    out = tmp_path / "calibration.yaml"
    command = ["stl", "calibrate", str(tmp_path / "bags"), "--spec", file, "--out", str(out)]
    assert cli.main([*command, "--delta", "0.2"]) == 0
    assert "100 episodes; wrote" in capsys.readouterr().out
    robot = Embodiment.parse(bag_maker.ROBOT, "robot.yaml")
    made = conformal.load(out, specification.load(file, robot))
    rise = math.sin(6.0) - math.sin(5.0)
    # rank ceil(101 * 0.8) = 81 of 100
    assert made.quantiles["low"] == pytest.approx(rise * sorted(factors)[80], abs=1e-9)
    assert (made.delta, made.episodes, made.predictor) == (0.2, 100, "hold")
    assert cli.main(["stl", "calibrate", str(tmp_path / "bags" / "episode_000000"), *command[3:]])
    assert "calibration: expected at least 100 episodes, saw 1" in capsys.readouterr().err


def test_bad_input_is_one_line(bag, tmp_path, capsys):
    file = spec(tmp_path)
    text = Path(file).read_text()
    Path(file).write_text(text.replace("stream: tool", "stream: wheel"), encoding="utf-8")
    assert check(bag, file) == 1
    assert "signals.tool_x.stream: expected one of" in capsys.readouterr().err
    Path(file).write_text(text.replace("tool_x <", "speed <"), encoding="utf-8")
    assert check(bag, file) == 1
    assert "formulas.low: unknown signal 'speed'; declared: tool_x" in capsys.readouterr().err
    Path(file).write_text(text, encoding="utf-8")
    without = bag_maker.write(tmp_path / "other", bag_maker.episode(1.0).without("/tool/pose"))
    assert check(without, file) == 1
    expected = "expected geometry_msgs/msg/PoseStamped, saw no such topic"
    assert expected in capsys.readouterr().err


def test_the_shipped_specification_fits_the_shipped_robot():
    folder = ROOT / "sim_worlds" / "tabletop"
    robot = Embodiment.load(folder / "ur5e_2f85.yaml")
    found = specification.load(folder / "return_home.stl.yaml", robot)
    assert "reaches_hub" in found.formulas
    assert set(found.signals.streams) == {"tool_position", "object_position", "arm_velocity"}
