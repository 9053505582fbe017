"""One observation stream of the embodiment file: its keys, and what they mean for its numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from embodied_rl.core.message_types import (
    COMPONENTS,
    ENCODINGS,
    JOINT_STATE,
    LASER_SCAN,
    STREAM_FIELDS,
)
from embodied_rl.core.scan import ScanGeometry, parse_scan
from embodied_rl.core.schema import Section

NANOSECONDS = 1_000_000_000

# Where the time of a sample comes from: the header of its message, or when it was received.
HEADER, RECEIVE = "header", "receive"


@dataclass(frozen=True)
class Stream:
    """One observation: a part of one topic, with its shape, unit, rate and maximum age."""

    key: str
    topic: str
    type: str
    shape: tuple[int, ...]
    dtype: str
    rate_hz: float
    max_age_s: float
    field: str = ""
    joints: tuple[str, ...] = ()
    encoding: str = ""
    unit: str = ""
    scan: ScanGeometry | None = None  # of a lidar's stream
    latency_s: float = 0.0  # a sample stamped s counts as there from s + latency_s on
    stamps: str = HEADER
    stuck_after_s: float | None = None  # the same value for longer than this is a stuck sensor

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the values: joints, or x, y, z and the like; none of an image or a scan."""
        return self.joints or COMPONENTS.get(self.field, ())

    @property
    def period_ns(self) -> int:
        return round(NANOSECONDS / self.rate_hz)

    @property
    def latency_ns(self) -> int:
        return round(self.latency_s * NANOSECONDS)

    @property
    def max_age_ns(self) -> int:
        return round(self.max_age_s * NANOSECONDS)


def meaning(stream: Stream) -> list[object]:
    """What a network takes the numbers of a stream for; a scan adds where its beams point."""
    joints, shape = list(stream.joints), list(stream.shape)
    scan = [] if stream.scan is None else [asdict(stream.scan)]
    return [stream.type, stream.field, joints, stream.encoding, shape, stream.unit, *scan]


def parse_stream(part: Section) -> Stream:
    kind = part.choice("type", STREAM_FIELDS)
    topic = part.relative_name("topic")
    fields = STREAM_FIELDS[kind]
    chosen = part.choice("field", fields) if fields else ""
    joints: tuple[str, ...] = ()
    encoding, dtype, scan = "", "float64", None
    if kind == LASER_SCAN:
        scan, dtype = parse_scan(part), "float32"
        shape: tuple[int, ...] = (scan.beams,)
    elif kind == JOINT_STATE:
        joints = part.names("joints")
        shape = (len(joints),)
    elif fields:
        shape = (len(COMPONENTS[chosen]),)
    else:
        encoding = part.choice("encoding", ENCODINGS)
        dtype, channels = ENCODINGS[encoding]
        shape = part.shape("shape")
        expected_rank = 3 if channels > 1 else 2
        if len(shape) != expected_rank or (channels > 1 and shape[2] != channels):
            wanted = "[height, width, 3]" if channels > 1 else "[height, width]"
            part.fail("shape", f"{wanted} for {encoding}", list(shape))
    stream = Stream(
        key=part.key,
        topic=topic,
        type=kind,
        field=chosen,
        joints=joints,
        shape=shape,
        dtype=dtype,
        encoding=encoding,
        unit=part.text("unit", default="m" if scan else ""),
        scan=scan,
        rate_hz=part.rate("rate_hz"),
        max_age_s=part.positive("max_age_s"),
        latency_s=part.at_least_zero("latency_s", default=0.0),
        stamps=part.choice("stamps", (HEADER, RECEIVE), default=HEADER),
        stuck_after_s=part.positive("stuck_after_s", default=None),
    )
    if stream.latency_s >= stream.max_age_s:
        part.fail("latency_s", f"less than max_age_s = {stream.max_age_s:g} s", stream.latency_s)
    if scan is not None and stream.unit != "m":
        part.fail("unit", "'m', the unit of every scan", f"'{stream.unit}'")
    if stream.max_age_s * stream.rate_hz < 1:
        part.fail("max_age_s", f"at least one period ({1 / stream.rate_hz:g} s)", stream.max_age_s)
    part.done()
    return stream
