"""Recordings by others, read into training data and held against what was recorded.

Each kind of bag holds the same drive: joint states, a tool pose and a camera with uneven stamps,
streamed trajectories of one point, and velocities without any stamp. It is written as some recorder
would write it: from Foxy to Rolling, SQLite and MCAP, every compression, split, a file a topic, a
topic after the other; with clocks that lie apart or run at another pace, and with streams that are
stale or dead. ``bags convert`` reads it, and every window and every action is compared with an
as-of search over what was recorded, message by message, that shares no code with the reader.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _foreign_writers import (
    MCAP_OPTIONS,
    STORE,
    CompressionMode,
    Logged,
    StoragePlugin,
    mcap_bag,
    rosbags_bag,
    single_file,
    split_bag,
    sqlite_bag,
    topic_files,
)
from _report import report
from rich.console import Console
from rich.table import Table

from embodied_rl.bags.cache import CachedEpisode, EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.bags.options import Options
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.window import history_indices

TARGETS = {"kinds": (">=", 25.0), "kinds_equal": (">=", 25.0), "differences": ("<=", 0.0)}
MS = 1_000_000
START, PERIOD, HISTORY, STRIDE = 2_000_000 * MS, 100 * MS, 4, 2
EPOCH = 1_700_000_000 * 10**9
VELOCITY_LASTS = 500 * MS
ROBOT = """
name: somebody_elses
control_rate_hz: 10
streams:
  position: {topic: joint_states, type: sensor_msgs/msg/JointState, field: position,
             joints: [a, b], unit: rad, rate_hz: 50, max_age_s: 0.1}
  tool: {topic: tool/pose, type: geometry_msgs/msg/PoseStamped, field: position, unit: m,
         rate_hz: 20, max_age_s: 0.2}
  camera: {topic: camera/image_raw, type: sensor_msgs/msg/Image, encoding: rgb8,
           shape: [6, 8, 3], rate_hz: 10, max_age_s: 0.25}
commands:
  arm: {topic: arm/joint_trajectory, type: trajectory_msgs/msg/JointTrajectory, joints: [a, b],
        unit: rad, lower: [-9, -9], upper: [9, 9], max_velocity: [2, 2]}
  base: {topic: cmd_vel, type: geometry_msgs/msg/Twist, dimensions: [linear_x, angular_z],
         lower: [-9, -9], upper: [9, 9], max_acceleration: [1, 1]}
