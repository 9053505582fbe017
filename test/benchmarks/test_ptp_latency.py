"""The picture of the control step's latency."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

import ptp_latency as bench
from matplotlib.figure import Figure


def test_the_picture_shows_medians_as_bars_and_p95_as_lines(tmp_path, monkeypatch):
    figures: dict[str, float] = {}
    for kind in bench.KINDS:
        figures[f"{kind}_speedup_p50"] = 8.4
        for part, value in ((50, 40.0), (95, 44.0)):
            figures[f"{kind}_plain_p{part}_ms"] = 8 * value
            figures[f"{kind}_ours_p{part}_ms"] = value
            for samples in bench.MORE_SAMPLES:
                figures[f"{kind}_ours_n{samples}_p{part}_ms"] = samples * value
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (drawn.append(self), save(self, *args, **kw))
    )
    bench.draw(figures, tmp_path / "latency.png")
    left, right = drawn[0].axes
    assert [bar.get_height() for bar in left.patches] == [320.0] * 3 + [40.0] * 3
    assert [bar.get_height() for bar in right.patches] == [40.0, 160.0, 640.0]
    lines = right.collections[0].get_segments()
    assert [line[:, 1].tolist() for line in lines] == [[40, 44], [160, 176], [640, 704]]
