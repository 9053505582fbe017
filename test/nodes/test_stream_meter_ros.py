"""What a stream's meter makes of rates, lateness, frozen values and floods of bad messages."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from embodied_rl.core.embodiment import Embodiment  # noqa: E402
from embodied_rl.nodes.causes import MOST, Causes  # noqa: E402
from embodied_rl.nodes.stream_meter import StreamMeter  # noqa: E402

MS = 1_000_000
TEXT = """
name: one
control_rate_hz: 10
streams:
  eye: {topic: eye, type: geometry_msgs/msg/PoseStamped, field: position, rate_hz: 30,
        max_age_s: 0.3, stuck_after_s: 0.5}
commands:
  a: {topic: a, type: std_msgs/msg/Float64MultiArray, joints: [j], lower: [0], upper: [1],
      max_velocity: [1]}
"""


def meter() -> StreamMeter:
    return StreamMeter(Embodiment.parse(TEXT, "one").streams["eye"])


def feed(one: StreamMeter, begin_ms: float, end_ms: float, hz: float, late_ms=5, value=None):
    """Samples on a grid; a new value each time unless one is given. Where the next one would be."""
    at = begin_ms
    while at < end_ms:
        seen = np.full(3, at if value is None else value)
        one.count(round(at * MS), seen, round((at + late_ms) * MS))
        at += 1000 / hz
    return at


def test_a_stream_that_slows_down_is_named_and_comes_back():
    one = meter()
    at = feed(one, 0, 3000, 30)
    assert not one.slow
    at = feed(one, at, at + 1000, 8)
    line = one.slow
    assert "'eye' on eye: expected at least 80% of 30 Hz, saw" in line
    at = feed(one, at, at + 1000, 8)
    assert one.slow == line, "one cause, one text"
    feed(one, at, at + 2500, 30)
    assert not one.slow


def test_messages_that_overtake_each_other_do_not_spoil_the_rate():
    one, random = meter(), np.random.default_rng(0)
    stamps = [i * 33.333 for i in range(120)]
    for stamp in sorted(stamps, key=lambda s: s + random.uniform(0, 200)):
        one.count(round(stamp * MS), np.zeros(3), round(stamp * MS))
    assert one.rate_hz() == pytest.approx(30, rel=0.02) and not one.slow
    assert list(one.stamps) == sorted(one.stamps)


def test_a_silent_stream_is_noticed_a_period_and_a_half_beyond_its_age():
    one = meter()
    feed(one, 0, 1000, 30)
    last = one.stamps[-1]
    assert not one.silent(last + 450 * MS, 100 * MS)
    assert "no sample of the last 0.3 s" in one.silent(last + 451 * MS, 100 * MS)


def test_lateness_is_measured_and_what_to_declare_is_said():
    one = meter()
    feed(one, 0, 3000, 30, late_ms=88)
    assert "eye.hint" not in one.figures(late=0)
    figures = one.figures(late=7)
    assert figures["eye.late_p95_ms"] == 88.0 and figures["eye.late_samples"] == 7
    assert figures["eye.hint"] == "declare latency_s: 0.09"
    feed(one, 3000, 30000, 30, late_ms=1000)
    assert "come 1 s after their stamps" in one.why_missing()


def test_a_frozen_value_counts_as_stuck_only_while_the_robot_is_told_to_move():
    one = meter()
    at = feed(one, 0, 1000, 30)
    frozen_ns = round(at * MS)
    at = feed(one, at, at + 600, 30, value=7.0)
    assert "stuck" in one.stuck(0) and "stuck" in one.stuck(frozen_ns)
    assert not one.stuck(None) and not one.stuck(frozen_ns + 200 * MS)
    feed(one, at, at + 40, 30)
    assert not one.stuck(0)


def test_one_line_a_cause_and_no_more_than_so_many_causes():
    causes = Causes()
    said = [causes.note(f"stamp {i * 1.37:.3f} s ahead") for i in range(600)]
    assert said == ["stamp 0.000 s ahead"] + [""] * 599 and causes.count == 600
    assert causes.last == "stamp 0.000 s ahead"
    words = [causes.note(f"encoding {'x' * i}\x1b[2J") for i in range(200)]
    assert sum(map(bool, words)) < MOST and all(word.isprintable() for word in words)
