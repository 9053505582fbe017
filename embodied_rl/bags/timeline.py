"""Which stamps of a recording belong to one run of the clock.

A stamp that leaps can be one spoilt message, a gap in a stream, a stream of another clock, or a
clock that was set anew. The message alone does not tell; what comes next does: the topic goes on
from where it was or from where it leapt to, and the other topics run on or leap as well. So leaping
messages are held back until that is known, for a second of stamps at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from embodied_rl.bags.report import Report
from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.window import CLOCK_JUMP_NS

FAR_NS = 10 * NANOSECONDS  # a longer silence of all streams ends an episode
MOST_HELD = 100  # messages of a topic, should its stamps not move at all

T = TypeVar("T")


@dataclass(frozen=True)
class Accepted(Generic[T]):
    """A message whose stamp is sound; ``jump`` when the clock was set anew just before it."""

    stamp_ns: int
    content: T
    jump: bool = False
    number: int = 0  # in the order of coming


@dataclass
class _Held(Generic[T]):
    """Messages of one topic that leapt and went on from there."""

    since_ns: int  # newest stamp of the others when the first one came
    items: list[Accepted[T]] = field(default_factory=list)

    @property
    def newest_ns(self) -> int:
        return self.items[-1].stamp_ns

    @property
    def span_ns(self) -> int:
        return self.newest_ns - self.items[0].stamp_ns


class Timeline(Generic[T]):
    """Sorts stamped messages of several topics into sound, spoilt, and after a clock jump.

    Args:
        around_ns: about which time the recording begins, if that is known beforehand.
        max_age_ns: of each topic how old a sample may be that still counts: a latched message is
            as old as that when the recording begins.
        gap_ns: a longer silence of all streams ends an episode.
    """

    def __init__(
        self,
        report: Report,
        around_ns: int | None = None,
        max_age_ns: Mapping[str, int] | None = None,
        gap_ns: int = FAR_NS,
    ):
        self._report, self._max_age_ns, self._gap_ns = report, max_age_ns or {}, gap_ns
        self._newest: dict[str, int] = {}
        self._held: dict[str, _Held[T]] = {}
        self._around_ns = around_ns
        self._step_ns: dict[str, int] = {}  # topic -> about how far apart its stamps are
        self._number = 0
        self.newest_ns: int | None = None  # over all topics, of the present run of the clock

    def push(self, topic: str, stamp_ns: int, content: T) -> Iterator[Accepted[T]]:
        """Take the next message of a topic; gives those that are now known to be sound."""
        self._number += 1
        item = Accepted(stamp_ns, content, number=self._number)
        held = self._held.get(topic)
        if held is not None:
            newest = self._newest.get(topic, self._now())
            if abs(stamp_ns - held.newest_ns) <= abs(stamp_ns - newest):
                yield from self._go_on(topic, held, item)
                return
            self._refuse(topic, self._held.pop(topic))
        if self._leaps(topic, stamp_ns):
            self._held[topic] = _Held(self._now(), [item])
        else:
            yield self._accept(topic, item)

    def drain(self) -> Iterator[Accepted[T]]:
        """At the end: a message after a gap is sound, one that leapt further is not."""
        for topic, held in sorted(self._held.items(), key=lambda entry: entry[1].newest_ns):
            if topic not in self._held:  # accepted with another topic
                continue
            lone = len(held.items) == 1 and not self._in_step(topic, held)
            if self._after_gap(topic, held) and not lone:
                yield from self._release(topic, self._held.pop(topic))
            elif len(held.items) > 1 and self._alone(held):
                yield from self._jump(topic, held)
            else:
                self._refuse(topic, self._held.pop(topic))

    # ---------------------------------------------------------------- judging
    def _now(self) -> int:
        """The newest stamp; before the first one about what it will be."""
        return self.newest_ns if self.newest_ns is not None else (self._around_ns or 0)

    def _leaps(self, topic: str, stamp_ns: int) -> bool:
        newest = self._newest.get(topic)
        if newest is None:
            if self.newest_ns is None and self._around_ns is None:
                return False
            age_ns = max(FAR_NS, self._max_age_ns.get(topic, 0))
            return not self._now() - age_ns <= stamp_ns <= self._now() + FAR_NS
        ahead = stamp_ns > max(newest, self._now()) + CLOCK_JUMP_NS
        return ahead or stamp_ns < newest - CLOCK_JUMP_NS

    def _go_on(self, topic: str, held: _Held[T], item: Accepted[T]) -> Iterator[Accepted[T]]:
        """The topic went on from its leap: after a gap, by another clock, or the clock was set."""
        if self._after_gap(topic, held):
            yield from self._release(topic, self._held.pop(topic))
            yield self._accept(topic, item)
            return
        held.items.append(item)
        near = [n for n, h in self._held.items() if abs(h.newest_ns - held.newest_ns) <= FAR_NS]
        if self._newest and set(near) >= set(self._newest):  # all that ever spoke
            yield from self._jump(topic, held)
        elif held.span_ns >= CLOCK_JUMP_NS or len(held.items) >= MOST_HELD:
            # The others have had a second to follow; a few messages of theirs may have been late.
            if self._alone(held):
                yield from self._jump(topic, held)
            else:
                self._refuse(topic, self._held.pop(topic))

    def _after_gap(self, topic: str, held: _Held[T]) -> bool:
        newest = self._newest.get(topic)
        first_ns = held.items[0].stamp_ns
        return newest is not None and newest < first_ns <= self._now() + self._gap_ns

    def _in_step(self, topic: str, held: _Held[T]) -> bool:
        """Whether the topic is as slow as that."""
        step_ns = held.items[0].stamp_ns - self._newest.get(topic, self._now())
        return step_ns <= 3 * self._step_ns.get(topic, 0)

    def _alone(self, held: _Held[T]) -> bool:
        """Whether the other topics have not run on meanwhile."""
        return bool(self._newest) and self._now() - held.since_ns < max(held.span_ns // 2, 1)

    # ---------------------------------------------------------------- outcome
    def _accept(self, topic: str, item: Accepted[T]) -> Accepted[T]:
        newest = self._newest.get(topic, item.stamp_ns)
        self._step_ns[topic] = max(item.stamp_ns - newest, self._step_ns.get(topic, 0) // 2)
        self._newest[topic] = max(newest, item.stamp_ns)
        if self.newest_ns is not None or item.stamp_ns >= self._now() - FAR_NS:  # not latched
            self.newest_ns = max(self.newest_ns or item.stamp_ns, item.stamp_ns)
        return item

    def _release(self, topic: str, held: _Held[T]) -> Iterator[Accepted[T]]:
        for item in held.items:
            yield self._accept(topic, item)

    def _jump(self, topic: str, held: _Held[T]) -> Iterator[Accepted[T]]:
        """Begin a new run of the clock with all that leapt to the same new time."""
        first_ns, before_ns = held.items[0].stamp_ns, self._newest.get(topic, self._now())
        silence = first_ns > self._now()
        self._report.add(
            "" if silence else topic,
            f"no silence of {self._gap_ns / NANOSECONDS:g} s"
            if silence
            else "a clock that runs on",
            f"stamp {_seconds(first_ns)} after {_seconds(before_ns)}",
            damage=not silence,
            once=True,
        )
        others, self._held = self._held, {}
        self._newest, self.newest_ns, self._around_ns = {}, None, None
        coming: list[tuple[str, Accepted[T]]] = []
        for name, other in others.items():
            if abs(other.newest_ns - held.newest_ns) <= FAR_NS:
                coming += [(name, item) for item in other.items]
            else:
                self._refuse(name, other)
        coming.sort(key=lambda entry: entry[1].number)
        for place, (name, item) in enumerate(coming):
            yield self._accept(name, replace(item, jump=place == 0))

    def _refuse(self, topic: str, held: _Held[T]) -> None:
        """A lone message was spoilt; several are of another clock than the other streams."""
        newest = self._newest.get(topic)
        for item in held.items:
            if len(held.items) == 1 and newest is not None:
                self._report.add(
                    topic,
                    "stamps less than 1 s out of order",
                    f"a lone {_seconds(item.stamp_ns)} after {_seconds(newest)}",
                    once=True,
                )
                continue
            self._report.add(
                topic,
                f"stamps within {FAR_NS // NANOSECONDS} s of the other streams",
                f"{_seconds(item.stamp_ns)} where they are at {_seconds(self._now())}",
                once=True,
            )


def _seconds(time_ns: int) -> str:
    return f"{time_ns / NANOSECONDS:.3f} s"
