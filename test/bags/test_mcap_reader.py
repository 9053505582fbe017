"""MCAP files of other writers, whole and damaged, written by the ``mcap`` package.

What must be found of a damaged file follows from where the random bytes of each message lie.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType, IndexType, Writer

from embodied_rl.bags.mcap_reader import McapFile
from embodied_rl.bags.report import Report

NONE, LZ4, ZSTD = CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD
MAGIC = b"\x89MCAP0\r\n"
HEAD = 9  # bytes of a record's head
START_NS = 10**18

Rows = list[tuple[str, int, bytes]]


def rows(count: int = 40, seed: int = 0) -> Rows:
    noise = np.random.default_rng(seed)
    return [
        ("/" + "ab"[i % 2], START_NS + i * 10**6, noise.bytes(int(noise.integers(20, 400))))
        for i in range(count)
    ]


def write(
    path: Path, messages: Rows, compression=NONE, *, crc=False, chunked=True, index=True,
    summary=True,
) -> Path:  # fmt: skip
    """A file like rosbag2's: small chunks, sums only where asked for."""
    with open(path, "wb") as file:
        writer = Writer(
            file, chunk_size=2000, compression=compression, enable_crcs=crc,
            use_chunking=chunked, index_types=IndexType.ALL if index else IndexType.NONE,
            use_statistics=summary, use_summary_offsets=summary,
            repeat_channels=summary, repeat_schemas=summary,
        )  # fmt: skip
        writer.start(profile="ros2", library="test")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channels = {name: writer.register_channel(name, "cdr", schema) for name in ("/a", "/b")}
        for name, time_ns, data in messages:
            writer.add_message(channels[name], time_ns, data, time_ns)
        writer.finish()
    return path


def contents(path: Path) -> tuple[Rows, list[str], list[str]]:
    report = Report("bag")
    file = McapFile(path, report)
    try:
        names = {topic.name for topic in file.topics}
        found = [(m.topic, m.log_time_ns, bytes(m.data)) for m in file.messages(names)]
    finally:
        file.close()
    return found, report.lines(), report.remarks


@pytest.mark.parametrize("compression", [NONE, LZ4, ZSTD])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("crc", [True, False])
def test_every_kind_of_writer(tmp_path, compression, chunked, index, crc):
    messages = rows()
    path = write(
        tmp_path / "a.mcap", messages, compression, crc=crc, chunked=chunked, index=index,
        summary=index,
    )  # fmt: skip
    found, lines, remarks = contents(path)
    assert (found, lines) == (messages, [])
    assert bool(remarks) == (not crc or not chunked)


def spans(whole: bytes, messages: Rows) -> list[tuple[int, int]]:
    """Where the record of each message lies, from its head on."""
    found = []
    for _, _, data in messages:
        place = whole.find(data)
        found.append((place - HEAD - 22, place + len(data)))
    return found


def data_end(whole: bytes) -> int:
    """Where the data section ends and the summary begins."""
    (start,) = struct.unpack_from("<Q", whole, len(whole) - 28)
    return start - HEAD - 4 if start else len(whole) - 37 - HEAD - 4


