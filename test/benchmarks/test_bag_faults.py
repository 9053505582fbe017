"""The campaign of damaged bags: its reference, and that it sees what it is there to see."""

from __future__ import annotations

import json

import _fault_bags as bags
import _hostile_bags as hostile
import bag_faults as bench
import numpy as np
import pytest

import embodied_rl.cli.main as cli

FEW = bench.Arguments(truncations=3, faults=4, hostile=False)


@pytest.fixture(scope="module")
def samples() -> list[bags.Sample]:
    return bags.samples()


def test_twelve_kinds_of_files_whose_bytes_are_known(samples):
    assert len({sample.name for sample in samples}) == len(samples) == 12
    for sample in samples:
        assert len(sample.needs) == len(sample.touch) == len(sample.rows) == bags.MESSAGES
        nowhere = (len(sample.data), len(sample.data))
        assert bags.needed(sample, nowhere) == sample.rows
        assert bags.needed(sample, (0, len(sample.data))) == []
        some = len(bags.needed(sample, (len(sample.data) * 3 // 4, len(sample.data))))
        assert sample.packed or 0 <= some < bags.MESSAGES


def test_a_short_campaign_finds_nothing_wrong(tmp_path):
    path = tmp_path / "figures.json"
    words = ["bench", "bag_faults", "--truncations", "2", "--faults", "3", "--no-hostile"]
    assert cli.main([*words, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["figures"]["copies"] == 12 * (2 + 4 * 3)
    assert result["held"] and 0.5 < result["figures"]["recovered_share"] < 1


def spoilt(samples, tmp_path, monkeypatch, change) -> bench.Tally:
    """The tally of a reader whose answers are changed, for damaged copies only."""
    sample = samples[1]
    assert sample.checked
    right = bench.read
    calls = iter(range(10**6))
    monkeypatch.setattr(
        bench, "read", lambda path: change(right(path)) if next(calls) else right(path)
    )
    return bench.damage(tmp_path, sample, FEW)


def test_what_a_bad_reader_does_is_counted(samples, tmp_path, monkeypatch):
    def loses(answer):
        return answer[0][:-1], [], answer[2]

    def invents(answer):
        return [*answer[0], ("/a", 1, b"never recorded")], answer[1], answer[2]

    def repeats(answer):
        return answer[0] * 2, answer[1], answer[2]

    def fails(_):
        raise OverflowError("size")

    counts = spoilt(samples, tmp_path, monkeypatch, loses).counts
    assert counts["missing"] > 0 and counts["losses_not_said"] > 0 and counts["invented"] == 0
    monkeypatch.undo()
    assert spoilt(samples, tmp_path, monkeypatch, invents).counts["invented"] >= 15
    monkeypatch.undo()
    assert spoilt(samples, tmp_path, monkeypatch, repeats).counts["invented"] > 15
    monkeypatch.undo()
    assert spoilt(samples, tmp_path, monkeypatch, fails).counts["tracebacks"] == 19


def test_faults_are_what_they_say(samples):
    data = samples[0].data
    kinds = set()
    for what, damaged, (start, end) in bench.faults(data, FEW, np.random.default_rng(0)):
        kinds.add(what)
        assert damaged != data and damaged[:start] == data[:start]
        assert what == "cut" or damaged[end:] == data[end:]
    assert kinds == {"cut", "bit", "byte", "block"}


@pytest.mark.parametrize(
    "name", ["chunk of 2^50 bytes", "aliases of aliases", "recursive views", "names with paths"]
)
def test_hostile_files_cost_a_line(tmp_path, name):
    hostile.CASES[name](tmp_path)
    outcome = hostile.read_apart(name, tmp_path)
    assert not outcome.failed and outcome.line and "\n" not in outcome.line
    assert outcome.peak_MB < 200


def test_a_reader_that_fails_or_hangs_is_seen(tmp_path, monkeypatch):
    def fails(place):
        raise MemoryError("8 GB")

    monkeypatch.setattr(hostile, "_read", fails)
    assert hostile.read_apart("x", tmp_path).failed
    monkeypatch.setattr(hostile, "_read", lambda place: [0] * (30 << 20) and "much memory")
    assert hostile.read_apart("x", tmp_path).peak_MB > 150
    monkeypatch.setattr(hostile, "LIMIT_S", 1)
    monkeypatch.setattr(hostile, "_read", lambda place: hostile.time.sleep(30))
    outcome = hostile.read_apart("x", tmp_path)
    assert outcome.failed and "no end" in outcome.line
