"""One observation stream of the embodiment file: its keys, and what they mean for its numbers.

docs/embodiment.md lists every key with an example.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from embodied_rl.core.frames import Frames, Pose
from embodied_rl.core.images import Source, parse_source
from embodied_rl.core.message_types import (
    COMPONENTS,
    COMPRESSED_IMAGE,
    ENCODINGS,
    FLOAT,
    FLOAT32,
    FLOAT32_ARRAY,
    FLOAT_ARRAY,
    FRAME_BOUND,
    FRAMED,
    HEADERLESS,
    IMAGE,
    IMAGE_TYPES,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    ODOMETRY,
    POINT_CLOUD,
    POSE,
    POSE_COVARIANCE,
    STREAM_FIELDS,
    TF,
)
from embodied_rl.core.scan import ScanGeometry, parse_scan
from embodied_rl.core.schema import Section

NANOSECONDS = 1_000_000_000

BASE_LINK = "base_link"  # REP 105: the frame of a mobile base, in which its velocities are

# Where the time of a sample comes from: the header of its message, or when it was received.
HEADER, RECEIVE = "header", "receive"

# unit of a driver -> (unit of the stream, factor)
CONVERSIONS: dict[str, tuple[str, float]] = {
    "deg": ("rad", math.pi / 180),
    "deg/s": ("rad/s", math.pi / 180),
    "mm": ("m", 1e-3),
    "cm": ("m", 1e-2),
    "mm/s": ("m/s", 1e-3),
    "cm/s": ("m/s", 1e-2),
    "g": ("m/s^2", 9.80665),
}
_SPELLINGS = {"degree": "deg", "degrees": "deg", "deg/sec": "deg/s", "degrees/s": "deg/s"}
_FIELD_UNITS = {  # of ROS messages, where the field alone says it (REP 103)
    "position": "m",
    "yaw": "rad",
    "linear_velocity": "m/s",
    "angular_velocity": "rad/s",
    "linear_acceleration": "m/s^2",
    "force": "N",
    "torque": "N m",
}
# The same numbers in another envelope: a policy trained on the one runs on the other.
_ENVELOPES = {
    COMPRESSED_IMAGE: IMAGE,
    POSE_COVARIANCE: POSE,
    TF: POSE,
    FLOAT32: FLOAT,
    FLOAT32_ARRAY: FLOAT_ARRAY,
}


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
    prefix: str = ""  # of the joints' names in messages
    split: bool = False  # the joints come in messages of their own and are put together
    continuous: tuple[float | None, ...] = ()  # centre (rad) of each joint that turns without end
    limits: tuple[tuple[float, float] | None, ...] = ()  # of the commands that move the joints
    scale: float = 1.0  # from the driver's unit to `unit`
    names: tuple[str, ...] = ()  # of the values of an array, or of the fields of a point cloud
    source: Source | None = None  # of a camera's stream
    frame: str = ""  # that the values are in; "" where it is that of the sensor
    frame_declared: bool = False  # and it is not the robot's base frame
    source_frame: str = ""  # that messages are in, when they do not say so
    child_frame: str = ""  # of a TF stream or an odometry: whose pose it is
    sensor_frame: str = ""  # of a camera or a lidar, as the headers of its messages name it
    transforms: Mapping[str, Pose] = dataclasses.field(  # frame -> where it stands in `frame`
        default_factory=dict, repr=False, compare=False
    )

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the values: joints, or x, y, z and the like; none of an image or a scan."""
        if len(self.shape) > 1:
            return ()
        return self.joints or self.names or COMPONENTS.get(self.field, ())

    @property
    def wire_joints(self) -> tuple[str, ...]:
        """The joints' names as messages have them."""
        return tuple(self.prefix + joint for joint in self.joints)

    @property
    def static_topic(self) -> str:
        """Of a TF stream: the topic with the transforms that do not move."""
        return f"{self.topic}_static" if self.type == TF else ""

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
    """What a network takes the numbers of a stream for; a scan adds where its beams point.

    What came later is added only where it is set, so that the hash of an older file stays. How the
    numbers travel (topic, envelope, prefix, driver's unit, encoding and size) is left out.
    """
    joints, shape = list(stream.joints), list(stream.shape)
    scan = [] if stream.scan is None else [asdict(stream.scan)]
    added: dict[str, object] = {}
    if stream.frame_declared:
        added["frame"] = stream.frame
    if stream.continuous:
        added["continuous"] = list(stream.continuous)
    if stream.names and stream.type not in (FLOAT, FLOAT32):
        added["names"] = list(stream.names)
    kind = _ENVELOPES.get(stream.type, stream.type)
    more = [added] if added else []
    return [kind, stream.field, joints, stream.encoding, shape, stream.unit, *scan, *more]


