"""The comparison with LeRobot: programs in processes of their own, asked in turns."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

import lerobot_diffusion as bench
import torch
from _step_process import StepProcess, _environment
from _steps import CAMERAS, Cost, image_config

import embodied_rl.cli.main as cli
from embodied_rl.core.errors import UserError
from embodied_rl.policies.ptp.model import PtpModel

COMMON = {"batch": 1, "side": 40, "crop": 32, "threads": 1, "cameras": list(CAMERAS)}
SHAPES = {**dict.fromkeys(CAMERAS, (40, 40, 3)), "state": (9,)}
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from _step_server import serve

def make(settings):
    print("words of a library")
    total = []
    def add():
        total.append(settings["amount"])
        sum(range(2_000_000))
        print("more words")
    def fail():
        raise ValueError("no such weights")
    return {{"double": 2 * settings["amount"]}}, {{"step": add, "fail": fail}}

serve(make)
"""


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(folder=str(bench.HERE)))
    return path


def test_a_process_answers_with_costs_whatever_it_prints(program):
    settings = {"amount": 21, "threads": 1}
    with StepProcess(Path(sys.executable), program, settings, foreign=False) as process:
        assert process.description == {"double": 42}
        costs = [process.step("step") for _ in range(3)]
        assert min(cost.cpu_s for cost in costs) > 0.0
        assert min(cost.wall_s for cost in costs) > 0.0
        assert process.peak_mb > 1.0


def test_a_process_that_dies_is_named_with_its_last_words(program):
    settings = {"amount": 1, "threads": 1}
    with (
        StepProcess(Path(sys.executable), program, settings, foreign=False) as process,
        pytest.raises(UserError, match=r"program\.py.*exit code 1.*ValueError: no such weights"),
    ):
        process.step("fail")


def test_another_environments_python_finds_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "ours")
    monkeypatch.setenv("LD_LIBRARY_PATH", "ours")
    foreign, mine = _environment(True, 2), _environment(False, 2)
    assert "PYTHONPATH" not in foreign and "LD_LIBRARY_PATH" not in foreign
    assert mine["PYTHONPATH"] == "ours"
    assert foreign["OMP_NUM_THREADS"] == mine["OMP_NUM_THREADS"] == "2"


def test_without_lerobot_one_line_says_what_is_missing(capsys, tmp_path):
    assert cli.main(["bench", "lerobot_diffusion"]) == 2
    assert "--lerobot-python: expected" in capsys.readouterr().err
    absent = tmp_path / "bin" / "python"
    assert cli.main(["bench", "lerobot_diffusion", "--lerobot-python", str(absent)]) == 2
    error = capsys.readouterr().err
    assert str(absent) in error and error.count("\n") == 1


class Scripted:
    """Takes steps of known cost and writes down when."""

    def __init__(self, name: str, costs: list[float], calls: list[tuple[str, str]]) -> None:
        self.description = {"encoder_parameters": 2_000_000, "head_parameters": 3_000_000}
        self.peak_mb = 100.0
        self._name, self._costs, self._calls = name, iter(costs), calls

    def step(self, kind: str) -> Cost:
        self._calls.append((self._name, kind))
        return Cost(next(self._costs) if kind == "step" else 0.5, 8.0)


def test_programs_take_turns_and_speeds_are_of_median_steps():
    calls: list[tuple[str, str]] = []
    steps = {
        "ours": [9.0, 1.0, 2.0, 50.0],
        "ours_8x256": [9.0, 4.0, 4.0, 4.0],
        "lerobot": [9.0, 6.0, 8.0, 7.0],
        "lerobot_small": [9.0, 1.0, 1.0, 1.0],
    }
    programs = {name: Scripted(name, costs, calls) for name, costs in steps.items()}
    costs = bench._take_turns(programs, rounds=3)
    one_round = [(name, "step") for name in steps]
    one_round += [("ours", "encoder"), ("lerobot", "encoder")]
    assert calls == 4 * one_round
    figures = bench._figures("to2", 8, programs, costs)
    assert figures["to2_ours_samples_per_s"] == pytest.approx(8 / 2.0)
    assert figures["to2_ours_wall_samples_per_s"] == pytest.approx(1.0)
    assert figures["to2_ours_to_lerobot"] == pytest.approx(7.0 / 2.0)
    assert figures["to2_ours_8x256_to_lerobot_small"] == pytest.approx(1.0 / 4.0)
    assert figures["to2_lerobot_encoder_alone_samples_per_s"] == pytest.approx(16.0)
    assert figures["to2_lerobot_head_parameters_millions"] == pytest.approx(3.0)
    targeted = {key for key in bench.TARGETS if key.startswith("to2")}
    assert targeted == {"to2_ours_to_lerobot", "to2_ours_8x256_to_lerobot"}


@pytest.mark.timeout(300)  # another Python imports torch, on a machine that may be busy
def test_our_program_trains_the_model_that_the_settings_name():
    settings = {**COMMON, "history": 2, "horizon": 16, "width": 32, "layers": 1}
    script = bench.HERE / "_ptp_steps.py"
    with StepProcess(Path(sys.executable), script, settings, foreign=False) as process:
        process.step("step")
        process.step("encoder")
        seen = process.description
    config = image_config("resnet18", 32, history=2, chunk=15, width=32, layers=1)
    assert config.tokens == settings["horizon"]
    model = PtpModel(config, SHAPES, 7)
    assert seen["encoder_parameters"] == parameters(model.encoder)
    assert seen["head_parameters"] == parameters(model.denoiser)


@pytest.mark.skipif("LEROBOT_PYTHON" not in os.environ, reason="LEROBOT_PYTHON names no Python")
@pytest.mark.timeout(300)  # another Python imports torch, on a machine that may be busy
def test_lerobots_encoders_are_those_of_ours():
    settings = {
        **COMMON, "history": 2, "horizon": 16, "state": 9, "actions": 7,
        "down_dims": [16, 32, 64],
    }  # fmt: skip
    script, python = bench.HERE / "_lerobot_steps.py", Path(os.environ["LEROBOT_PYTHON"])
    with StepProcess(python, script, settings, foreign=True) as process:
        process.step("step")
        process.step("encoder")
        seen = process.description["encoder_parameters"]
    model = PtpModel(
        image_config("resnet18", 32, history=2, chunk=15, width=32, layers=1), SHAPES, 7
    )
    assert seen == parameters(model.encoder)


def test_the_picture_shows_every_setting(tmp_path):
    figures: dict[str, float] = {"batch": 8.0}
    for name in bench.SETTINGS:
        for program in (*bench.OURS, *bench.LEROBOT):
            figures[f"{name}_{program}_head_parameters_millions"] = 9.0
            figures[f"{name}_{program}_samples_per_s"] = 4.0
    bench.draw(figures, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000
