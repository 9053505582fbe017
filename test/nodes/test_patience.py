"""How long a node waits for another."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from embodied_rl.core.errors import UserError  # noqa: E402
from embodied_rl.nodes import patience  # noqa: E402


class Node:
    """Keeps what is logged."""

    def __init__(self):
        self.lines: list[str] = []

    def get_logger(self):
        return self

    def info(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def passing(monkeypatch):
    """Sets the time that has passed."""
    clock = {"s": 50.0}
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock["s"])
    return lambda seconds: clock.update(s=50.0 + seconds)


def test_slowness_is_told_now_and_then_and_never_a_fault(passing):
    node = Node()
    one = patience.Patience(node, None)
    for second in range(0, 3600, 5):
        passing(second)
        one.check("sim/reset: no answer")
    assert 200 < len(node.lines) < 370
    assert node.lines[0] == "waiting for 15 s so far: sim/reset: no answer"


def test_a_limit_holds_where_there_is_one(passing):
    one = patience.Patience(Node(), 20.0)
    passing(19.0)
    one.check("sim/reset: no answer")
    passing(21.0)
    with pytest.raises(UserError, match="sim/reset: no answer within 20 s"):
        one.check("sim/reset: no answer")
