"""``embodied_rl bench``: finds scripts by name, passes options on, runs several."""

from __future__ import annotations

import json

import pytest

import embodied_rl.cli.main as cli
from embodied_rl.cli import bench

SCRIPT = """
import json, sys
from pathlib import Path

def main(argv):
    print("ran", "{name}", *argv)
    if "--json" in argv:
        result = dict(name="{name}", options=argv[:argv.index("--json")])
        Path(argv[argv.index("--json") + 1]).write_text(json.dumps(result))
    return {code}
"""


@pytest.fixture(autouse=True)
def scripts(monkeypatch, tmp_path):
    found = {}
    for name, code in (("transport", 0), ("tick", 1)):
        path = tmp_path / f"{name}.py"
        path.write_text(SCRIPT.format(name=name, code=code))
        found[name] = path
    monkeypatch.setattr(bench, "benchmarks", lambda: found)


def test_one_benchmark_gets_its_options_as_they_are(capsys):
    assert cli.main(["bench", "transport", "--seconds", "3"]) == 0
    assert "ran transport --seconds 3" in capsys.readouterr().out
    assert cli.main(["bench", "tick"]) == 1


def test_several_benchmarks_write_one_file_each_to_a_folder(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    assert cli.main(["bench", "transport", "tick", "--json", str(folder), "--quick"]) == 1
    for name in ("transport", "tick"):
        result = json.loads((folder / f"{name}.json").read_text())
        assert result == {"name": name, "options": ["--quick"]}


def test_several_results_in_one_file_are_refused_before_anything_runs(tmp_path, capsys):
    assert cli.main(["bench", "transport", "tick", "--json", str(tmp_path / "all.json")]) == 2
    shown = capsys.readouterr()
    assert "--json: expected a folder for the results of 2 benchmarks" in shown.err
    assert "ran" not in shown.out


def test_unknown_names_list_the_valid_ones(capsys):
    assert cli.main(["bench", "trnsport"]) == 2
    error = capsys.readouterr().err
    assert "(did you mean transport?); there are transport, tick" in error
    assert cli.main(["bench"]) == 2
    assert cli.main(["bench", "--json", "x"]) == 2
    assert cli.main(["bench", "tick", "transport", "--json"]) == 2
