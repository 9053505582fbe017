"""``embodied_rl bench``: finds scripts by name, passes options on, joins the results of several."""

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


def test_several_benchmarks_share_one_result_file(tmp_path):
    target = tmp_path / "all.json"
    assert cli.main(["bench", "transport", "tick", "--json", str(target), "--quick"]) == 1
    results = json.loads(target.read_text())
    assert [r["name"] for r in results] == ["transport", "tick"]
    assert results[0]["options"] == ["--quick"]


def test_unknown_names_list_the_valid_ones(capsys):
    assert cli.main(["bench", "trnsport"]) == 2
    error = capsys.readouterr().err
    assert "(did you mean transport?); there are transport, tick" in error
    assert cli.main(["bench"]) == 2
    assert cli.main(["bench", "--json", "x"]) == 2
    assert cli.main(["bench", "tick", "transport", "--json"]) == 2