@pytest.mark.parametrize(("chunked", "index"), [(True, True), (False, False), (True, False)])
def test_a_flipped_bit_costs_its_own_message(tmp_path, chunked, index):
    """Without sums: all others are found, none is invented, and a loss is said."""
    messages = rows()
    whole = write(
        tmp_path / "a.mcap", messages, chunked=chunked, index=index, summary=index
    ).read_bytes()
    places, end = spans(whole, messages), data_end(whole)
    noise, spoilt = np.random.default_rng(1), tmp_path / "b.mcap"
    for bit in noise.integers(8 * 200, 8 * end, 150):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        spoilt.write_bytes(data)
        found, lines, remarks = contents(spoilt)
        touched = [m for m, (a, b) in zip(messages, places) if a <= bit // 8 < b]
        strange = [m for m in found if m not in messages]
        assert len(strange) <= len(touched), lines
        assert all(m[1] == touched[0][1] or m[2] == touched[0][2] for m in strange)
        missing = [m for m in messages if m not in found and m not in touched]
        assert remarks
        if found != messages:
            assert lines or strange or touched  # a value, or a bit of the channel's number
        if any("checksum" in line for line in lines):  # the bit made one out of none
            assert len(missing) < 12
        elif index or not chunked:
            assert not missing, (bit // 8, lines)
        elif missing:
            assert any("no records" in line or "head" in line for line in lines), lines


@pytest.mark.parametrize("compression", [NONE, LZ4, ZSTD])
def test_with_sums_nothing_changed_is_given(tmp_path, compression):
    messages = rows()
    whole = write(tmp_path / "a.mcap", messages, compression, crc=True).read_bytes()
    noise, spoilt = np.random.default_rng(2), tmp_path / "b.mcap"
    for place in noise.integers(len(MAGIC), data_end(whole), 60):
        data = bytearray(whole)
        length = int(noise.choice([1, 1, 64]))
        data[place : place + length] = noise.bytes(length)
        spoilt.write_bytes(data)
        found, lines, _ = contents(spoilt)
        assert [m for m in messages if m in found] == found
        assert found == messages or lines
        assert len(found) >= len(messages) - 24  # two chunks, where the damage is between them


@pytest.mark.parametrize("chunked", [True, False])
def test_cut_anywhere(tmp_path, chunked):
    messages = rows()
    whole = write(tmp_path / "a.mcap", messages, chunked=chunked).read_bytes()
    places, cut = spans(whole, messages), tmp_path / "b.mcap"
    for size in np.random.default_rng(3).integers(200, len(whole) - 1, 50):
        cut.write_bytes(whole[:size])
        found, lines, _ = contents(cut)
        there = [m for m, (_, end) in zip(messages, places) if end <= size]
        # a message beside chunks at the very end is not confirmed by anything behind it
        assert found == there
        assert any("no footer" in line for line in lines)


def test_zeroed_blocks(tmp_path):
    messages = rows(80)
    whole = write(tmp_path / "a.mcap", messages).read_bytes()
    places, spoilt = spans(whole, messages), tmp_path / "b.mcap"
    for start in np.random.default_rng(4).integers(300, data_end(whole) - 512, 50):
        spoilt.write_bytes(whole[:start] + bytes(512) + whole[start + 512 :])
        found, lines, remarks = contents(spoilt)
        untouched = [
            m for m, (a, b) in zip(messages, places) if b <= start or a >= start + 512
        ]  # fmt: skip
        assert [m for m in found if m in messages] == untouched
        touched = [m for m in messages if m not in untouched]
        assert len([m for m in found if m not in messages]) <= len(touched)
        assert all(abs(m[1] - START_NS) < 3601 * 10**9 for m in found)
        assert remarks and (len(found) == len(messages) or lines)


# -------------------------------------------------------------------- by hand
def record(opcode: int, body: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def channel(number: int, name: str) -> bytes:
    return record(
        4, struct.pack("<HH", number, 0) + text(name) + text("cdr") + struct.pack("<I", 0)
    )


def message(number: int, time_ns: int, data: bytes) -> bytes:
    return record(5, struct.pack("<HIQQ", number, 0, time_ns, time_ns) + data)


def chunk(content: bytes, name: str = "", packed: bytes | None = None, crc: bool = True) -> bytes:
    packed = content if packed is None else packed
    crc32 = zlib.crc32(content) if crc else 0
    head = struct.pack("<QQQI", START_NS, START_NS + 10**9, len(content), crc32)
    return record(6, head + text(name) + struct.pack("<Q", len(packed)) + packed)


def by_hand(path: Path, *records: bytes) -> Path:
    """A file without a summary."""
    end = record(15, struct.pack("<I", 0)) + record(2, struct.pack("<QQI", 0, 0, 0))
    path.write_bytes(MAGIC + record(1, text("") + text("")) + b"".join(records) + end + MAGIC)
    return path


def test_what_stands_beside_the_chunks_of_an_index(tmp_path):
    """Messages at top level and a chunk that the index lacks are read in the order of the file."""
    messages = rows(30)
    path = write(tmp_path / "a.mcap", messages)
    whole = path.read_bytes()
    end = data_end(whole)
    extra = message(1, START_NS + 7, b"beside") + chunk(message(2, START_NS + 8, b"unlisted"))
    (summary,) = struct.unpack_from("<Q", whole, len(whole) - 28)
    data = bytearray(whole[:end] + extra + whole[end:])
    at = len(data) - 28
    struct.pack_into("<QQI", data, at, summary + len(extra), 0, 0)
    path.write_bytes(data)
    found, lines, _ = contents(path)
    assert lines == []
    assert found == [*messages, ("/a", START_NS + 7, b"beside"), ("/b", START_NS + 8, b"unlisted")]


def test_private_records_and_several_frames(tmp_path):
    parts = [message(1, START_NS + i, bytes([i]) * 50) for i in range(6)]
    content = b"".join(parts)
    half = len(content) // 2
    zstd, lz4_packed = zstandard.ZstdCompressor(), lz4.frame.compress
    path = by_hand(
        tmp_path / "a.mcap",
        channel(1, "/a"),
        record(0x91, b"private"),
        chunk(content, "zstd", zstd.compress(content[:half]) + zstd.compress(content[half:])),
        record(0x45, b"of a later version"),
        chunk(content, "lz4", lz4_packed(content[:half]) + lz4_packed(content[half:])),
        record(0xFF, bytes(100)),
        chunk(content),
    )  # fmt: skip
    found, lines, remarks = contents(path)
    assert found == [("/a", START_NS + i, bytes([i]) * 50) for i in range(6)] * 3
    assert remarks == []
    assert lines == ["bag: expected known records, saw one with opcode 69 in a.mcap"]


def test_what_a_chunk_must_not_hold_is_said(tmp_path):
    good = [message(1, START_NS + i, bytes([i]) * 50) for i in range(4)]
    for spoilt, said, count in [
        (b"".join(good) + b"\0\0\0", "no records", 3),  # leftover bytes: its own?
        (b"".join(good[:2]) + record(0, b"") + good[3], "no records", 1),  # opcode 0
        (b"".join(good) + message(7, START_NS, b"x"), "1 of others", 4),  # unknown channel
        (b"".join(good) + struct.pack("<BQ", 5, 999) + bytes(30), "no records", 3),  # overrun
        (b"".join(good) + message(1, 2**63, b"x"), "1 messages with times", 4),
        (b"".join(good) + record(5, b"short"), "a message of 5 bytes", 4),
        (b"".join(good) + record(3, b"schema?"), "cannot be read", 4),
        (b"".join(good) + channel(1, "/other"), "another of channel 1", 4),
    ]:
        path = by_hand(tmp_path / "a.mcap", channel(1, "/a"), chunk(spoilt, crc=False))
        found, lines, remarks = contents(path)
        assert [m[1] - START_NS for m in found] == list(range(count)), said
        assert remarks and len(lines) == 1 and said in lines[0], lines
        # with a sum that holds, the writer meant it: it is said all the same
        path = by_hand(tmp_path / "a.mcap", channel(1, "/a"), chunk(spoilt))
        assert len(contents(path)[1]) == 1


@pytest.mark.parametrize("most", [1, 7, 40, 41, 1000])
def test_a_chunk_of_many_records_is_taken_in_parts(tmp_path, monkeypatch, most):
    monkeypatch.setattr("embodied_rl.bags.mcap_records.MOST_RECORDS", most)
    content = b"".join(message(1, START_NS + i, bytes([i]) * 9) for i in range(40))
    for spoilt, said in [(content, 0), (content + b"\0" * 40, 1)]:
        path = by_hand(tmp_path / "a.mcap", channel(1, "/a"), chunk(spoilt, crc=said == 0))
        found, lines, _ = contents(path)
        assert len(lines) == said
        assert [m[1] - START_NS for m in found] == list(range(len(found)))
        assert len(found) == 40 - bool(said and 40 % most)  # the last one: is it its own length?


def test_sum_over_the_whole_file(tmp_path):
    """Where chunks have none, the one at the end of the data is verified."""
    records = [record(1, text("") + text("")), channel(1, "/a"), message(1, START_NS, b"x" * 50)]
    data = MAGIC + b"".join(records)
    for crc, remarked, said in [
        (zlib.crc32(data), False, False), (0, True, False), (1, True, True),
    ]:  # fmt: skip
        path = tmp_path / "a.mcap"
        end = record(15, struct.pack("<I", crc)) + record(2, struct.pack("<QQI", 0, 0, 0))
        path.write_bytes(data + end + MAGIC)
        found, lines, remarks = contents(path)
        assert len(found) == 1
        assert (bool(remarks), bool(lines)) == (remarked, said)


def test_a_file_that_ends_in_what_looks_like_its_end(tmp_path):
    """A place that a footer names lies in the last bytes of the file."""
    records = MAGIC + record(1, text("") + text("")) + channel(1, "/a") + message(1, START_NS, b"x")
    for back in range(1, 37):
        size = len(records) + 29 + 8
        end = record(2, struct.pack("<QQI", size - back, 0, 0)) + MAGIC
        (tmp_path / "a.mcap").write_bytes(records + end)
        found, lines, _ = contents(tmp_path / "a.mcap")
        assert [m[0] for m in found] == ["/a"] and lines


def test_each_bit_of_what_is_not_a_message(tmp_path):
    """Header, declarations, and the whole summary of a file without sums."""
    messages = rows(12)
    whole = write(tmp_path / "a.mcap", messages, chunked=False).read_bytes()
    first = spans(whole, messages)[0][0]
    summary = write(tmp_path / "b.mcap", messages).read_bytes()
    for data, places in [
        (whole, range(8, first)),
        (summary, range(data_end(summary), len(summary))),
    ]:
        for place in places:
            spoilt = bytearray(data)
            spoilt[place] ^= 1 << place % 8
            (tmp_path / "c.mcap").write_bytes(spoilt)
            found, lines, remarks = contents(tmp_path / "c.mcap")
            assert len(found) == len(messages) or lines, place
            assert {m[1:] for m in found} <= {m[1:] for m in messages} and remarks
            if data is summary:
                assert {m[1:] for m in found} == {m[1:] for m in messages}, (place, lines)
