"""The pose of one frame in another from tf: over several transforms, some moving, some fixed.

As tf2 does it: every frame has one parent, fixed transforms (``tf_static``) hold at all times, and
moving ones are interpolated (positions on straight lines, orientations by slerp). Nothing is
extrapolated, and no gap is bridged that is longer than the maximum age of the stream.

There is a pose at every time at which the slowest of the moving transforms was measured, once all
others have reached it. So it does not matter in which order the messages of two publishers come,
which a live node and a recorder need not agree on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied_rl.core.errors import MessageError, NotForThisStream, quoted
from embodied_rl.core.frames import UNIT_TOLERANCE, multiplied, rotation_from
from embodied_rl.core.streams import NANOSECONDS, Stream

KEPT_NS = 10 * NANOSECONDS  # of each moving transform; a stamp from before restarts it
PATIENCE_NS = NANOSECONDS  # so long frames may be unconnected before that is a fault
ALIKE = 1.2  # transforms whose periods differ by less are equally slow
LONGEST_CHAIN = 64  # frames; a longer one goes round
MOST_FRAMES = 1024  # that are remembered

Numbers = tuple[float, float, float, float, float, float, float]  # x y z, and x y z w of a rotation


@dataclass(frozen=True)
class Placed:
    """Where a frame stands: translation ``(3,)`` and quaternion x, y, z, w ``(4,)``."""

    translation: np.ndarray
    rotation: np.ndarray

    def after(self, inner: Placed) -> Placed:
        """First ``inner``, then this one."""
        moved = rotation_from(self.rotation) @ inner.translation + self.translation
        return Placed(moved, multiplied(self.rotation, inner.rotation))

    def inverse(self) -> Placed:
        turn = self.rotation * np.array([-1.0, -1.0, -1.0, 1.0])
        return Placed(-(rotation_from(turn) @ self.translation), turn)

    def toward(self, other: Placed, share: float) -> Placed:
        """The given share of the way to another place."""
        translation = self.translation + share * (other.translation - self.translation)
        cosine = float(self.rotation @ other.rotation)
        end = other.rotation if cosine >= 0 else -other.rotation
        angle = np.arccos(min(abs(cosine), 1.0))
        if angle < 1e-6:
            turn = (1 - share) * self.rotation + share * end
        else:
            turn = np.sin((1 - share) * angle) * self.rotation + np.sin(share * angle) * end
        return Placed(translation, turn / np.linalg.norm(turn))


@dataclass
class _Link:
    """A frame in its parent; fixed, where ``stamps`` is empty."""

    parent: str
    stamps: list[int] = field(default_factory=list)
    places: list[Numbers] = field(default_factory=list)

    def add(self, stamp_ns: int, place: Numbers) -> None:
        if self.stamps and stamp_ns < self.stamps[-1] - KEPT_NS:  # the clock was set back
            self.stamps.clear()
            self.places.clear()
        at = bisect_left(self.stamps, stamp_ns)
        if at < len(self.stamps) and self.stamps[at] == stamp_ns:
            return
        self.stamps.insert(at, stamp_ns)
        self.places.insert(at, place)
        old = bisect_left(self.stamps, self.stamps[-1] - KEPT_NS)
        del self.stamps[:old], self.places[:old]

    def spacing_ns(self) -> float:
        """Mean time between stamps; 0 where it is not known yet."""
        return (self.stamps[-1] - self.stamps[0]) / max(len(self.stamps) - 1, 1)

    def at(self, time_ns: int, longest_ns: int) -> Placed | None:
        """Where it was at a time; None where that is not known."""
        if not self.stamps:
            return _placed(self.places[0])
        right = bisect_left(self.stamps, time_ns)
        if right == len(self.stamps):
            return None
        if self.stamps[right] == time_ns:
            return _placed(self.places[right])
        if right == 0 or self.stamps[right] - self.stamps[right - 1] > longest_ns:
            return None
        span = self.stamps[right] - self.stamps[right - 1]
        share = (time_ns - self.stamps[right - 1]) / span
        return _placed(self.places[right - 1]).toward(_placed(self.places[right]), share)


class ChainedPose:
    """One pose, read like a stamped message: ``header.stamp``, ``header.frame_id``, ``pose``."""

    def __init__(self, stamp_ns: int, frame: str, place: Placed):
        self.header = self.stamp = self
        self.sec, self.nanosec = divmod(stamp_ns, NANOSECONDS)
        self.frame_id = frame
        self.pose = self
        self.position = _Named(*place.translation.tolist())
        self.orientation = _Named(*place.rotation.tolist())


@dataclass(frozen=True)
class _Named:
    x: float
    y: float
    z: float
    w: float = 0.0


class TransformChain:
    """The transforms between a TF stream's ``frame`` and its ``child_frame``, as they come."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._links: dict[str, _Link] = {}
        self._last_ns = -KEPT_NS  # time of the newest pose given
        self._apart_ns: int | None = None  # since when the frames have not been connected

    def latch(self, message: Any) -> None:
        """Take a message of ``tf_static``: it holds from now on, and for the time before.

        Raises:
            MessageError: too many frames.
        """
        for stamped in message.transforms:
            self._know(stamped, _Link(_frame(stamped.header.frame_id), [], [_numbers(stamped)]))

    def take(self, message: Any) -> ChainedPose:
        """Take a message of ``tf``: the pose at the newest time that is known by now.

        Raises:
            NotForThisStream: it has nothing new of the chain, or a part is still to come.
            MessageError: the frames are not connected, or a rotation is no unit quaternion.
        """
        moved, newest_ns = set(), 0
        for stamped in message.transforms:
            child, stamp = _frame(stamped.child_frame_id), stamped.header.stamp
            parent = _frame(stamped.header.frame_id) or self._stream.source_frame
            link = self._links.get(child)
            if link is None or not link.stamps or link.parent != parent:
                link = self._know(stamped, _Link(parent))
            stamp_ns = int(stamp.sec * NANOSECONDS + stamp.nanosec)
            link.add(stamp_ns, _numbers(stamped))
            moved.add(child)
            newest_ns = max(newest_ns, stamp_ns)
        path, back, top = self._path(newest_ns)
        if not moved & {*path, *back}:
            raise self._nothing("a transform of its chain", "others")
        return self._pose(path, back, top)

    def _know(self, stamped: Any, link: _Link) -> _Link:
        child = _frame(stamped.child_frame_id)
        if child not in self._links and len(self._links) >= MOST_FRAMES:
            raise MessageError(
                f"{self._stream.topic}: expected at most {MOST_FRAMES} frames, saw more"
            )
        self._links[child] = link
        return link

    def _path(self, now_ns: int) -> tuple[list[str], list[str], str]:
        """Links up from the child, links up from the stream's frame, and the frame that the first
        lead to: the stream's own, one that the file connects with it, or where both meet."""
        stream = self._stream
        known = {stream.frame, "", *stream.transforms}
        up = self._up(stream.child_frame)
        for count, name in enumerate(up[1:], start=1):
            if name in known:
                self._apart_ns = None
                return up[:count], [], name
        back = self._up(stream.frame)
        for count, name in enumerate(up):
            if name in back:
                self._apart_ns = None
                return up[:count], back[: back.index(name)], name
        if self._apart_ns is None or now_ns < self._apart_ns:
            self._apart_ns = now_ns
        if now_ns - self._apart_ns < PATIENCE_NS:
            raise self._nothing(f"what connects '{up[-1]}' with '{stream.frame}'", "none so far")
        raise MessageError(
            f"{stream.topic}: expected transforms that connect '{stream.child_frame}' with "
            f"'{stream.frame}', saw {quoted(up[-1])} without a parent; is what publishes it "
            "running, or does 'frames:' have to say where it stands?"
        )

    def _up(self, name: str) -> list[str]:
        """The frame and those above it."""
        found = [name]
        while found[-1] in self._links and len(found) < LONGEST_CHAIN:
            found.append(self._links[found[-1]].parent)
        return found

    def _pose(self, path: list[str], back: list[str], top: str) -> ChainedPose:
        links = [self._links[name] for name in (*path, *back)]
        moving = [link for link in links if link.stamps]
        if not moving:
            raise self._nothing("a transform that moves", "fixed ones only")
        time_ns = self._time(moving)
        if self._last_ns - KEPT_NS < time_ns <= self._last_ns:
            raise self._nothing("news of the whole chain", "a part of it")
        places = [link.at(time_ns, self._stream.max_age_ns) for link in links]
        whole = [place for place in places if place is not None]
        if len(whole) < len(links):
            raise self._nothing("transforms on both sides of a time", "one side")
        self._last_ns = time_ns
        if len(links) == 1 and not back:
            return ChainedPose(time_ns, top, whole[0])
        for name, place in zip((*path, *back), whole):
            self._check(name, place)
        found = _together(whole[: len(path)])
        if back:
            found = _together(whole[len(path) :]).inverse().after(found)
        return ChainedPose(time_ns, self._stream.frame if back else top, found)

    def _time(self, moving: list[_Link]) -> int:
        """The newest time of a pose."""
        reached_ns = min(link.stamps[-1] for link in moving)
        if all(link.stamps[-1] == reached_ns for link in moving):
            return reached_ns
        spacings = [link.spacing_ns() for link in moving]
        if not all(spacings):
            raise self._nothing("two stamps of every transform", "one")
        # of equally slow ones always the same
        slowest = next(i for i, s in enumerate(spacings) if s * ALIKE >= max(spacings))
        stamps = moving[slowest].stamps
        place = bisect_right(stamps, reached_ns)
        if place == 0:
            raise self._nothing("transforms on both sides of a time", "one side")
        return stamps[place - 1]

    def _check(self, name: str, place: Placed) -> None:
        norm = float(np.linalg.norm(place.rotation))
        if not abs(norm - 1) <= UNIT_TOLERANCE:
            raise MessageError(
                f"{self._stream.topic}: {name}: expected a unit quaternion, saw "
                f"{place.rotation.tolist()}"
            )

    def _nothing(self, expected: str, seen: str) -> NotForThisStream:
        return NotForThisStream(f"{self._stream.topic}: expected {expected}, saw {seen}")


def _together(places: list[Placed]) -> Placed:
    """Of places from the innermost on: the innermost in the frame of the outermost."""
    found = places[0] if places else Placed(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
    for outer in places[1:]:
        found = outer.after(found)
    return found


def _frame(name: str) -> str:
    return name.lstrip("/")


def _numbers(stamped: Any) -> Numbers:
    """Most transforms are of no chain: arrays are made of those that are."""
    shift, turn = stamped.transform.translation, stamped.transform.rotation
    return shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w


def _placed(numbers: Numbers) -> Placed:
    values = np.array(numbers, dtype=np.float64)
    return Placed(values[:3], values[3:])
