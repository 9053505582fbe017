"""The command line: verbs, exit codes, one-line errors."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

import embodied_rl.cli.main as cli
from embodied_rl.cli import UsageError
from embodied_rl.core.errors import UserError


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "embodied_rl.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_help_lists_every_verb_with_an_example():
    done = command("--help")
    assert done.returncode == 0
    for verb in ("launch", "train", "eval", "bags", "stl", "bench", "doctor"):
        assert f"\n  {verb} " in done.stdout
        assert f"  embodied_rl {verb}" in done.stdout


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from embodied_rl.cli.main import main; main(['--help']);"
        "print([m for m in ('numpy', 'rclpy', 'torch', 'tyro', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_unknown_verbs_name_the_valid_ones():
    done = command("lunch")
    assert done.returncode == 2
    assert done.stderr == (
        "error: unknown verb 'lunch' (did you mean launch?); "
        "there are launch, record, stop, status, train, eval, bags, stl, bench, doctor\n"
    )
    assert command().returncode == 2


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (UserError("bag a: no such file"), 1, "error: bag a: no such file\n"),
        (UsageError("unknown thing"), 2, "error: unknown thing\n"),
        (KeyboardInterrupt(), 1, "error: interrupted\n"),
        (SystemExit(2), 2, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_errors_become_one_line_and_an_exit_code(monkeypatch, capsys, raised, code, printed):
    def fail(argv: list[str]) -> int:
        raise raised

    module = types.SimpleNamespace(main=fail)
    monkeypatch.setitem(sys.modules, "embodied_rl.cli.doctor", module)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == printed


def test_a_missing_package_is_named_and_a_defect_keeps_its_traceback(monkeypatch, capsys):
    def lacks(argv: list[str]) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    def defective(argv: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setitem(sys.modules, "embodied_rl.cli.doctor", types.SimpleNamespace(main=lacks))
    assert cli.main(["doctor"]) == 1
    assert "Python package 'torch' is not installed" in capsys.readouterr().err
    monkeypatch.setitem(
        sys.modules, "embodied_rl.cli.doctor", types.SimpleNamespace(main=defective)
    )
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])
