"""One bag cut into several, an episode each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from embodied_rl.bags.copies import BagCopy, Written, latched, new_folder
from embodied_rl.bags.facts import find_namespace, read_facts
from embodied_rl.bags.options import AS_RECORDED, Options
from embodied_rl.bags.order import messages, read_again, sortable
from embodied_rl.bags.parts import Part, parts_of
from embodied_rl.bags.read import Bag
from embodied_rl.bags.storage import Message
from embodied_rl.bags.topics import Names
from embodied_rl.core.embodiment import NANOSECONDS

Progress = Callable[[int, int], None]
_STEP = 500  # messages between two calls of the progress


def cut(
    bag: Bag,
    out: Path,
    options: Options = AS_RECORDED,
    progress: Progress = lambda done, total: None,
) -> list[Written]:
    """Write each part of a bag into a bag of its own in the new folder ``out``.

    A part begins at a declared start, a mark or a cut (:class:`.parts.Cuts`), or after a silence
    of all topics. What is latched is repeated at the beginning of each part.

    Args:
        progress: called with (messages read, messages in all).

    Raises:
        UserError: ``out`` exists or cannot be written, or there is nothing to cut at.
    """
    given = options.namespace
    namespace = given if given is not None else find_namespace(bag, None)
    spelling = Names(bag.topics, namespace, options.remap)
    parts = parts_of(bag, read_facts(bag, spelling), spelling, options.cuts, overlap_ns=0)
    gap_ns = round(options.cuts.gap_s * NANOSECONDS)

    def write(in_order: bool) -> list[Written]:
        with new_folder(out) as folder:
            return _Cutter(bag, folder, out.name, parts, gap_ns).run(in_order, progress)

    return read_again(bag, write)


class _Cutter:
    """Hands each message to the parts that hold it."""

    def __init__(self, bag: Bag, folder: Path, stem: str, parts: list[Part], gap_ns: int):
        self._bag, self._folder, self._stem, self._gap_ns = bag, folder, stem, gap_ns
        self._parts = parts
        self._open: dict[int, BagCopy] = {}  # by the part's place
        self._stacks: dict[int, ExitStack] = {}
        self._latched: dict[str, Message] = {}
        self._written: list[Written] = []

    def run(self, in_order: bool, progress: Progress) -> list[Written]:
        total = sum(info.count for info in self._bag.topics.values())
        newest: int | None = None
        coming = messages(self._bag, self._bag.topics, in_order)
        if not in_order:
            coming = sortable(coming, self._bag.topics)
        with ExitStack() as everything:
            everything.callback(self._close_all)
            for done, message in enumerate(coming):
                now = message.log_time_ns
                if newest is not None and now > newest + self._gap_ns:
                    self._close_all()  # what follows the silence is another bag
                newest = now if newest is None else max(newest, now)
                if latched(message.topic):
                    data = memoryview(bytes(message.data))  # outlives the chunk that it lies in
                    self._latched[message.topic] = message._replace(data=data)
                for place in self._places(now):
                    self._copy(place, now).write(message)
                if done % _STEP == 0:
                    progress(done, max(total, done))
        progress(total, total)
        return self._written

    def _places(self, now_ns: int) -> Iterator[int]:
        """The parts that hold a log time; those that ended before it are closed."""
        for place in [p for p in self._open if now_ns >= self._parts[p].until_ns]:
            self._close(place)
        for place, part in enumerate(self._parts):
            if part.holds(now_ns):
                yield place

    def _copy(self, place: int, now_ns: int) -> BagCopy:
        if place not in self._open:
            name = f"{self._stem}_{len(self._written) + len(self._open):03d}"
            part = self._parts[place]
            provenance = {
                "made_by": "embodied_rl bags cut",
                "source": self._bag.place.name,
                "files": [file.name for file in self._bag.place.files],
                "fingerprint": self._bag.place.fingerprint(),
                "from_log_time_ns": now_ns,
                "until_log_time_ns": part.until_ns,
            }
            stack = ExitStack()
            copy = BagCopy(self._folder / name, self._bag.topics.values(), provenance)
            self._open[place] = stack.enter_context(copy)
            self._stacks[place] = stack
            for message in self._latched.values():
                if message.log_time_ns < now_ns:
                    copy.write(message._replace(log_time_ns=now_ns))
        return self._open[place]

    def _close(self, place: int) -> None:
        copy = self._open.pop(place)
        self._stacks.pop(place).close()
        self._written.append(copy.written())

    def _close_all(self) -> None:
        for place in list(self._open):
            self._close(place)
