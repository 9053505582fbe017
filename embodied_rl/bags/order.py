"""The messages of a bag in the order of log time, also where they were not written in it.

Recorders write messages as they come. Programs that write bags themselves may write one topic after
the other, and a recorder that was short of time may write one topic long after the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.read import Bag
from embodied_rl.bags.storage import Message
from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.errors import MessageError
from embodied_rl.core.message_types import TF

LATE_NS = 5 * NANOSECONDS  # rows wait for messages that are later in the file by less
# of the beginning of a bag, from which the time of its streams is told
LOOK_NS = 3 * NANOSECONDS
LOOK_AT, LOOK_TOPIC = 5000, 5  # messages of all topics, of each

T = TypeVar("T")


class OutOfOrder(Exception):
    """A message came too late in the file to be sorted in: the bag has to be read in order."""


def messages(bag: Bag, topics: Collection[str], in_order: bool) -> Iterator[Message]:
    """Messages as they were written, or ``in_order`` of log time.

    The topics are read side by side, each in its own order: that needs no more memory than one
    message of each, but reads the bag once for each topic that lies among others.
    """
    if not in_order:
        yield from bag.messages(topics)
        return
    parts = [bag.messages([topic]) for topic in sorted(topics)]
    yield from heapq.merge(*parts, key=lambda message: message.log_time_ns)


def sortable(messages: Iterator[Message], topics: Collection[str]) -> Iterator[Message]:
    """The messages, as long as none of ``topics`` is so late among them that rows would miss it.

    A recorder whose own clock was set back is no such case: then every topic goes back.

    Raises:
        OutOfOrder: one is.
    """
    latest_ns: int | None = None
    own_ns: dict[str, int] = {}
    for message in messages:
        now, topic = message.log_time_ns, message.topic
        if latest_ns is not None and now < latest_ns - LATE_NS:
            if own_ns.get(topic, now) - LATE_NS > now:
                own_ns, latest_ns = {}, now
            elif topic in topics:
                seconds = (latest_ns - now) / NANOSECONDS
                raise OutOfOrder(f"{topic} {seconds:.1f} s late in the file")
        own_ns[topic] = now
        latest_ns = now if latest_ns is None else max(latest_ns, now)
        yield message


def read_again(bag: Bag, work: Callable[[bool], T]) -> T:
    """Do ``work(in_order)`` on a bag as it was written, or else in the order of log time."""
    before = bag.report.copy()
    try:
        return work(False)
    except OutOfOrder as late:
        bag.report.restore(before)
        bag.report.add("", "messages in the order of recording", f"{late}; sorted", damage=False)
        return work(True)


@dataclass(frozen=True)
class Beginning:
    """About which stamp a bag begins, and log time and stamp of messages that say so, by topic."""

    stamp_ns: int
    pairs: list[tuple[str, int, int]]


def look_at_beginning(messages: Iterator[Message], kinds: Mapping[str, str]) -> Beginning | None:
    """The time near which most of the first messages are stamped; None without any stamp.

    A latched message may be much older, and one sensor may have another clock.

    Args:
        messages: of topics whose headers are stamped.
        kinds: their types, by topic.
    """
    decoder, pairs, seen = Decoder(), [], dict.fromkeys(kinds, 0)
    begun: int | None = None
    for number, message in enumerate(messages):
        begun = message.log_time_ns if begun is None else begun
        if number >= LOOK_AT or message.log_time_ns > begun + LOOK_NS:
            break
        seen[message.topic] += 1
        if seen[message.topic] > LOOK_TOPIC:
            if min(seen.values()) > LOOK_TOPIC:
                break
            continue
        stamp = _stamp(decoder, message, kinds[message.topic])
        if stamp is not None:
            pairs.append((message.topic, message.log_time_ns, stamp))
    if not pairs:
        return None
    near = [[pair for pair in pairs if abs(pair[2] - one[2]) <= LOOK_NS] for one in pairs]
    most = max(near, key=len)
    return Beginning(most[-1][2], most)


def _stamp(decoder: Decoder, message: Message, kind: str) -> int | None:
    """The stamp of a message; None where it has none that can be read."""
    try:
        decoded = decoder(message.topic, kind, message.data)
    except MessageError:
        return None  # said when the message is read for its values
    if kind == TF:
        decoded = decoded.transforms[0] if decoded.transforms else None
    header = getattr(decoded, "header", None)
    stamp = stamp_ns(header) if header is not None else 0
    return stamp if stamp > 0 else None
