"""One bag: which topics it holds, and its messages in the order they were recorded.

Takes what ``ros2 bag record`` and our recorder write: MCAP or SQLite, one file or several, plain
or compressed, with or without ``metadata.yaml``, closed or killed. ROS is not needed.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from embodied_rl.bags import metadata as meta
from embodied_rl.bags.compression import SPOILT, ZSTD_MAGIC, unpack_file, unpack_message
from embodied_rl.bags.find import recordings
from embodied_rl.bags.mcap_reader import McapFile
from embodied_rl.bags.report import Report
from embodied_rl.bags.sqlite_reader import SqliteFile
from embodied_rl.bags.storage import Message, StorageFile, TopicInfo, Unreadable
from embodied_rl.core.errors import ITEMS, UserError
from embodied_rl.core.schema import plain

COMPRESSED = (".zstd", ".zst")
SUFFIXES = (".mcap", ".db3")
_SPLIT_FILE = re.compile(r"_(\d+)\.[a-z0-9]+$")


@dataclass(frozen=True)
class BagPath:
    """Where one bag lies: its name for reports, its folder and its data files in order."""

    name: str
    folder: Path
    files: tuple[Path, ...]
    described: bool = True  # a metadata.yaml in the folder is of this bag

    @property
    def size(self) -> int:
        """Bytes of the data files."""
        return sum(file.stat().st_size for file in self.files if file.exists())

    def fingerprint(self) -> str:
        """Changes when a data file is added, removed or rewritten."""
        parts = []
        for file in self.files:
            status = file.stat()
            parts.append(f"{file.name}:{status.st_size}:{status.st_mtime_ns}")
        return ";".join(parts)


def find_bags(root: str | Path) -> list[BagPath]:
    """All bags at or below ``root``, in natural order of their names.

    Raises:
        UserError: nothing there, or no bag in it.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root}: no such file or folder")
    if root.is_file():
        if not is_data_file(root):
            raise UserError(f"{root}: expected a bag (a folder, .mcap or .db3), saw another file")
        return [BagPath(root.name, root.parent, (root,))]
    folders = {file.parent for file in root.rglob("*") if file.is_file() and is_data_file(file)}
    folders |= {file.parent for file in root.rglob(meta.FILE_NAME)}
    bags = [bag for folder in folders for bag in _bags_of_folder(root, folder)]
    if not bags:
        raise UserError(f"{root}: expected rosbag2 folders, .mcap or .db3 files below it, saw none")
    return sorted(bags, key=lambda bag: natural(bag.name))


def is_data_file(path: Path) -> bool:
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes = suffixes[:-1]
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def _plain_name(name: str) -> str:
    """The name of a data file without the ending of file compression."""
    return str(Path(name).with_suffix("")) if Path(name).suffix in COMPRESSED else name


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``bag_2`` before ``bag_10``."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _bags_of_folder(root: Path, folder: Path) -> Iterator[BagPath]:
    name = folder.name if folder == root else str(folder.relative_to(root))
    files = sorted(
        (file for file in folder.iterdir() if file.is_file() and is_data_file(file)),
        key=lambda file: natural(file.name),
    )
    described = (folder / meta.FILE_NAME).exists()
    listed = _listed(folder / meta.FILE_NAME) if described else set()
    if described and (not files or not listed):  # nothing to tell the files apart by
        yield BagPath(name, folder, tuple(files))
        return
    for part, group in recordings(files, listed, folder.name):
        own = described and not part
        yield BagPath(f"{name}/{part}" if part else name, folder, tuple(group), described=own)


def _listed(path: Path) -> set[str]:
    """The data files that ``metadata.yaml`` names; none where it cannot be read."""
    try:
        names = meta.read(path).files
    except (OSError, ValueError):
        return set()
    return {name + ending for name in names for ending in ("", *COMPRESSED)}


