"""Commands without a stamp on the clock of the streams, against what truly happened.

Every case knows when each command was given by the clock of the stamps; the bag only tells when it
was logged, by another clock, at another pace, with delays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import bag_maker as maker
import numpy as np
import pytest
from test_base_actions import ROBOT, odometry, twist

from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.bags.rows import EpisodeReader
from embodied_rl.core.embodiment import Embodiment

MS = maker.MS
START, SECONDS, PERIOD = 100_000 * MS, 12, 100 * MS
Clock = Callable[[int], float]  # stamp since the start in ns -> log time in ns
BODY = Embodiment.parse(ROBOT.replace("KIND", "Twist"), "rover.yaml")


def commands() -> list[tuple[int, float]]:
    """True time and velocity of each command, no nearer than 12 ms to a control tick."""
    rng = np.random.default_rng(5)
    times = []
    for tick in range(2, SECONDS * 10 - 2):
        if rng.random() < 0.8:
            times.append(START + tick * PERIOD + int(rng.integers(12, 88)) * MS)
    return [(time, round(0.001 * n, 3)) for n, time in enumerate(times, 1)]


def wanted(ticks_ns: np.ndarray) -> list[float | None]:
    """The velocity in force at the end of the period of each tick; it lasts half a second."""
    found: list[float | None] = []
    for tick in ticks_ns:
        given = [(time, v) for time, v in commands() if time < tick + PERIOD]
        lasts = bool(given) and tick - given[-1][0] <= 500 * MS
        found.append(given[-1][1] if lasts else None)
    return found


def script(clock: Clock, seed: int = 1) -> maker.Script:
    rng, made = np.random.default_rng(seed), maker.Script()

    def log(stamp: int) -> int:
        return round(clock(stamp - START)) + int(rng.integers(1, 6)) * MS

    for now in range(START, START + SECONDS * 1000 * MS + 1, 20 * MS):
        made.add(log(now), "/odom", odometry(now))
    for now, v in commands():
        made.add(log(now), "/cmd_vel", twist("Twist", 0, v, 0.0))
    made.entries.sort(key=lambda entry: entry.log_ns)
    return made


def uneven(since: int) -> float:
    """A simulation whose pace changes every second between 0.15 and 0.4 of real time."""
    paces = np.random.default_rng(3).uniform(0.15, 0.4, 40)
    whole, rest = divmod(since / 1e9, 1.0)
    return (np.sum(1 / paces[: int(whole)]) + rest / paces[int(whole)]) * 1e9


EPOCH = 1_700_000_000 * 10**9
CLOCKS: dict[str, Clock] = {
    "one clock": lambda since: START + since,
    "0.9 s apart": lambda since: START + since + 900 * MS,
    "0.3 s apart": lambda since: START + since + 300 * MS,
    "0.9 s the other way": lambda since: START + since - 900 * MS,
    "simulated time": lambda since: EPOCH + since,
    "half speed": lambda since: EPOCH + 2 * since,
    "double speed": lambda since: EPOCH + since / 2,
    "8 s in 47 s": lambda since: EPOCH + since * 47 / 8,
    "uneven": lambda since: EPOCH + uneven(since),
    "paused": lambda since: EPOCH + since + (3000 * MS if since > 6050 * MS else 0),
    "stepped": lambda since: START + since + (700 * MS if since > 6050 * MS else 0),
}


def read(folder, made: maker.Script):
    path = maker.write(folder / "bag", made)
    with Bag.open(path) as bag:
        return read_episode(bag, BODY)


def differences(found) -> int:
    truth = wanted(found.stamps_ns)
    return sum(
        bool(valid) != (value is not None) or (value is not None and action[0] != value)
        for action, valid, value in zip(found.actions, found.action_valid, truth, strict=True)
    )


@pytest.mark.parametrize("name", CLOCKS)
def test_commands_are_where_they_were(tmp_path, name):
    found = read(tmp_path, script(CLOCKS[name]))
    assert len(found) == SECONDS * 10 + 1
    assert differences(found) == 0
    assert not found.report.damaged
    drifting = name in ("half speed", "double speed", "8 s in 47 s", "uneven", "paused", "stepped")
    told = [line for line in found.report.all_lines() if "one pace" in line]
    assert len(told) == drifting, found.report.lines()


def test_a_late_first_message(tmp_path):
    """The first odometry waited in a queue for 1.5 s; the recorder then got all of it at once."""
    made = script(CLOCKS["simulated time"])
    until = EPOCH + 1500 * MS
    entries = [
        replace(e, log_ns=until) if e.topic == "/odom" and e.log_ns < until else e
        for e in made.entries
    ]
    found = read(tmp_path, maker.Script(sorted(entries, key=lambda e: e.log_ns)))
    assert differences(found) == 0


@pytest.mark.parametrize("age_s", [2, 60])
def test_a_stale_first_sample(tmp_path, age_s):
    made = script(CLOCKS["0.9 s apart"])
    made.entries.insert(0, maker.Entry(START, "/odom", odometry(START - age_s * 1000 * MS)))
    found = read(tmp_path, made)
    assert differences(found) == 0
    assert len(found) == SECONDS * 10 + 1
    lines = [line for line in found.report.lines() if "/odom" not in line]
    assert lines == []


def test_the_simulation_clock_dates_commands(tmp_path):
    """Odometry at 2 Hz would not tell when a command was given, /clock does."""
    made = script(CLOCKS["half speed"])
    made = made.change("/odom", lambda i, e: None if i % 5 else e)
    rng = np.random.default_rng(2)
    for now in range(START, START + SECONDS * 1000 * MS + 1, 10 * MS):
        log = round(CLOCKS["half speed"](now - START)) + int(rng.integers(1, 4)) * MS
        stamp = maker.header(now).stamp
        made.add(log, "/clock", maker.make("rosgraph_msgs/msg/Clock", clock=stamp))
    made.entries.sort(key=lambda entry: entry.log_ns)
    found = read(tmp_path, made)
    assert differences(found) == 0


def test_the_offset_of_each_topic_is_shown(tmp_path):
    path = maker.write(tmp_path / "bag", script(CLOCKS["0.9 s apart"]))
    with Bag.open(path) as bag:
        reader = EpisodeReader(bag, BODY)
        list(reader.rows())
        (offset,) = reader.offsets()
    assert offset.topic == "/odom"
    assert offset.first_s == pytest.approx(0.901, abs=0.002)
    assert offset.drift_s < 0.005


@pytest.mark.parametrize("name", ["one clock", "0.9 s apart", "simulated time", "half speed"])
def test_a_stream_that_is_dated_by_its_receipt(tmp_path, name):
    """Forces without a header, 25 ms or more from each tick, beside stamped odometry."""
    text = ROBOT.replace("KIND", "Twist").replace(
        "commands:",
        "  force: {topic: force, type: std_msgs/msg/Float64MultiArray, names: [x], unit: N,\n"
        "          stamps: receive, rate_hz: 10, max_age_s: 0.25}\ncommands:",
    )
    rng, clock, made = np.random.default_rng(4), CLOCKS[name], script(CLOCKS[name])
    sent = [START + tick * PERIOD + int(rng.integers(25, 75)) * MS for tick in range(120)]
    for number, now in enumerate(sent):
        log = round(clock(now - START)) + int(rng.integers(1, 6)) * MS
        made.add(log, "/force", maker.array([number]))
    made.entries.sort(key=lambda entry: entry.log_ns)
    with Bag.open(maker.write(tmp_path / "bag", made)) as bag:
        found = read_episode(bag, Embodiment.parse(text, "rover.yaml"))
    assert found.valid["force"].all() and len(found) >= 119
    for tick, value in zip(found.stamps_ns, found.values["force"][:, 0], strict=True):
        assert value == max(number for number, now in enumerate(sent) if now <= tick)
