"""Write one rosbag2 folder (MCAP) from serialised messages.

The folder carries ``.partial`` at its end while it grows and loses it when it is complete, so a
finished name always means a finished bag, and what ``kill -9`` leaves is still an ordinary MCAP
file up to its last chunk, found and read by ``embodied_rl bags``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from embodied_rl.bags.mcap_writer import NO_ROOM, McapWriter
from embodied_rl.bags.messages import standard_types
from embodied_rl.bags.metadata import FILE_NAME, Metadata, Qos, TopicRow, dump, qos_text
from embodied_rl.core.errors import UserError

PARTIAL = ".partial"
BALLAST_BYTES = 8 << 20  # room for one more chunk, the summary and metadata.yaml on a full disk


class BagFull(UserError):
    """The disk is full; the bag can still be closed with what it holds."""


class BagWriter:
    """Records serialised messages into ``folder``.

    Usage: :meth:`add_topic` for every topic, :meth:`write`, :meth:`flush` about once a second,
    :meth:`close`. After :class:`BagFull` only :meth:`close` makes sense.

    Raises:
        UserError: the folder exists, or cannot be made.
    """

    def __init__(
        self, folder: Path, *, chunk_bytes: int = 1 << 20, ballast_bytes: int = BALLAST_BYTES
    ):
        self.folder = folder
        self.partial = folder.with_name(folder.name + PARTIAL)
        self._types = standard_types()
        self._topics: dict[str, int] = {}
        self._rows: list[tuple[str, str, str, str]] = []  # name, type, qos, hash; by channel
        if folder.exists():
            raise UserError(f"{folder}: exists already; recordings are never overwritten")
        try:
            self.partial.mkdir(parents=True)
            self._ballast = self.partial / ".ballast"
            self._reserve(ballast_bytes)
            self._mcap = McapWriter(
                self.partial / f"{folder.name}_0.mcap", chunk_bytes, self._release
            )
        except OSError as error:
            raise UserError(f"{self.partial}: cannot be made: {error.strerror}") from error

    # ---------------------------------------------------------------- contents
    def add_topic(self, name: str, kind: str, qos: Sequence[Qos] = ()) -> None:
        """Declare topic ``name`` of ROS type ``kind`` such as ``sensor_msgs/msg/Image``.

        Raises:
            UserError: the type is not one of the standard messages of ROS 2 Jazzy.
        """
        if kind not in self._types.types:
            raise UserError(f"{name}: message type '{kind}' is not a standard ROS 2 message")
        definition, _ = self._types.generate_msgdef(kind, ros_version=2)
        type_hash = self._types.hash_rihs01(kind)
        profiles = qos_text(list(qos))
        self._topics[name] = self._mcap.add_channel(
            name, kind, definition,
            {"offered_qos_profiles": profiles, "topic_type_hash": type_hash},
        )  # fmt: skip
        self._rows.append((name, kind, profiles, type_hash))

    def write(self, topic: str, log_time_ns: int, data: bytes | memoryview) -> None:
        """Append one serialised message; ``log_time_ns`` is the time of recording.

        Raises:
            BagFull: the disk is full.
        """
        try:
            self._mcap.write(self._topics[topic], log_time_ns, data)
        except OSError as error:
            raise self._failed(error) from error
        self._check_room()

    def flush(self) -> None:
        """Put everything received so far on disk.

        Raises:
            BagFull: the disk is full.
        """
        try:
            self._mcap.flush()
        except OSError as error:
            raise self._failed(error) from error
        self._check_room()

    # ---------------------------------------------------------------- figures
    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._mcap.size

    @property
    def full(self) -> bool:
        """The disk ran out of room while writing."""
        return self._mcap.full

    def counts(self) -> dict[str, int]:
        """Messages on disk by topic."""
        counts = self._mcap.counts()
        return {name: counts[channel] for name, channel in self._topics.items()}

    # ---------------------------------------------------------------- end
    def close(self) -> Path:
        """Finish the bag and give it its final name.

        Returns:
            The folder.

        Raises:
            UserError: not even the summary fits; the ``.partial`` folder stays, readable.
        """
        self._release()
        try:
            self._mcap.close(lambda: dump(self._metadata().information()))
            self._write_metadata()
            os.rename(self.partial, self.folder)
            _sync_folder(self.folder.parent)
        except OSError as error:
            self._mcap.abandon()
            raise UserError(
                f"{self.partial}: could not be closed ({error.strerror}); "
                "its complete chunks remain readable"
            ) from error
        return self.folder

    def discard(self) -> None:
        """Throw away what has been written.

        Raises:
            UserError: it could not be removed; names the folder.
        """
        self._release()
        self._mcap.abandon()
        try:
            shutil.rmtree(self.partial)
        except OSError as error:
            raise UserError(f"{self.partial}: could not be removed: {error.strerror}") from error

    def _metadata(self) -> Metadata:
        counts, (start_ns, end_ns) = self._mcap.counts(), self._mcap.span_ns()
        return Metadata(
            storage="mcap",
            files=(self._mcap.path.name,),
            start_ns=start_ns,
            duration_ns=end_ns - start_ns,
            topics=tuple(
                TopicRow(name, kind, counts[self._topics[name]], profiles, type_hash)
                for name, kind, profiles, type_hash in self._rows
            ),
            ros_distro="jazzy",
        )

    def _write_metadata(self) -> None:
        temporary = self.partial / (FILE_NAME + ".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(self._metadata().text())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.partial / FILE_NAME)
        _sync_folder(self.partial)

    # ---------------------------------------------------------------- room
    def _reserve(self, size: int) -> None:
        """Allocate a file that is given up when the disk is full, so that the bag can be closed."""
        file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            os.close(file)
            self._ballast.unlink()
            self.partial.rmdir()
            raise
        os.close(file)

    def _release(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def _check_room(self) -> None:
        if self._mcap.full:
            raise self._failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _failed(self, error: OSError) -> UserError:
        if error.errno in NO_ROOM:
            return BagFull(
                f"{self.folder}: disk full after {self._mcap.size} bytes ({error.strerror}); "
                "the bag is closed as far as written"
            )
        return UserError(f"{self.folder}: cannot be written: {error.strerror}")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