def parse_stream(part: Section, prefix: str, base_frame: str, frames: Frames) -> Stream:
    """One entry of ``streams``.

    Args:
        prefix: of joint names, where the stream has none of its own.
        base_frame: that poses are in where nothing else is declared.
        frames: fixed frames, from which values can be brought into the stream's.

    Raises:
        UserError: a key is missing, unknown or unsound.
    """
    kind = part.choice("type", STREAM_FIELDS)
    topic = part.relative_name("topic")
    fields = STREAM_FIELDS[kind]
    chosen = part.choice("field", fields) if fields else ""
    layout = _layout(part, kind, chosen)
    unit, scale = part.text("unit", default="m"), 1.0
    if layout.scan is None:
        unit, scale = _unit(part, kind, chosen, layout.encoding)
    frame = _frame(part, kind, chosen, layout.names, base_frame)
    stream = Stream(
        key=part.key,
        topic=topic,
        type=kind,
        field=chosen,
        unit=unit,
        scale=scale,
        rate_hz=part.rate("rate_hz"),
        max_age_s=part.positive("max_age_s"),
        latency_s=part.at_least_zero("latency_s", default=0.0),
        stamps=_stamps(part, kind),
        stuck_after_s=part.positive("stuck_after_s") if part.has("stuck_after_s") else None,
        prefix=part.text("prefix", default=prefix) if layout.joints else "",
        split=part.flag("split", default=False) if layout.joints else False,
        continuous=(
            _continuous(part, layout.joints, unit) if chosen == "position" and layout.joints else ()
        ),
        frame=frame,
        frame_declared=bool(frame) and frame != base_frame,
        source_frame=part.text("source_frame", default="") if frame else "",
        child_frame=_child_frame(part, kind),
        sensor_frame=_sensor_frame(part, kind),
        transforms=frames.to(frame) if frame else {},
        **vars(layout),
    )
    if layout.scan is not None and stream.unit != "m":
        part.fail("unit", "'m', the unit of every scan", f"'{stream.unit}'")
    if (stream.max_age_s - stream.latency_s) * stream.rate_hz < 1:
        wanted = "at least one period" + (" and latency_s" if stream.latency_s else "")
        least_s = stream.latency_s + 1 / stream.rate_hz
        part.fail("max_age_s", f"{wanted} ({least_s:g} s)", stream.max_age_s)
    part.done()
    return stream


@dataclass(frozen=True)
class _Layout:
    """What the values of a stream are made of; fields as in :class:`Stream`."""

    shape: tuple[int, ...]
    dtype: str = "float64"
    joints: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    encoding: str = ""
    scan: ScanGeometry | None = None
    source: Source | None = None


def _layout(part: Section, kind: str, chosen: str) -> _Layout:
    if kind == LASER_SCAN:
        scan = parse_scan(part)
        return _Layout((scan.beams,), "float32", scan=scan)
    if kind == POINT_CLOUD:
        names, shape = _cloud(part)
        return _Layout(shape, "float32", names=names)
    if kind == JOINT_STATE:
        joints = part.names("joints")
        return _Layout((len(joints),), joints=joints)
    if kind in (FLOAT, FLOAT32):
        return _Layout((1,), names=(part.key,))
    if kind in (FLOAT_ARRAY, FLOAT32_ARRAY, JOY):
        names = part.names("names")
        return _Layout((len(names),), names=names)
    if kind in IMAGE_TYPES:
        encoding, dtype, shape = _picture(part)
        source = parse_source(part, encoding, shape, compressed=kind == COMPRESSED_IMAGE)
        return _Layout(shape, dtype, encoding=encoding, source=source)
    return _Layout((len(COMPONENTS[chosen]),))