"""
TOPICS = {"position": "/joint_states", "tool": "/tool/pose", "camera": "/camera/image_raw"}
MAX_AGE = {"position": 100 * MS, "tool": 200 * MS, "camera": 250 * MS}
SHAPES = {"position": (2,), "tool": (3,), "camera": (6, 8, 3)}


@dataclass(frozen=True)
class Arguments:
    """Kinds of foreign bags: how many give exactly what was recorded."""

    seconds: float = 20.0
    """length of each recording, by its stamps"""
    folder: Path | None = None
    """where the bags are written; default: a temporary folder"""
    json: Path | None = None


@dataclass(frozen=True)
class Event:
    """What truly happened: a sample or a command, by the clock of the stamps."""

    time_ns: int
    topic: str
    value: np.ndarray
    message: object
    stamped: bool


Clock = Callable[[int], float]  # ns since the start -> log time


@dataclass(frozen=True)
class Case:
    """One kind of bag."""

    write: Callable[[Path, Sequence[Logged]], None]
    clock: Clock = lambda since: START + since
    change: Callable[[list[Logged]], list[Logged]] = lambda messages: messages
    dead: tuple[str, ...] = ()  # streams of which nothing sound is recorded
    options: Options = Options()
    extra: Callable[[Clock], list[Logged]] = lambda clock: []


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench foreign_bags")
    robot = Embodiment.parse(ROBOT, "foreign.yaml")
    drive = record(arguments.seconds)
    table = Table(title="kinds of foreign bags", title_justify="left")
    for column in ("kind", "rows", "windows and actions", "differences", "said"):
        table.add_column(column)
    results: dict[str, dict[str, object]] = {}
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="foreign_bags_"))
    try:
        for name, case in cases().items():
            found = run(root / name.replace(" ", "_").replace("/", "_"), case, drive, robot)
            results[name] = found
            table.add_row(
                name, *(str(found[k]) for k in ("rows", "compared", "differences", "said"))
            )
    finally:
        if arguments.folder is None:
            shutil.rmtree(root, ignore_errors=True)
    Console(width=150).print(table)
    different = [int(found["differences"]) for found in results.values()]  # type: ignore[call-overload]
    figures = {
        "kinds": float(len(results)),
        "kinds_equal": float(sum(not number for number in different)),
        "compared": float(sum(int(f["compared"]) for f in results.values())),  # type: ignore[call-overload]
        "differences": float(sum(different)),
    }
    return report("foreign_bags", figures, TARGETS, arguments.json, {"kinds": results})


# ---------------------------------------------------------------- one kind
def run(folder: Path, case: Case, drive: list[Event], robot: Embodiment) -> dict[str, object]:
    """Write the bag, convert it, and count what differs from the recording."""
    bag = folder / "bag"
    folder.mkdir(parents=True)
    case.write(bag, case.change(logged(drive, case)))
    try:
        summary = convert(bag, folder / "cache", embodiment=robot, workers=1, options=case.options)
        (episode,) = EpisodeCache(folder / "cache")
    except (UserError, ValueError) as error:
        return {"rows": 0, "compared": 0, "differences": 1, "said": str(error)}
    compared, differences = compare(episode, drive, case.dead)
    lines = [line.removeprefix("bag: ") for line in summary.results[0].lines]
    said = "; ".join(line for line in lines if "check sums" not in line)
    return {"rows": len(episode), "compared": compared, "differences": differences, "said": said}


def logged(drive: list[Event], case: Case) -> list[Logged]:
    """What the recorder wrote down: each message a short, uneven delay after it was made."""
    delays = np.random.default_rng(7)
    messages = case.extra(case.clock)
    for event in drive:
        log = round(case.clock(event.time_ns - START)) + int(delays.integers(1, 5)) * MS
        kind = event.message.__msgtype__  # type: ignore[attr-defined]
        messages.append(Logged(log, event.topic, kind, serialized(event.message)))
    return sorted(messages, key=lambda message: message.log_ns)


def compare(episode: CachedEpisode, drive: list[Event], dead: Sequence[str]) -> tuple[int, int]:
    """How many windows and actions were compared, and how many differ."""
    keys = [key for key in TOPICS if key not in dead]
    ticks = true_ticks(drive, keys)
    if episode.stamps_ns.tolist() != ticks:
        return len(ticks), len(ticks)
    differences = 0
    for key in TOPICS:
        samples = [] if key in dead else [e for e in drive if e.topic == TOPICS[key]]
        rows = [newest(samples, tick, MAX_AGE[key]) for tick in ticks]
        values, valid = episode.values(key), episode.valid(key)
        for tick in range(len(ticks)):
            index, inside = history_indices(tick, HISTORY, STRIDE)
            for row, known in zip(index, inside, strict=True):
                true = rows[row]
                same = bool(valid[row] & known) == (true is not None and bool(known))
                if true is not None:
                    same &= np.array_equal(values[row], true.value)
                differences += not same
    for row, tick in enumerate(ticks):
        true = true_action(drive, tick)
        found = episode.actions[row] if episode.action_valid[row] else None
        same = (true is None) == (found is None)
        differences += not (same and (true is None or np.array_equal(true, found)))
    return len(ticks) * (len(TOPICS) + 1), differences


def newest(samples: list[Event], time_ns: int, max_age_ns: int | None = None) -> Event | None:
    """The newest of what had happened by then."""
    before = [event for event in samples if event.time_ns <= time_ns]
    if not before or (max_age_ns is not None and time_ns - before[-1].time_ns > max_age_ns):
        return None
    return before[-1]


def true_ticks(drive: list[Event], keys: Sequence[str]) -> list[int]:
    """From the first tick with all streams to the last one that any stream reaches."""
    streams = {key: [e for e in drive if e.topic == TOPICS[key]] for key in keys}
    last = max(samples[-1].time_ns for samples in streams.values())
    tick = -(-START // PERIOD) * PERIOD
    while any(newest(samples, tick, MAX_AGE[key]) is None for key, samples in streams.items()):
        tick += PERIOD
    return list(range(tick, last + 1, PERIOD))


def true_action(drive: list[Event], tick: int) -> np.ndarray | None:
    """The arm's newest target, and the velocity of the period; None where one is not known."""
    arm = newest([e for e in drive if e.topic == "/arm/joint_trajectory"], tick)
    base = newest([e for e in drive if e.topic == "/cmd_vel"], tick + PERIOD - 1)
    if arm is None or base is None or tick - base.time_ns > VELOCITY_LASTS:
        return None
    return np.concatenate([arm.value, base.value])


