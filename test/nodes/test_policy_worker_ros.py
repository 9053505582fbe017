"""The worker with a clock of the test's own: leaps, slow plans, requests that overtake a plan."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from embodied_rl.core.embodiment import Embodiment  # noqa: E402
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec  # noqa: E402
from embodied_rl.core.window import Sample  # noqa: E402
from embodied_rl.nodes.policy_worker import PolicyWorker  # noqa: E402

TEXT = """
name: one
control_rate_hz: 10
streams:
  eye: {topic: eye, type: geometry_msgs/msg/PoseStamped, field: position, rate_hz: 20,
        max_age_s: 0.3}
commands:
  a: {topic: a, type: std_msgs/msg/Float64MultiArray, joints: [j], lower: [0], upper: [1],
      max_velocity: [1]}
"""
BODY = Embodiment.parse(TEXT, "one")
S, PERIOD_NS = 10**9, BODY.period_ns
BEGIN_NS = 1_800_000_000 * S


class Thinker:
    """Waits in its plan for as long as the test says."""

    def __init__(self):
        self.spec = PolicySpec(
            "thinker", {"eye": (3,)}, 1, 4, 1, 10.0, 1, 1, "one", BODY.contract_hash(["eye"])
        )
        self.rows, self.episodes = [], []
        self.go, self.thinking = threading.Event(), threading.Event()
        self.go.set()

    def reset(self, episode):
        self.episodes.append(episode)

    def observe(self, observation):
        self.rows.append(observation)

    def act(self):
        self.thinking.set()
        assert self.go.wait(30)
        return ActionChunk(self.rows[-1].stamp_ns, PERIOD_NS, np.zeros((4, 1)))

    def executed(self, chunk):
        del chunk

    def save_memory(self):
        return b""

    def load_memory(self, blob):
        del blob


class Outlet:
    def __init__(self):
        self.clock_ns, self.lines, self.chunks = BEGIN_NS, [], []

    def now_ns(self):
        return self.clock_ns

    def take_waiting(self):
        pass

    def send(self, chunk):
        self.chunks.append(chunk)

    def beat(self):
        pass

    def show_plan(self, policy):
        pass

    def unsound(self):
        return ""

    def why_missing(self, keys):
        return f"no sample of {keys}"

    def say(self, line, level="error"):
        self.lines.append(line)

    def broken(self, trace):
        self.lines.append(trace)


class Bench:
    def __init__(self):
        self.policy, self.outlet = Thinker(), Outlet()
        self.worker = PolicyWorker(self.policy, BODY, False, self.outlet)
        self.worker.start()

    def begin(self, number: int = 0) -> None:
        self.worker.begin(EpisodeInfo(number, 1, "", "", self.outlet.clock_ns))

    def run(self, seconds: float) -> None:
        """Time goes on, with a sample every 50 ms."""
        for _ in range(round(seconds * 20)):
            self.outlet.clock_ns += 50_000_000
            stamp = self.outlet.clock_ns
            self.worker.put("eye", Sample(stamp, np.full(3, stamp % 1000)), 0.0)

    def until(self, condition) -> None:
        deadline_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline_s, self.outlet.lines
            time.sleep(0.001)

    def row_of_now(self) -> bool:
        tick = self.outlet.clock_ns // PERIOD_NS * PERIOD_NS
        return bool(self.policy.rows) and self.policy.rows[-1].stamp_ns == tick

    def settle(self) -> None:
        self.until(self.row_of_now)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.policy.go.set()
    made.worker.stop()
    made.worker.join(5)


@pytest.mark.parametrize("leap_s", [600, 3600, -600, 10**9 - 1_700_000_000])
def test_a_clock_that_leaps_is_said_once_and_followed_at_once(bench, leap_s):
    bench.begin()
    bench.run(1)
    bench.settle()
    assert not bench.outlet.lines and len(bench.policy.episodes) == 1
    bench.outlet.clock_ns += leap_s * S
    mark, count = time.monotonic(), len(bench.policy.rows)
    bench.until(lambda: bench.outlet.lines)
    bench.run(1)
    bench.settle()
    assert time.monotonic() < mark + 5 and len(bench.policy.rows) < count + 20
    assert len(bench.policy.episodes) == 2 and len(bench.outlet.lines) == 1
    word = "leapt ahead" if leap_s > 0 else "was set back"
    said = re.search(rf"the clock {word} by ([0-9.]+) s", bench.outlet.lines[0])
    assert said is not None and abs(float(said[1]) - abs(leap_s)) < 1
    bench.until(lambda: bench.outlet.chunks[-1].stamp_ns >= bench.outlet.clock_ns - PERIOD_NS)


def test_after_a_slow_plan_every_row_has_what_had_come(bench):
    bench.begin()
    bench.run(0.5)
    bench.settle()
    bench.policy.go.clear()
    bench.policy.thinking.clear()
    bench.run(0.1)
    bench.until(bench.policy.thinking.is_set)
    bench.run(2.0)  # while it thinks
    bench.policy.go.set()
    bench.settle()
    stamps = [row.stamp_ns for row in bench.policy.rows]
    assert set(np.diff(stamps)) == {PERIOD_NS}
    for row in bench.policy.rows[1:]:
        assert not row.missing and row.values["eye"][0] == row.stamp_ns % 1000
    assert bench.worker.report.skipped >= 15 and not sum(bench.worker.loop.builder.late.values())
    line = next(line for line in bench.outlet.lines if "inference" in line)
    assert "whole chunk lasts 0.40 s" in line and len(line) < 150


def test_a_plan_for_an_episode_that_is_over_is_thrown_away(bench):
    bench.begin()
    bench.run(0.3)
    bench.settle()
    bench.policy.go.clear()
    bench.policy.thinking.clear()
    bench.run(0.1)
    bench.until(bench.policy.thinking.is_set)
    sent = len(bench.outlet.chunks)
    bench.outlet.clock_ns += 10_000_000  # what came before does not count in the new episodes
    mark = time.monotonic()
    for number in range(1, 5):
        bench.begin(number)
    answers = []
    bench.worker.ask(lambda loop: answers.append(loop.episode.episode))
    assert time.monotonic() < mark + 1, "it waited for the plan"
    bench.policy.go.set()
    bench.until(lambda: answers)
    assert answers == [4] and [e.episode for e in bench.policy.episodes] == [0, 4]
    assert len(bench.outlet.chunks) == sent
    bench.run(0.3)
    bench.settle()
    bench.until(lambda: len(bench.outlet.chunks) > sent)


def test_a_request_is_answered_when_the_worker_stops_amid_a_plan(bench):
    bench.begin()
    bench.policy.go.clear()
    bench.run(0.3)
    bench.until(bench.policy.thinking.is_set)
    answers = []
    bench.worker.ask(answers.append)
    bench.worker.stop()
    assert answers == [None] and not bench.worker.alive
    bench.policy.go.set()
    bench.worker.join(5)
    assert answers == [None] and not bench.worker.running


def test_two_rows_without_a_stream_are_too_many_and_planning_waits_for_the_row_after(bench):
    bench.begin()
    bench.run(1)
    bench.settle()
    assert not bench.worker.report.missing
    for _ in range(6):
        bench.outlet.clock_ns += PERIOD_NS
        bench.until(lambda: bench.worker.last_tick_ns >= bench.outlet.clock_ns - 2 * PERIOD_NS)
    bench.until(lambda: bench.worker.report.missing == "no sample of ['eye']")
    sent, sound = len(bench.outlet.chunks), bench.outlet.clock_ns
    bench.run(0.5)
    bench.settle()
    bench.until(lambda: not bench.worker.report.missing)
    assert len(bench.outlet.chunks) == sent, "the gate is told first"
    bench.run(0.2)
    bench.until(lambda: len(bench.outlet.chunks) > sent)
    assert bench.outlet.chunks[sent].stamp_ns > sound + PERIOD_NS // 2
