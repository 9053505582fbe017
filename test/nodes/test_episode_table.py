"""The table of the episodes on terminals of different width."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from rich.console import Console  # noqa: E402

from embodied_rl.core.policy import EpisodeInfo, Outcome  # noqa: E402
from embodied_rl.nodes.episode_node import EpisodeNode, Row  # noqa: E402

TOPICS = ["camera/fixed/segmentation", "tcp_pose_broadcaster/pose"]


def table(width: int, reason: str, trial: int = 7) -> str:
    row = Row(EpisodeInfo(7, 1, "replace_object", "", 0, trial), wall_s=3.1)
    row.outcome = Outcome(True, not reason, reason or "success", 1.0)
    row.report = {"ticks": 65, "period_s": 0.1, "deadline_misses": 12}
    row.report |= {"latency_p50_ms": 47.04, "latency_p95_ms": 126.1}
    row.bag = {"counts": dict.fromkeys(TOPICS, 321), "streams": TOPICS}
    node = SimpleNamespace(_rows=[row])
    node._cells = lambda row: EpisodeNode._cells(node, row)
    console = Console(width=width)
    with console.capture() as shown:
        console.print(EpisodeNode._table(node))
    return shown.get()


@pytest.mark.parametrize("reason", ["", "the cube was put down on the wrong pad"])
@pytest.mark.parametrize("width", [80, 120])
def test_no_figure_is_cut(width, reason):
    text = table(width, reason)
    for figure in ("7", "64", "x2.1", "50.0", "p50 47.0", "p95 126.1", "12"):
        assert f" {figure} " in text, text
    assert all(len(line) <= width for line in text.splitlines())
    if width == 120:
        assert all(f"50.0 {topic} " in text for topic in TOPICS)


@pytest.mark.parametrize("width", [80, 120])
def test_trials_are_shown_where_episodes_share_a_world(width):
    assert "trial" not in table(width, "")
    text = table(width, "", trial=3)
    header = next(line for line in text.splitlines() if "trial" in line)
    row = next(line for line in text.splitlines() if " yes" in line)
    assert row[: header.index("trial") + 5].split() == ["7", "3"]
    assert "p95 126.1" in text and all(len(line) <= width for line in text.splitlines())
