"""Several bags of the same time put together into one, in the order of log time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from embodied_rl.bags.copies import BagCopy, Written, new_folder
from embodied_rl.bags.read import Bag, BagPath
from embodied_rl.bags.report import Report
from embodied_rl.bags.storage import Message, TopicInfo
from embodied_rl.core.errors import UserError

_STEP = 500  # messages between two calls of the progress


def merge(
    places: Sequence[BagPath],
    out: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Written, list[str]]:
    """Write all messages of all bags into the new bag ``out``.

    Args:
        progress: called with (messages written, messages in all).

    Returns:
        What was written, and what is wrong with the sources.

    Raises:
        UserError: ``out`` exists or cannot be written, or two bags have a topic with different
            types.
    """
    with ExitStack() as stack:
        bags = [stack.enter_context(Bag(place, Report(place.name))) for place in places]
        topics = _common_topics(bags)
        provenance = {"made_by": "embodied_rl bags merge", "sources": [_source(b) for b in bags]}
        total = sum(info.count for bag in bags for info in bag.topics.values())
        with new_folder(out) as folder:
            copy = BagCopy(folder / out.name, topics.values(), provenance)
            with copy:
                coming = [_messages(bag) for bag in bags]
                ordered = heapq.merge(*coming, key=lambda message: message.log_time_ns)
                for done, message in enumerate(ordered):
                    copy.write(message)
                    if done % _STEP == 0:
                        progress(done, max(total, done))
            for path in copy.folder.iterdir():  # the bag is the folder itself
                path.rename(folder / path.name)
            copy.folder.rmdir()
        progress(total, total)
        return copy.written(), [line for bag in bags for line in bag.report.lines()]


def _messages(bag: Bag) -> Iterator[Message]:
    """In the order of log time: topic by topic side by side, each in its own order."""
    parts = [bag.messages([topic]) for topic in sorted(bag.topics)]
    return heapq.merge(*parts, key=lambda message: message.log_time_ns)


def _common_topics(bags: Sequence[Bag]) -> dict[str, TopicInfo]:
    found: dict[str, tuple[str, TopicInfo]] = {}
    for bag in bags:
        for info in bag.topics.values():
            name, known = found.setdefault(info.name, (bag.place.name, info))
            if known.type != info.type:
                raise UserError(
                    f"{bag.place.name}: {info.name}: expected {known.type} as in {name}, saw "
                    f"{info.type}; cut the topic out, or merge the bags by themselves"
                )
    return {topic: info for topic, (_, info) in found.items()}


def _source(bag: Bag) -> dict[str, object]:
    start_ns, end_ns = bag.span_ns
    return {
        "bag": bag.place.name,
        "files": [file.name for file in bag.place.files],
        "fingerprint": bag.place.fingerprint(),
        "messages": {info.name: info.count for info in bag.topics.values()},
        "first_log_time_ns": start_ns,
        "last_log_time_ns": end_ns,
    }