# ---------------------------------------------------------------- the drive
def make(kind: str, **fields: object) -> object:
    return STORE.types[kind](**fields)


def serialized(message: object) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))  # type: ignore[attr-defined]


def time_of(time_ns: int) -> object:
    sec, nanosec = divmod(time_ns, 10**9)
    return make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def header(time_ns: int) -> object:
    return make("std_msgs/msg/Header", stamp=time_of(time_ns), frame_id="base_link")


def record(seconds: float) -> list[Event]:
    """All that happens, in the order of time; no command is nearer than 12 ms to a tick."""
    rng, events = np.random.default_rng(11), []
    end = START + round(seconds * 1e9)
    rates = {"position": 20 * MS, "tool": 50 * MS, "camera": 100 * MS}
    for key, period in rates.items():
        for number, due in enumerate(range(START + 7 * MS, end, period)):
            if number > 3 and rng.random() < 0.03:
                continue  # a message that was lost
            now = due + int(rng.integers(0, 6)) * MS
            value = rng.normal(size=SHAPES[key])
            if key == "camera":
                value = rng.integers(0, 256, SHAPES[key], dtype=np.uint8)
            events.append(Event(now, TOPICS[key], value, stream_message(key, now, value), True))
    for now in moments(rng, end, 0.9):
        value = rng.normal(size=2)
        events.append(Event(now, "/arm/joint_trajectory", value, point(now, value), True))
    for now in moments(rng, end, 0.7):
        value = rng.normal(size=2)
        events.append(Event(now, "/cmd_vel", value, twist(value), False))
    return sorted(events, key=lambda event: event.time_ns)


def moments(rng: np.random.Generator, end: int, share: float) -> list[int]:
    """Times of commands: at most one a control period."""
    ticks = range(START + 2 * PERIOD, end - 3 * PERIOD, PERIOD)
    return [tick + int(rng.integers(12, 88)) * MS for tick in ticks if rng.random() < share]


def stream_message(key: str, now: int, value: np.ndarray) -> object:
    if key == "position":
        return make(
            "sensor_msgs/msg/JointState", header=header(now), name=["b", "extra", "a"],
            position=np.array([value[1], 9.0, value[0]]), velocity=np.zeros(0), effort=np.zeros(0),
        )  # fmt: skip
    if key == "camera":
        return make(
            "sensor_msgs/msg/Image", header=header(now), height=6, width=8, encoding="rgb8",
            is_bigendian=0, step=24, data=value.reshape(-1),
        )  # fmt: skip
    x, y, z = value.tolist()
    place = make("geometry_msgs/msg/Point", x=x, y=y, z=z)
    turn = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = make("geometry_msgs/msg/Pose", position=place, orientation=turn)
    return make("geometry_msgs/msg/PoseStamped", header=header(now), pose=pose)


