"""``metadata.yaml`` of a rosbag2 folder: written for every ROS 2 from Humble on, read leniently.

Version 8 is written on purpose although 9 is current: Humble reads the offered QoS as text, which
version 9 no longer is, and every later rosbag2 still reads version 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from embodied_rl.core.schema import check_size, plain

FILE_NAME = "metadata.yaml"
LONGEST = 16 << 20  # bytes
VERSION = 8
INFINITE = {"sec": 9223372036, "nsec": 854775807}  # RMW_DURATION_INFINITE

# rmw enumerations, the numbers that version 8 stores
HISTORY = {"system_default": 0, "keep_last": 1, "keep_all": 2, "unknown": 3}
RELIABILITY = {"system_default": 0, "reliable": 1, "best_effort": 2, "unknown": 3}
DURABILITY = {"system_default": 0, "transient_local": 1, "volatile": 2, "unknown": 3}
LIVELINESS = {"system_default": 0, "automatic": 1, "manual_by_topic": 3, "unknown": 4}

# the safe loader in C: ten times faster, and there is one such file for every bag
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Qos:
    """The part of an offered QoS profile that a player needs in order to republish a topic."""

    depth: int = 10
    reliability: str = "reliable"
    durability: str = "volatile"
    history: str = "keep_last"
    liveliness: str = "automatic"

    def mapping(self) -> dict[str, Any]:
        return {
            "history": HISTORY[self.history],
            "depth": self.depth,
            "reliability": RELIABILITY[self.reliability],
            "durability": DURABILITY[self.durability],
            "deadline": dict(INFINITE),
            "lifespan": dict(INFINITE),
            "liveliness": LIVELINESS[self.liveliness],
            "liveliness_lease_duration": dict(INFINITE),
            "avoid_ros_namespace_conventions": False,
        }


def qos_text(profiles: list[Qos]) -> str:
    """The YAML list that rosbag2 keeps as text in ``metadata.yaml`` and in MCAP channels."""
    if not profiles:
        return ""
    return str(yaml.safe_dump([qos.mapping() for qos in profiles], sort_keys=False)).strip()


@dataclass(frozen=True)
class TopicRow:
    """One topic of ``metadata.yaml``."""

    name: str
    type: str
    count: int
    qos: str = ""
    type_hash: str = ""


@dataclass(frozen=True)
class Metadata:
    """What ``metadata.yaml`` says; the data files are the truth where the two disagree."""

    storage: str
    files: tuple[str, ...]
    start_ns: int
    duration_ns: int
    topics: tuple[TopicRow, ...]
    compression_format: str = ""
    compression_mode: str = ""
    ros_distro: str = ""
    custom: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(topic.count for topic in self.topics)

    def information(self) -> dict[str, Any]:
        """The mapping under ``rosbag2_bagfile_information`` (one data file)."""
        span = {
            "duration": {"nanoseconds": self.duration_ns},
            "starting_time": {"nanoseconds_since_epoch": self.start_ns},
            "message_count": self.count,
        }
        return {
            "version": VERSION,
            "storage_identifier": self.storage,
            **span,
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic.name,
                        "type": topic.type,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": topic.qos,
                        "type_description_hash": topic.type_hash,
                    },
                    "message_count": topic.count,
                }
                for topic in self.topics
            ],
            "compression_format": self.compression_format,
            "compression_mode": self.compression_mode,
            "relative_file_paths": list(self.files),
            "files": [{"path": name, **_copy(span)} for name in self.files],
            "custom_data": dict(self.custom),
            "ros_distro": self.ros_distro,
        }

    def text(self) -> str:
        """The file."""
        return dump({"rosbag2_bagfile_information": self.information()})


def _copy(span: dict[str, Any]) -> dict[str, Any]:
    # a shared mapping would become a YAML anchor, which not every reader of these files follows
    return {key: dict(value) if isinstance(value, dict) else value for key, value in span.items()}


def dump(data: dict[str, Any]) -> str:
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True))


def read(path: Path) -> Metadata:
    """The file at ``path``.

    Raises:
        ValueError: as :func:`parse`, or not UTF-8.
        OSError: it cannot be read.
    """
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path.stat().st_size} bytes, more than {LONGEST}")
    return parse(path.read_text(encoding="utf-8"), path)


def parse(text: str, path: Path) -> Metadata:
    """Read any version from 1 to 9.

    Raises:
        ValueError: not YAML, or without the keys that every version has; the text says which.
    """
    try:
        check_size(text)
        data = yaml.load(text, Loader=_Loader)["rosbag2_bagfile_information"]
        return Metadata(
            storage=str(data["storage_identifier"]),
            files=tuple(_file_name(name, path) for name in data["relative_file_paths"]),
            start_ns=int(data["starting_time"]["nanoseconds_since_epoch"]),
            duration_ns=int(data["duration"]["nanoseconds"]),
            topics=tuple(_topic_row(row) for row in data["topics_with_message_count"]),
            compression_format=str(data.get("compression_format") or "").lower(),
            compression_mode=str(data.get("compression_mode") or "").lower(),
            ros_distro=str(data.get("ros_distro") or ""),
            custom={str(k): str(v) for k, v in (data.get("custom_data") or {}).items()},
        )
    except yaml.YAMLError as error:
        raise ValueError(f"text that is not YAML ({plain(str(error))})") from error
    except KeyError as error:
        raise ValueError(f"no key {plain(str(error))}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"content of another form ({plain(str(error))})") from error


def _topic_row(row: dict[str, Any]) -> TopicRow:
    about = row["topic_and_type"] if "topic_and_type" in row else row["topic_metadata"]  # version 1
    return TopicRow(str(about["name"]), str(about["type"]), int(row["message_count"]))


def _file_name(name: Any, path: Path) -> str:
    # before version 4 the names carried the folder; a moved bag keeps only the last part valid
    return Path(str(name)).name
