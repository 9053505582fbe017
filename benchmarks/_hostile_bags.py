"""Files that are meant to bring a reader down, each read in a process of its own.

Small on disk (large ones are sparse), they claim sizes of up to 2^64, unpack without end, contain
themselves, or carry names that lead elsewhere.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lz4.frame
import zstandard
from _fault_bags import KIND, SCHEMA, START_NS

from embodied_rl.bags.check import summarise
from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.core.errors import UserError

LIMIT_S = 60
MAGIC = b"\x89MCAP0\r\n"
HUGE = 1 << 50
NEXT = "\n" + "=" * 80 + "\n"
CDR = b"\0\1\0\0" + bytes(64)
INFORMATION = "rosbag2_bagfile_information: "
DIRECTORY = '["../../../etc/passwd", "/etc/passwd", "..", "bag.mcap"]'


@dataclass(frozen=True)
class Outcome:
    """What reading one file came to; ``peak_MB`` above what the process had before.

    On a machine that is busy with other things ``cpu_s`` tells more than ``seconds``."""

    name: str
    seconds: float
    cpu_s: float
    peak_MB: float
    failed: bool  # a traceback, or no end
    line: str


def hostile_outcomes(folder: Path) -> list[Outcome]:
    found = []
    for name, make in CASES.items():
        place = folder / "".join(c if c.isalnum() else "_" for c in name)
        place.mkdir()
        make(place)
        found.append(read_apart(name, place))
        for file in place.iterdir():
            file.unlink()
    return found


def read_apart(name: str, place: Path) -> Outcome:
    """Read all of a bag in a forked process, which costs no second start of the interpreter."""
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        before = _memory_now()  # less than its parent's: pages of files are not handed down
        os.close(reading)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_S)
        try:
            answer = {"failed": False, "line": _read(place)}
        except BaseException as error:  # the very thing that is looked for
            answer = {"failed": True, "line": f"{type(error).__name__}: {error}"[:300]}
        os.write(writing, json.dumps({**answer, "before_MB": before}).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, _, usage = os.wait4(child, 0)
    seconds = time.monotonic() - began
    answer = json.loads(text) if text else {"failed": True, "line": f"no end within {LIMIT_S} s"}
    peak = usage.ru_maxrss / 1e3 - answer.get("before_MB", 0.0)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Outcome(name, seconds, cpu_s, max(peak, 0.0), answer["failed"], answer["line"])


def _memory_now() -> float:
    """MB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _read(place: Path) -> str:
    """Everything that the verbs do with a bag; returns the first line said about it."""
    try:
        lines: list[str] = []
        remarks: list[str] = []
        described = (place / "metadata.yaml").exists()
        for bag_place in find_bags(place if described else _data_file(place)):
            remarks += summarise(bag_place).lines
            with Bag(bag_place) as bag:
                decode = Decoder(bag.topics.values())
                for message in bag.messages():
                    try:
                        decode(message.topic, bag.topics[message.topic].type, message.data)
                    except UserError as error:
                        bag.report.add_error(message.topic, error)
                lines += bag.report.lines()
        return (lines or remarks or [""])[0]
    except UserError as error:
        return str(error)


def _data_file(place: Path) -> Path:
    return min(place.glob("bag.*"), key=lambda path: len(path.name))  # not a log beside it