def point(now: int, value: np.ndarray) -> object:
    """A trajectory of one point that is in force at once."""
    none = np.zeros(0)
    at_once = make("builtin_interfaces/msg/Duration", sec=0, nanosec=0)
    target = make(
        "trajectory_msgs/msg/JointTrajectoryPoint", positions=value, velocities=none,
        accelerations=none, effort=none, time_from_start=at_once,
    )  # fmt: skip
    return make(
        "trajectory_msgs/msg/JointTrajectory", header=header(now), joint_names=["a", "b"],
        points=[target],
    )  # fmt: skip


def twist(value: np.ndarray) -> object:
    x, z = value.tolist()
    linear = make("geometry_msgs/msg/Vector3", x=x, y=0.0, z=0.0)
    angular = make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=z)
    return make("geometry_msgs/msg/Twist", linear=linear, angular=angular)


# ---------------------------------------------------------------- the kinds
def plain(folder: Path, messages: Sequence[Logged]) -> None:
    rosbags_bag(folder, messages, StoragePlugin.MCAP)


def renamed(new_name: Callable[[str], str]) -> Callable[[list[Logged]], list[Logged]]:
    return lambda messages: [m._replace(topic=new_name(m.topic)) for m in messages]


def cases() -> dict[str, Case]:
    return {**storage_cases(), **layout_cases(), **time_cases(), **stream_cases()}


def storage_cases() -> dict[str, Case]:
    sqlite = {
        "foxy sqlite": {"version": 2},
        "galactic sqlite": {"version": 4},
        "humble sqlite": {"version": 5},
        "humble sqlite, messages zstd": {"version": 5, "compression": "message"},
        "humble sqlite, file zstd": {"version": 5, "compression": "file"},
    }
    found = {
        name: Case(lambda f, m, options=options: sqlite_bag(f, m, **options))  # type: ignore[misc]
        for name, options in sqlite.items()
    }
    for storage in (StoragePlugin.SQLITE3, StoragePlugin.MCAP):
        for mode in (None, CompressionMode.FILE, CompressionMode.MESSAGE, CompressionMode.STORAGE):
            if (storage, mode) == (StoragePlugin.SQLITE3, CompressionMode.STORAGE):
                continue
            name = f"rolling {storage.name.lower()}, {mode.name.lower() if mode else 'plain'}"
            found[name] = Case(
                lambda f, m, s=storage, c=mode: rosbags_bag(f, m, s, c)  # type: ignore[misc]
            )
    found["jazzy mcap"] = Case(lambda f, m: rosbags_bag(f, m, StoragePlugin.MCAP, version=8))
    for name, options in MCAP_OPTIONS.items():
        found[f"mcap library, {name}"] = Case(
            lambda f, m, o=options: mcap_bag(f, m, **o)  # type: ignore[misc]
        )
    return found


def layout_cases() -> dict[str, Case]:
    def by_topic(messages: list[Logged]) -> list[Logged]:
        return sorted(messages, key=lambda message: (message.topic, message.log_ns))

    def late_topic(messages: list[Logged]) -> list[Logged]:
        late = {"/tool/pose": 12_000 * MS}
        return sorted(messages, key=lambda m: m.log_ns + late.get(m.topic, 0))

    remap = {"joint_states": "/arm_1/js", "tool/": "/mocap/"}
    other = {"/joint_states": "/arm_1/js", "/tool/pose": "/mocap/pose"}
    return {
        "no metadata": Case(lambda f, m: mcap_bag(f, m, described=False)),
        "one file alone": Case(single_file),
        "split mcap": Case(lambda f, m: split_bag(f, m, "mcap", True)),
        "split sqlite, no metadata": Case(lambda f, m: split_bag(f, m, "sqlite3", False)),
        "a file a topic, mixed": Case(topic_files),
        "topic after topic": Case(plain, change=by_topic),
        "topic after topic, sqlite": Case(
            lambda f, m: sqlite_bag(f, m, version=5), change=by_topic
        ),
        "one topic 12 s late": Case(plain, change=late_topic),
        "no leading slash": Case(plain, change=renamed(lambda name: name[1:])),
        "in a namespace": Case(plain, change=renamed(lambda name: f"/robot7{name}")),
        "other names": Case(
            plain, change=renamed(lambda name: other.get(name, name)), options=Options(remap=remap)
        ),
    }