class Bag:
    """An open bag. Findings go to ``report``; a bag of which nothing can be read has no topics.

    Attributes:
        topics: name -> :class:`TopicInfo`, counts over all files.
        span_ns: first and last log time, (0, 0) for an empty bag.
        declared: name -> messages after ``metadata.yaml``, empty without one.
    """

    def __init__(self, place: BagPath, report: Report | None = None):
        self.place = place
        self.report = report if report is not None else Report(place.name)
        self.topics: dict[str, TopicInfo] = {}
        self.span_ns = (0, 0)
        self.message_compression = False
        self.declared: dict[str, int] = {}  # messages by topic after metadata.yaml
        self._short: set[str] = set()  # topics of which the report says that messages are missing
        self._stack = ExitStack()
        self._files: list[StorageFile] = []
        for path in self._ordered_files():
            try:
                self._files.append(self._open(path))
            except (Unreadable, OSError) as error:
                expected = error.expected if isinstance(error, Unreadable) else "a readable file"
                seen = error.seen if isinstance(error, Unreadable) else f"{error} ({path.name})"
                self.report.add("", expected, seen)
        self._files.sort(key=lambda file: file.span_ns[0])
        self._gather()

    @classmethod
    def open(cls, path: str | Path) -> Bag:
        """The only bag at ``path``.

        Raises:
            UserError: none or several there.
        """
        bags = find_bags(path)
        if len(bags) > 1:
            names = ", ".join(bag.name for bag in bags[:3])
            raise UserError(f"{path}: expected one bag, saw {len(bags)} ({names}, ...)")
        return cls(bags[0])

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []
        self._stack.close()

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[Message]:
        """Messages of the named topics (default: all) in recording order.

        At the end the report says if there were fewer than the files themselves declare.
        """
        wanted: Collection[str] = set(self.topics if topics is None else topics)
        seen = dict.fromkeys(wanted, 0)
        cdr = {name for name in wanted if name in self.topics and self._is_cdr(name)}
        for file in self._files:
            for message in self._readable(file, wanted):
                # without metadata.yaml only the messages themselves tell that they are compressed
                if self.message_compression or (
                    message.data[:4] == ZSTD_MAGIC and message.topic in cdr
                ):
                    try:
                        message = message._replace(data=memoryview(unpack_message(message.data)))
                    except SPOILT as error:
                        expected = "a zstd-compressed message"
                        self.report.add(message.topic, expected, plain(str(error)))
                        continue
                seen[message.topic] += 1
                yield message
        self._compare({name: self.topics[name].count for name in wanted & self.topics.keys()}, seen)

    def _readable(self, file: StorageFile, wanted: Collection[str]) -> Iterator[Message]:
        """The messages of a file, up to where the medium fails."""
        try:
            yield from file.messages(wanted)
        except OSError as error:
            self.report.add("", "a readable medium", f"{error.strerror} in {file.path.name}")

    def _is_cdr(self, topic: str) -> bool:
        return self.topics[topic].serialization == "cdr"

    def _compare(self, declared: Mapping[str, int], seen: Mapping[str, int]) -> None:
        """Say in one line which topics have fewer messages than declared."""
        fewer = {
            name: count
            for name, count in declared.items()
            if seen.get(name, 0) < count and name not in self._short
        }
        if not fewer:
            return
        self._short.update(fewer)
        parts = [f"{seen.get(name, 0)} of {count} of {name}" for name, count in fewer.items()]
        more = [f"... ({len(parts)} topics)"] if len(parts) > ITEMS else []
        self.report.add(
            "", f"{sum(fewer.values())} messages as declared", ", ".join([*parts[:ITEMS], *more])
        )

    # ---------------------------------------------------------------- opening
    def _ordered_files(self) -> list[Path]:
        """Data files in the order of ``metadata.yaml``, those that it does not list at the end."""
        path = self.place.folder / meta.FILE_NAME
        files = self._single_files()
        if not path.exists() or not self.place.described:
            if not (len(files) == 1 and files[0].name == self.place.name):
                # a file that was named by the user is not expected to have a folder's metadata
                seen = "none (the recorder was stopped hard?)"
                self.report.add("", f"a {meta.FILE_NAME}", seen, damage=False)
            return files
        try:
            described = meta.read(path)
        except (OSError, ValueError) as error:
            self.report.add("", f"a rosbag2 {meta.FILE_NAME}", str(error))
            return files
        self.message_compression = described.compression_mode == "message"
        for topic in described.topics:
            self.declared[topic.name] = self.declared.get(topic.name, 0) + topic.count
        known = {_plain_name(file.name): file for file in files}
        ordered = []
        for name in described.files:
            if _plain_name(name) in known:
                ordered.append(known.pop(_plain_name(name)))
            else:
                self.report.add("", f"the data file {plain(name)}", "no such file")
        return ordered + list(known.values())

    def _single_files(self) -> list[Path]:
        """The data files, of two copies of one the plain one; gaps in their numbers are said."""
        files = {file.name: file for file in self.place.files}
        for name in list(files):
            if _plain_name(name) != name and _plain_name(name) in files:
                del files[name]
                self.report.add(
                    "", "one copy of each data file",
                    f"{name} beside {_plain_name(name)}, which is read", damage=False,
                )  # fmt: skip
        numbers = [int(m[1]) for name in files if (m := _SPLIT_FILE.search(_plain_name(name)))]
        for before, after in itertools.pairwise(sorted(numbers)):
            if after > before + 1:
                seen = f"number {after} after {before}; {after - before - 1} are missing"
                self.report.add("", "the files of a split recording one after the other", seen)
        return list(files.values())

    def _open(self, path: Path) -> StorageFile:
        if path.suffix in COMPRESSED:
            path = self._unpacked(path)
        kind = McapFile if path.suffix == ".mcap" else SqliteFile
        return kind(path, self.report)

    def _unpacked(self, path: Path) -> Path:
        """A file-compressed data file, decompressed into a temporary folder as far as it goes."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bag_")))
        target = folder / path.stem
        try:
            unpack_file(path, target)
        except SPOILT as error:
            self.report.add("", "a whole zstd file", f"{plain(str(error))} in {path.name}")
        return target

    def _gather(self) -> None:
        spans = []
        for file in self._files:
            if file.span_ns != (0, 0):
                spans.append(file.span_ns)
            for topic in file.topics:
                known = self.topics.get(topic.name)
                if known is None:
                    self.topics[topic.name] = topic
                    continue
                if known.type != topic.type:
                    self.report.add(topic.name, f"one type ({known.type})", f"also {topic.type}")
                    continue
                self.topics[topic.name] = replace(known, count=known.count + topic.count)
        self._compare(self.declared, {name: topic.count for name, topic in self.topics.items()})
        if spans:
            self.span_ns = (min(span[0] for span in spans), max(span[1] for span in spans))