# -------------------------------------------------------------------- MCAP
def _record(opcode: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BQ", opcode, len(body) if length is None else length) + body


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def _topic(name: str = "/a", kind: str = KIND, definition: str = "string data") -> bytes:
    schema = struct.pack("<H", 1) + _text(kind) + _text("ros2msg") + _text(definition)
    channel = struct.pack("<HH", 1, 1) + _text(name) + _text("cdr") + struct.pack("<I", 0)
    return _record(3, schema) + _record(4, channel)


def _message(time_ns: int = START_NS, data: bytes = CDR) -> bytes:
    return _record(5, struct.pack("<HIQQ", 1, 0, time_ns, time_ns) + data)


def _chunk(
    packed: bytes, size: int, name: str = "", stored: int | None = None, length: int | None = None
) -> bytes:
    stored = len(packed) if stored is None else stored
    head = struct.pack("<QQQI", START_NS, START_NS + 10**9, size, 0)
    body = head + _text(name) + struct.pack("<Q", stored) + packed
    return _record(6, body, length if length is not None else len(body) - len(packed) + stored)


def _index(offset: int, length: int) -> bytes:
    span = struct.pack("<QQQQ", START_NS, START_NS + 1, offset, length)
    sizes = struct.pack("<QQ", min(length, 2**63), 1 << 20)
    return _record(8, span + struct.pack("<IQ", 0, 0) + _text("") + sizes)


def _statistics(count: int, last_ns: int = START_NS + 1) -> bytes:
    body = struct.pack("<QHIIIIQQ", count, 1, 1, 0, 0, 1, START_NS, last_ns)
    return _record(11, body + struct.pack("<IHQ", 10, 1, count))


def _file(
    place: Path, data: bytes, summary: bytes = b"", hole: int = 0, start: int | None = None
) -> None:
    """A file that ends properly; ``hole`` bytes of nothing lie in front of its end."""
    with open(place / "bag.mcap", "wb") as file:
        file.write(MAGIC + _record(1, _text("ros2") + _text("")) + data)
        file.seek(hole, os.SEEK_CUR)
        file.write(_record(15, struct.pack("<I", 0)))
        start = (file.tell() if summary else 0) if start is None else start
        body = summary + struct.pack("<BQQQ", 2, 20, start, 0)
        file.write(body + struct.pack("<I", zlib.crc32(body)) + MAGIC)


def _zeros(count: int, pack: Callable[[bytes], bytes]) -> bytes:
    """``count`` MiB of zeros as frames of 64 MiB."""
    return pack(bytes(64 << 20)) * (count // 64)


def _zstd_claim(size: int) -> bytes:
    """A frame whose head claims ``size`` bytes."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\0\0"


def _messages(count: int) -> bytes:
    return b"".join(_message(START_NS + i) for i in range(count))


MCAP: dict[str, Callable[[Path], None]] = {
    f"chunk of 2^{power} bytes": lambda p, power=power: _file(  # type: ignore[misc]
        p, _topic() + _message() + _chunk(b"x" * 100, 1 << 20, stored=2**power - 100,
                                          length=min(2**power, 2**64 - 1))
    )
    for power in (37, 50, 63)
}  # fmt: skip
MCAP |= {
    "record of 2^64 bytes": lambda p: _file(p, _topic() + _record(5, CDR, 2**64 - 1)),
    "chunk of 12 GB, sparse": lambda p: _file(
        p, _topic() + _chunk(b"", 12 << 30, stored=12 << 30), hole=12 << 30
    ),
    "8 GB of nothing": lambda p: _file(p, _topic() + _message(), hole=8 << 30),
    "compressed chunk of 8 GB, sparse": lambda p: _file(
        p, _topic() + _chunk(b"", 8 << 30, "zstd", stored=8 << 30), hole=8 << 30
    ),
    "message of 8 GB, sparse": lambda p: _file(
        p, _topic() + _record(5, struct.pack("<HIQQ", 1, 0, START_NS, 0), 8 << 30),
        hole=(8 << 30) - 22,
    ),
    "index at 2^63": lambda p: _file(
        p, _topic() + _chunk(_messages(2), len(_messages(2))),
        _topic() + _statistics(2) + _index(2**63, 100) + _index(2**64 - 1, 2**64 - 1),
    ),
    "index of 8 GB": lambda p: _file(
        p, _topic() + _chunk(_messages(2), len(_messages(2))),
        _topic() + _statistics(2) + _index(50, 8 << 30), hole=9 << 30,
    ),
    "summary of 8 GB": lambda p: _file(p, _topic() + _message(), b"x", hole=8 << 30, start=8),
    "zstd frame of 2^50": lambda p: _file(
        p, _topic() + _chunk(_zstd_claim(HUGE), HUGE, "zstd") + _chunk(_zstd_claim(HUGE), 9, "zstd")
    ),
    "zstd bomb": lambda p: _file(
        p, _topic() + _chunk(_zeros(6144, zstandard.compress), 6144 << 20, "zstd")
    ),
    "zstd bomb that claims little": lambda p: _file(
        p, _topic() + _chunk(_zeros(2048, zstandard.compress), 5000, "zstd") * 30
    ),
    "lz4 bomb": lambda p: _file(
        p, _topic() + _chunk(_zeros(6144, lz4.frame.compress), 6144 << 20, "lz4")
    ),
    "lz4 bomb that claims little": lambda p: _file(
        p, _topic() + _chunk(_zeros(2048, lz4.frame.compress), 5000, "lz4")
    ),
    "log times from 2^63 on": lambda p: _file(
        p, _topic() + _message(2**63) + _message(2**64 - 1)
    ),
    "summary with times of 2^64": lambda p: _file(
        p, _topic() + _message(2**64 - 1), _topic() + _statistics(1, 2**64 - 1) + _index(8, 20)
    ),
    "message that unpacks to 2^50": lambda p: _file(
        p, _topic() + _message(data=_zstd_claim(HUGE))
    ),
    "message that is a bomb": lambda p: _file(
        p, _topic() + _message(data=_zeros(2048, zstandard.compress))
    ),
    "names with paths": lambda p: _file(
        p, _topic("../../\x1b[31m/etc\n/pass[/red]wd\0", "../../x/msg/A") + _message()
    ),
    "definition that contains itself": lambda p: _file(
        p, _topic(kind="x/msg/A", definition=f"x/B b{NEXT}MSG: x/B\nx/A a") + _message()
    ),
    "definition of 10^9 fields": lambda p: _file(
        p, _topic(kind="x/msg/A", definition=f"x/E[1000000000] a{NEXT}MSG: x/E\n") + _message()
    ),
    "definition that doubles": lambda p: _file(
        p, _topic(kind="x/msg/A", definition="x/M0 a" + "".join(
            f"{NEXT}MSG: x/M{i}\nx/M{i + 1} a\nx/M{i + 1} b" for i in range(40)
        )) + _message(),
    ),
    "definition of 8 MB": lambda p: _file(
        p, _topic(kind="x/msg/A", definition="uint8 a\n" * 1_000_000) + _message()
    ),
}  # fmt: skip


# -------------------------------------------------------------------- metadata.yaml
def _with_metadata(place: Path, text: str) -> None:
    _file(place, _topic() + _message())
    (place / "metadata.yaml").write_text(text)


def _aliases(form: str) -> str:
    lines = ["a: &a " + form.replace("*", "k: 1" if "<<" in form else "x, x")]
    lines += [
        f"{name}: &{name} " + form.replace("*", ", ".join([f"*{before}"] * 10))
        for before, name in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
    ]
    return "\n".join(lines).replace("<<: [k: 1]", "k: 1") + "\n"


METADATA: dict[str, Callable[[Path], None]] = {
    "aliases of aliases": lambda p: _with_metadata(
        p, _aliases("[*]") + INFORMATION + "{storage_identifier: *n}"
    ),
    "merged aliases": lambda p: _with_metadata(p, _aliases("{<<: [*]}")),
    "nesting of 10^6": lambda p: _with_metadata(p, "[" * 1_000_000),
    "number of 10^7 digits": lambda p: _with_metadata(p, INFORMATION + "9" * 10_000_000),
    "names of files with paths": lambda p: _with_metadata(
        p, INFORMATION + "{storage_identifier: mcap, relative_file_paths: " + DIRECTORY
        + ", starting_time: {nanoseconds_since_epoch: 0}, duration: {nanoseconds: 0}, "
        "topics_with_message_count: []}",
    ),
}  # fmt: skip


# -------------------------------------------------------------------- SQLite and whole files
def _database(place: Path, statements: str, count: int = 0) -> Path:
    path = place / "bag.db3"
    base = sqlite3.connect(path)
    base.executescript("PRAGMA page_size=1024;" + SCHEMA + statements)
    base.execute("INSERT INTO topics VALUES (1, '/a', ?, 'cdr', '')", (KIND,))
    rows = [(START_NS + i, CDR) for i in range(count)]
    if count:
        base.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)", rows)
    base.commit()
    base.close()
    return path


def _views(place: Path) -> None:
    _database(
        place, "DROP TABLE messages; CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 "
        "UNION ALL SELECT i + 1 FROM n) SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS "
        "data FROM n;",
    )  # fmt: skip


def _computed(place: Path) -> None:
    _database(
        place, "DROP TABLE messages; CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, "
        "timestamp, data BLOB GENERATED ALWAYS AS (zeroblob(1000000000)));",
    )  # fmt: skip


def _circle(place: Path) -> None:
    """A directory whose entries all lead to one page, itself a directory of the same kind."""
    path = _database(place, "", 20_000)
    data = bytearray(path.read_bytes())
    for start in range(0, len(data), 1024):
        if data[start] == 5 and start:
            (count,) = struct.unpack_from(">H", data, start + 3)
            cells = struct.unpack_from(f">{count}H", data, start + 12)
            child = data[start + cells[0] : start + cells[0] + 4]
            for cell in cells:
                data[start + cell : start + cell + 4] = child
    path.write_bytes(data)


def _sparse_database(place: Path) -> None:
    path = _database(place, "", 100)
    with open(path, "r+b") as file:
        file.seek(28)
        file.write(struct.pack(">I", (8 << 30) // 1024))
        file.truncate(8 << 30)


def _sparse_log(place: Path) -> None:
    path = _database(place, "PRAGMA journal_mode=WAL;", 100)
    with open(path.with_name("bag.db3-wal"), "wb") as file:
        file.write(struct.pack(">IIII", 0x377F0682, 3007000, 1024, 0))
        file.truncate(64 << 30)


def _file_bomb(place: Path) -> None:
    frame = zstandard.compress(bytes(64 << 20))
    (place / "bag.mcap.zstd").write_bytes(zstandard.compress(MAGIC) + frame * 800)


OTHERS: dict[str, Callable[[Path], None]] = {
    "recursive views": _views,
    "computed columns": _computed,
    "pages that lead in a circle": _circle,
    "database of 8 GB, sparse": _sparse_database,
    "log of 64 GB, sparse": _sparse_log,
    "file bomb of 50 GB": _file_bomb,
}
CASES = {**MCAP, **METADATA, **OTHERS}