def time_cases() -> dict[str, Case]:
    paces = np.random.default_rng(3).uniform(0.15, 0.4, 400)

    def uneven(since: int) -> float:
        whole, rest = divmod(since / 1e9, 1.0)
        return EPOCH + (np.sum(1 / paces[: int(whole)]) + rest / paces[int(whole)]) * 1e9

    def ticking(clock: Clock) -> list[Logged]:
        kind = "rosgraph_msgs/msg/Clock"
        return [
            Logged(round(clock(since)) + MS, "/clock", kind,
                   serialized(make(kind, clock=time_of(START + since))))
            for since in range(0, 20_000 * MS, 10 * MS)
        ]  # fmt: skip

    def queued(messages: list[Logged]) -> list[Logged]:
        first = messages[0].log_ns + 1500 * MS
        waited = {"/joint_states", "/tool/pose"}
        return sorted(
            (m._replace(log_ns=max(m.log_ns, first)) if m.topic in waited else m for m in messages),
            key=lambda message: message.log_ns,
        )

    clocks: dict[str, Clock] = {
        "simulated time": lambda since: EPOCH + since,
        "clocks 0.9 s apart": lambda since: START + since + 900 * MS,
        "half speed": lambda since: EPOCH + 2 * since,
        "8 s in 47 s": lambda since: EPOCH + since * 47 / 8,
        "uneven speed": uneven,
        "simulation paused": lambda since: EPOCH + since + 4000 * MS * (since > 9050 * MS),
        "clock stepped": lambda since: START + since + 700 * MS * (since > 9050 * MS),
    }
    found = {name: Case(plain, clock) for name, clock in clocks.items()}
    found["half speed with /clock"] = Case(plain, clocks["half speed"], extra=ticking)
    found["first messages queued 1.5 s"] = Case(plain, clocks["simulated time"], queued)
    return found


def stream_cases() -> dict[str, Case]:
    def stale(seconds: int) -> Callable[[Clock], list[Logged]]:
        def extra(clock: Clock) -> list[Logged]:
            old = stream_message("position", START - seconds * 1000 * MS, np.array([5.0, 5.0]))
            return [Logged(round(clock(0)), "/joint_states", old.__msgtype__, serialized(old))]  # type: ignore[attr-defined]

        return extra

    def unsound(messages: list[Logged]) -> list[Logged]:
        return [
            m._replace(data=m.data.replace(b"rgb8", b"rgbX")) if "camera" in m.topic else m
            for m in messages
        ]

    def one_broken(messages: list[Logged]) -> list[Logged]:
        far, joints = stream_message("tool", START + 3 * 10**12, np.zeros(3)), b"\0\1\0\0"
        place = len(messages) // 2
        kind = far.__msgtype__  # type: ignore[attr-defined]
        wrong = [
            Logged(messages[place].log_ns, "/tool/pose", kind, serialized(far)),
            Logged(messages[place].log_ns, "/joint_states", "sensor_msgs/msg/JointState", joints),
        ]  # fmt: skip
        return [*messages[:place], *wrong, *messages[place:]]

    return {
        "stale first sample, 2 s": Case(plain, extra=stale(2)),
        "stale first sample, 60 s": Case(plain, extra=stale(60)),
        "a camera that is never sound": Case(plain, change=unsound, dead=("camera",)),
        "two messages broken": Case(plain, change=one_broken),
    }
