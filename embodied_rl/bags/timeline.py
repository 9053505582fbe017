"""Which stamps of a recording belong to one run of the clock.

A stamp that leaps can be one spoilt message, a gap in a stream, or a clock that was set anew. The
message alone does not tell; the next one of its topic does. So a leaping message is held back
until the next one says on which side the topic goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from embodied_rl.bags.report import Report
from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.window import CLOCK_JUMP_NS

FAR_NS = 10 * NANOSECONDS  # a longer silence of all streams ends an episode

T = TypeVar("T")


@dataclass(frozen=True)
class Accepted(Generic[T]):
    """A message whose stamp is sound; ``jump`` when the clock was set anew just before it."""

    stamp_ns: int
    content: T
    jump: bool = False


class Timeline(Generic[T]):
    """Sorts stamped messages of several topics into sound, spoilt, and after a clock jump."""

    def __init__(self, report: Report):
        self._report = report
        self._newest: dict[str, int] = {}
        self._held: dict[str, Accepted[T]] = {}
        self.newest_ns: int | None = None  # over all topics, of the present run of the clock

    def push(self, topic: str, stamp_ns: int, content: T) -> Iterator[Accepted[T]]:
        """Take the next message of a topic; gives those that are now known to be sound."""
        item = Accepted(stamp_ns, content)
        newest = self._newest.get(topic)
        held = self._held.pop(topic, None)
        if held is not None and newest is not None:
            if abs(stamp_ns - held.stamp_ns) > abs(stamp_ns - newest):
                self._spoilt(topic, held.stamp_ns, newest)
            else:
                yield from self._confirm(topic, held, newest)
                newest = held.stamp_ns
        if self._leaps(stamp_ns, newest):
            self._held[topic] = item
        elif newest is None and self._foreign(stamp_ns):
            self._report.add(
                topic,
                f"stamps within {FAR_NS // NANOSECONDS} s of the other streams",
                f"{_seconds(stamp_ns)} where they are at {_seconds(self.newest_ns or 0)}",
                once=True,
            )
        else:
            yield self._accept(topic, item)

    def drain(self) -> Iterator[Accepted[T]]:
        """At the end: a message after a gap is sound, one that leapt further is not."""
        for topic, held in sorted(self._held.items(), key=lambda entry: entry[1].stamp_ns):
            newest = self._newest[topic]
            if newest < held.stamp_ns <= (self.newest_ns or 0) + FAR_NS:
                yield self._accept(topic, held)
            else:
                self._spoilt(topic, held.stamp_ns, newest)
        self._held.clear()

    def _leaps(self, stamp_ns: int, newest: int | None) -> bool:
        if newest is None or self.newest_ns is None:
            return False
        ahead = stamp_ns > max(newest, self.newest_ns) + CLOCK_JUMP_NS
        return ahead or stamp_ns < newest - CLOCK_JUMP_NS

    def _foreign(self, stamp_ns: int) -> bool:
        return self.newest_ns is not None and abs(stamp_ns - self.newest_ns) > FAR_NS

    def _confirm(self, topic: str, held: Accepted[T], newest: int) -> Iterator[Accepted[T]]:
        """The topic went on from the held message: a gap, or a clock that was set anew."""
        if newest < held.stamp_ns <= (self.newest_ns or 0) + FAR_NS:
            yield self._accept(topic, held)
            return
        self._report.add(
            topic,
            "a clock that runs on",
            f"stamp {_seconds(held.stamp_ns)} after {_seconds(newest)}",
            once=True,
        )
        others = self._held
        self._newest, self._held, self.newest_ns = {}, {}, None
        yield self._accept(topic, Accepted(held.stamp_ns, held.content, jump=True))
        for name, item in others.items():  # they leapt to the same new time
            if abs(item.stamp_ns - held.stamp_ns) <= FAR_NS:
                yield self._accept(name, item)

    def _accept(self, topic: str, item: Accepted[T]) -> Accepted[T]:
        self._newest[topic] = max(self._newest.get(topic, item.stamp_ns), item.stamp_ns)
        self.newest_ns = max(self.newest_ns or item.stamp_ns, item.stamp_ns)
        return item

    def _spoilt(self, topic: str, stamp_ns: int, newest: int) -> None:
        self._report.add(
            topic,
            "stamps less than 1 s out of order",
            f"a lone {_seconds(stamp_ns)} after {_seconds(newest)}",
            once=True,
        )


def _seconds(time_ns: int) -> str:
    return f"{time_ns / NANOSECONDS:.3f} s"
