"""``embodied_rl doctor``: each failure is one line with advice, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import embodied_rl.cli.main as cli
from embodied_rl.cli import checks, doctor
from embodied_rl.cli.doctor import Question


def ask(check: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "embodied_rl.cli.checks", check],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_hidden_gl_names_the_packages():
    reply = ask("gl", __EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent", MUJOCO_GL="egl")
    assert not reply["ok"]
    assert "off-screen OpenGL does not work" in reply["seen"]
    assert "sudo apt install" in reply["advice"] and "libegl1" in reply["advice"]


@pytest.mark.parametrize("check", ["ros", "ros_node", "ros_roundtrip"])
def test_hidden_ros_is_reported(tmp_path, check):
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").write_text("raise ImportError('rclpy is hidden')\n")
    reply = ask(check, PYTHONPATH=str(tmp_path))
    assert not reply["ok"]
    assert "rclpy is hidden" in reply["seen"]
    assert "make setup" in reply["advice"]


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    def absent(name: str) -> str:
        raise checks.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checks.importlib.metadata, "version", absent)
    reply = checks.answer(checks.torch)
    assert reply == {
        "ok": False,
        "seen": "torch is not installed",
        "advice": "pip install -e '.[torch]' -c constraints.txt",
    }


def test_every_question_has_a_check():
    assert [question.check for question in doctor.QUESTIONS] == list(checks.CHECKS)


def test_report_exit_code_and_json(monkeypatch, tmp_path, capsys):
    pytest.importorskip("tyro")
    pytest.importorskip("rich")
    good = Question("python", "Python")
    lost = Question("nonsense", "a check that dies")
    monkeypatch.setattr(doctor, "QUESTIONS", (good, lost))
    target = tmp_path / "doctor.json"
    assert cli.main(["doctor", "--json", str(target)]) == 1
    report = json.loads(target.read_text())
    assert report["ok"] is False
    assert [finding["ok"] for finding in report["findings"]] == [True, False]
    assert "the check died" in report["findings"][1]["seen"]
    assert "not working: a check that dies" in capsys.readouterr().out

    # what is not needed is reported and does not decide the exit code
    monkeypatch.setattr(doctor, "QUESTIONS", (good, Question("nonsense", "extra", needed=False)))
    assert cli.main(["doctor"]) == 0
