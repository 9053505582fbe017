"""The files of ``launch/`` under the rules of `ros2 launch`: a stand-in that holds them, and the
real package where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embodied_rl.bringup.graph_arguments import GRAPHS

pytest.importorskip("rclpy")  # the graph is refused where its nodes could not run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ARM = str(ROOT / "sim_worlds/tabletop/ur5e_2f85.yaml")
ENOUGH = {
    "sim": (),
    "robot": (f"embodiment:={ARM}", "policy:=ptp_replace_object"),
    "record": (f"embodiment:={ARM}",),
    "stand_in": (f"embodiment:={ARM}",),
}


def load(name: str, *words: str, **variables: str) -> dict:
    environment = {**os.environ, **variables}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE / "fake_ros"), str(ROOT)])
    environment.pop("VIRTUAL_ENV", None)
    environment.setdefault("EMBODIED_RL_PYTHON", sys.executable)
    done = subprocess.run(
        [sys.executable, str(HERE / "load_launch_file.py"), launch_file(name), *words],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def launch_file(name: str) -> str:
    return str(ROOT / "launch" / f"{name}.launch.py")


@pytest.mark.parametrize("name", GRAPHS)
def test_a_launch_file_loads_with_the_arguments_it_needs(name, tmp_path):
    known = {argument.name for argument in GRAPHS[name].arguments}
    out = [f"out:={tmp_path}"] if "out" in known else []
    found = load(name, *ENOUGH[name], *out)
    assert set(found["declared"]) == known
    assert f"nodes run in {sys.executable} (EMBODIED_RL_PYTHON)" in found["said"]
    for node in found["nodes"].values():
        assert node["command"][:2] == [sys.executable, "-m"]
        assert node["env"]["EMBODIED_RL_PARENT"].isdigit()


def test_a_text_stays_a_text_on_its_way_to_a_node(tmp_path):
    words = (f"out:={tmp_path}", "record:=true", "instruction:=no")
    found = load("robot", *ENOUGH["robot"], *words)
    recorder = found["nodes"]["command_gate_node"]["parameters"]
    assert recorder["embodiment"] == ARM
    (_, recorder) = next(item for item in found["nodes"].items() if item[0] == "recorder_node")
    assert recorder["parameters"]["instruction"] == "no"


@pytest.mark.parametrize(
    "word, near", [("polciy:=expert", "policy"), ("on_violaton:=stop", "on_violation")]
)
def test_a_misspelt_argument_is_refused_with_what_was_meant(word, near):
    error = load("sim", word)["error"]
    assert error.startswith("GraphFailed: ") and f"did you mean {near}?" in error
    assert "\n" not in error


def test_arguments_of_a_file_that_includes_ours_are_left_alone(tmp_path):
    found = load("sim", "rviz:=true", "polciy:=expert", f"out:={tmp_path}", "--included")
    assert "did you mean policy?" in found["said"][0] and "rviz" not in " ".join(found["said"])
    assert found["nodes"]["sim_node"]


@pytest.mark.parametrize(
    "word, expected",
    [
        ("task:=replace_objekt", "replace_object"),
        ("policy:=no_such", "there are expert"),
        ("episodes:=-1", "at least 0"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(word, expected):
    error = load("sim", word)["error"]
    assert expected in error and "\n" not in error


def test_what_is_wrong_with_an_interpreter_is_said_with_the_remedy(tmp_path):
    bare = tmp_path / "bare" / "bin" / "python"
    bare.parent.mkdir(parents=True)
    bare.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no torch here' >&2\nexit 1\n")
    bare.chmod(0o755)
    error = load("sim", EMBODIED_RL_PYTHON=str(bare))["error"]
    for part in (str(bare), "no torch here", "--system-site-packages", "EMBODIED_RL_PYTHON"):
        assert part in error
    assert "\n" not in error
    error = load("sim", EMBODIED_RL_PYTHON=str(tmp_path / "none"))["error"]
    assert "expected a Python interpreter" in error


REAL = importlib.util.find_spec("launch_ros") is not None


@pytest.mark.skipif(not REAL, reason="no launch_ros here")
@pytest.mark.parametrize("name", GRAPHS)
def test_the_real_launch_takes_our_files(name):
    script = (
        "import sys\n"
        "import launch.launch_description_sources as sources\n"
        "description = sources.get_launch_description_from_any_launch_file(sys.argv[1])\n"
        "print(*(a.name for a in description.get_launch_arguments()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, launch_file(name)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {argument.name for argument in GRAPHS[name].arguments}