def _picture(part: Section) -> tuple[str, str, tuple[int, ...]]:
    """Encoding, dtype and shape that the policy sees."""
    encoding = part.choice("encoding", ENCODINGS)
    dtype, channels = ENCODINGS[encoding]
    shape = part.shape("shape")
    expected_rank = 3 if channels > 1 else 2
    if len(shape) != expected_rank or (channels > 1 and shape[2] != channels):
        wanted = "[height, width, 3]" if channels > 1 else "[height, width]"
        part.fail("shape", f"{wanted} for {encoding}", list(shape))
    return encoding, dtype, shape


def _cloud(part: Section) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names, shape = part.names("channels"), part.shape("shape")
    if len(shape) != 2 or shape[1] != len(names):
        part.fail("shape", f"[points, {len(names)}] for channels {list(names)}", list(shape))
    return names, shape


def _stamps(part: Section, kind: str) -> str:
    chosen = part.choice("stamps", (HEADER, RECEIVE), default=HEADER)
    if kind in HEADERLESS and chosen != RECEIVE:
        part.fail("stamps", f"'{RECEIVE}', since {kind} has no header", f"'{chosen}'")
    return chosen


def foreign_unit(unit: str) -> str | None:
    """The unit to use in place of one that only drivers use, such as rad for deg."""
    found = CONVERSIONS.get(_SPELLINGS.get(unit, unit))
    return None if found is None else found[0]


def _unit(part: Section, kind: str, chosen: str, encoding: str) -> tuple[str, float]:
    """Unit of the stream, and what the driver's numbers are multiplied by."""
    unit = part.text("unit", default="")
    foreign = _SPELLINGS.get(unit, unit)
    if foreign in CONVERSIONS and not encoding:
        target = CONVERSIONS[foreign][0]
        line = f"'{target}', the unit a policy sees; of a driver that sends {foreign} say"
        part.fail("unit", f"{line} 'source_unit: {foreign}' beside it", f"'{unit}'")
    ros = {"16UC1": "mm", "32FC1": "m"}.get(encoding, "")
    if kind != JOINT_STATE and chosen:
        ros = _FIELD_UNITS.get(chosen, "")
    if ros and unit not in ("", ros):
        part.fail("unit", f"'{ros}', the unit of {encoding or chosen}", f"'{unit}'")
    sent = part.text("source_unit", default="")
    if not sent or encoding:
        if sent:
            part.fail("source_unit", "none: the encodings of a depth image say it", f"'{sent}'")
        return unit, 1.0
    fitting = [name for name, (target, _) in CONVERSIONS.items() if target == unit]
    if sent not in fitting:
        part.fail("source_unit", f"one of {fitting}, which '{unit}' is made of", f"'{sent}'")
    return unit, CONVERSIONS[sent][1]


def _continuous(part: Section, joints: tuple[str, ...], unit: str) -> tuple[float | None, ...]:
    """Centre of the turn that each endless joint is read within; () if none is endless."""
    given = part.value("continuous", None)
    if given is None or given is False:
        return ()
    if given is True:
        given = list(joints)
    centres = given
    if isinstance(given, list) and all(isinstance(joint, str) for joint in given):
        centres = dict.fromkeys(given, 0.0)
    sound = isinstance(centres, dict) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        for value in centres.values()
    )
    if not sound or not set(centres) <= set(joints):
        expected = f"true, a list of joints, or joint: centre in rad, of {list(joints)}"
        part.fail("continuous", expected, given)
    if unit not in ("", "rad"):
        part.fail("unit", "'rad', for joints that turn without end", f"'{unit}'")
    return tuple(float(centres[j]) if j in centres else None for j in joints)


def _sensor_frame(part: Section, kind: str) -> str:
    if kind == LASER_SCAN:
        return part.text("frame", default=BASE_LINK)
    return part.text("frame", default="") if kind in IMAGE_TYPES else ""


def _child_frame(part: Section, kind: str) -> str:
    if kind == ODOMETRY:
        return part.text("child_frame", default=BASE_LINK)
    return part.text("child_frame") if kind == TF else ""


def _frame(part: Section, kind: str, chosen: str, names: tuple[str, ...], base_frame: str) -> str:
    """The frame that the values are in, "" where it is the sensor's own."""
    if kind == POINT_CLOUD and {"x", "y", "z"} <= set(names):
        return part.text("frame", default="")
    if chosen not in FRAMED.get(kind, ()):
        return ""
    if kind == ODOMETRY and base_frame == BASE_LINK:
        return part.text("frame", default="")  # a pose of the base itself, in a frame of its own
    return part.text("frame", default=base_frame if kind in FRAME_BOUND else "")
