"""One episode: the rows of a bag at every control tick, and the action of each.

The rows come from the same :class:`~embodied_rl.core.window.RowBuilder` that the live node uses,
so a window read back equals the one that the policy saw, bit for bit. Unsound data are used as
far as they are sound: what is missing is marked invalid, and each fault leaves one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from embodied_rl.bags import topics as names
from embodied_rl.bags.actions import ActionLog
from embodied_rl.bags.messages import Decoder, SampleDecoder
from embodied_rl.bags.read import Bag
from embodied_rl.bags.report import Report
from embodied_rl.bags.static_frames import latch_static
from embodied_rl.bags.storage import Message
from embodied_rl.bags.timeline import FAR_NS, Timeline
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import MessageError, UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.core.streams import HEADER
from embodied_rl.core.window import Arrival, Observation, RowBuilder, Sample, first_tick

SLACK_NS = NANOSECONDS // 10  # a row waits this long for samples that come out of order
# and no longer than this for a stream that has gone silent. Generous: a recorder of a simulation
# that runs ten times as fast as real time may lag seconds behind on one topic and not on another.
SILENT_NS = 10 * NANOSECONDS
OVERTAKEN_NS = NANOSECONDS // 2  # samples of the last ticks may be recorded after the outcome


@dataclass(frozen=True)
class Samples:
    """The streams of one message by key, and the message's place among all of the bag."""

    items: list[tuple[str, Sample]]
    number: int


@dataclass
class Facts:
    """What a bag says about its episode before any row is built."""

    embodiment_text: str = ""
    instruction: str = ""
    info: EpisodeInfo | None = None


@dataclass
class Episode:
    """One episode in memory. ``values[key]`` is ``(K, *shape)``, ``valid[key]`` ``(K,)``."""

    bag: str
    embodiment: Embodiment
    stamps_ns: np.ndarray  # (K,) int64
    values: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    actions: np.ndarray  # (K, A) float64, target at stamp + period
    action_valid: np.ndarray  # (K,)
    info: EpisodeInfo | None
    outcome: Outcome | None
    instruction: str
    report: Report

    def __len__(self) -> int:
        return len(self.stamps_ns)


@dataclass
class Segment:
    """Rows between two jumps of the clock: ``rows`` from ``first`` on, and their commands."""

    first: int
    commands: ActionLog
    anchored: bool = False  # begins at the start that the bag declares
    stamps_ns: list[int] = field(default_factory=list)
    outcome: Outcome | None = None


def read_facts(bag: Bag, namespace: str) -> Facts:
    """Embodiment text, instruction and start of the episode, as far as the bag has them."""
    facts, decoder = Facts(), Decoder()
    wanted = [names.EMBODIMENT, names.INSTRUCTION, names.EPISODE_START]
    present = {f"{namespace}/{name}": name for name in wanted}
    chosen = [topic for topic in present if _has(bag, topic, names.STRING)]
    starts: dict[int, EpisodeInfo] = {}
    for message in bag.messages(chosen):
        try:
            text = decoder(message.topic, names.STRING, message.data).data
            name = present[message.topic]
            if name == names.EPISODE_START:
                info = EpisodeInfo.from_yaml(text, message.topic)
                starts[info.start_ns] = info
            elif name == names.EMBODIMENT:
                facts.embodiment_text = text
            else:
                facts.instruction = text
        except UserError as error:
            bag.report.add_error(message.topic, error)
    if len(starts) > 1:
        bag.report.add(
            f"{namespace}/{names.EPISODE_START}", "one episode a bag",
            f"{len(starts)} starts; the last one is used", damage=False,
        )  # fmt: skip
    if starts:
        facts.info = starts[max(starts)]
        facts.instruction = facts.info.instruction or facts.instruction
    return facts


def embodiment_of(bag: Bag, facts: Facts, given: Embodiment | None) -> Embodiment:
    """The given embodiment, else the one that was recorded.

    Raises:
        UserError: there is neither, or the recorded text is not valid.
    """
    if given is not None:
        return given
    if not facts.embodiment_text:
        raise UserError(
            f"{bag.place.name}: expected the robot's description on topic 'embodiment', saw none; "
            "name the file with --embodiment"
        )
    return Embodiment.parse(facts.embodiment_text, f"{bag.place.name}: /embodiment")


class EpisodeReader:
    """Streams the rows of one bag.

    Iterate :meth:`rows` to the end, storing each; then :meth:`span` says which of them make the
    episode (all, unless the clock jumped), and :meth:`actions` gives theirs.

    Args:
        embodiment: default: the one in the bag.
        keys: streams of the rows; default: all of the embodiment that were recorded.
        namespace: of the robot's topics; default: found by itself.
        copy: False: images in the rows are views that must be used before the next row.

    Raises:
        UserError: no embodiment, an unknown stream, or two robots in the bag.
    """

    def __init__(
        self,
        bag: Bag,
        embodiment: Embodiment | None = None,
        keys: Iterable[str] | None = None,
        namespace: str | None = None,
        copy: bool = True,
    ):
        self.bag, self.report = bag, bag.report
        self.namespace = namespace if namespace is not None else _namespace(bag, embodiment)
        self.facts = facts = read_facts(bag, self.namespace)
        self.embodiment = embodiment_of(bag, facts, embodiment)
        self._asked = keys is not None
        self.keys = tuple(self.embodiment.streams if keys is None else keys)
        self.info, self.instruction = facts.info, facts.instruction
        self.streams = self._present_streams()  # topic -> asked-for streams that the bag has
        self.arrivals: dict[str, tuple[int, int, int]] = {}  # key -> count, first, last stamp
        self._commands = self._command_topics()
        self._decoder = Decoder(bag.topics.values())
        self._sample = SampleDecoder(copy)
        latch_static(bag, self.streams, self._decoder, self._sample)
        self._timeline: Timeline[Samples] = Timeline(self.report)
        self._clock_offset_ns: int | None = None  # log time minus stamp
        self._rows = 0
        self._missing: dict[str, tuple[int, int]] = {}  # key -> (rows without, first such tick)
        self.segments: list[Segment] = []
        self._number = 0  # of the message in hand
        self._open_segment()

    # ---------------------------------------------------------------- result
    def rows(self) -> Iterator[Observation]:
        """Every row, in the order of time within each run of the clock."""
        wanted = [*self.streams, *self._commands, self._topic(names.EPISODE_OUTCOME)]
        for number, message in enumerate(self.bag.messages(wanted)):
            self._number = number
            if message.topic in self.streams:
                for accepted in self._samples(message):
                    if accepted.jump:
                        yield from self._emit(closing=True)
                        self._open_segment(accepted.content.number)
                    for key, sample in accepted.content.items:
                        self._take(key, sample)
                if self._next_tick_ns is None or self._ripe():
                    yield from self._emit()
            elif message.topic in self._commands:
                self._take_command(message)
            else:
                self._take_outcome(message)
        for accepted in self._timeline.drain():
            for key, sample in accepted.content.items:
                self._take(key, sample)
        yield from self._emit(closing=True)
        self._conclude()

    def segment(self) -> Segment:
        """The run of the clock that is the episode: where it was declared, else the longest."""
        return max(self.segments, key=lambda part: (part.anchored, len(part.stamps_ns)))

    def span(self) -> slice:
        """Which of the rows given by :meth:`rows` make the episode."""
        chosen = self.segment()
        return slice(chosen.first, chosen.first + len(chosen.stamps_ns))

    def actions(self) -> tuple[np.ndarray, np.ndarray]:
        """``actions (K, A)`` and ``action_valid (K,)`` of the episode's rows."""
        return self.segment().commands.actions(*self._ticks())

    def targets(self) -> dict[str, int]:
        """Command topic -> at how many of the episode's rows it has a target."""
        named = {k: self._topic(command.topic) for k, command in self.embodiment.commands.items()}
        named[""] = self._topic(names.EXECUTED)
        known = self.segment().commands.known(*self._ticks())
        return {named[key]: count for key, count in known.items()}

    def _ticks(self) -> tuple[np.ndarray, int]:
        """Stamps of the episode's rows, and since when commands count."""
        chosen = self.segment()
        since_ns = self.info.start_ns if self.info is not None and chosen.anchored else 0
        return np.array(chosen.stamps_ns, dtype=np.int64), since_ns

    # ---------------------------------------------------------------- topics
    def _topic(self, name: str) -> str:
        return f"{self.namespace}/{name}"

    def _present_streams(self) -> dict[str, list[Stream]]:
        """Topic -> the asked-for streams in it, where the bag has the topic with its type."""
        found: dict[str, list[Stream]] = {}
        absent = []
        for stream in self.embodiment.require(self.keys).values():
            topic = self._topic(stream.topic)
            info = self.bag.topics.get(topic)
            if info is None and not self._asked:
                absent.append(stream.key)
            elif info is None or info.count == 0:
                seen = "no such topic" if info is None else "no message"
                self.report.add(topic, f"{stream.type} at {stream.rate_hz:g} Hz", seen, once=True)
            elif info.type != stream.type:
                self.report.add(topic, stream.type, info.type, once=True)
            else:
                found.setdefault(topic, []).append(stream)
        if absent:
            # Nobody published them, as with cameras that were switched off: no fault of the bag.
            self.report.add("", "every stream", f"not recorded: {', '.join(absent)}", damage=False)
            self.keys = tuple(key for key in self.keys if key not in absent)
        return found

    def _command_topics(self) -> dict[str, str]:
        """Topic -> group of the commands that make the actions ("" for all in one)."""
        executed = self._topic(names.EXECUTED)
        if _has(self.bag, executed, names.TRAJECTORY):
            return {executed: ""}
        found = {}
        for key, command in self.embodiment.commands.items():
            topic = self._topic(command.topic)
            if _has(self.bag, topic, command.type):
                found[topic] = key
            else:
                info = self.bag.topics.get(topic)
                seen = info.type if info is not None and info.count else "no message"
                self.report.add(topic, f"commands of type {command.type}", seen)
        return found

    # ---------------------------------------------------------------- intake
    def _samples(self, message: Message):
        """The decoded streams of a message, once its stamp has proved sound."""
        streams = self.streams[message.topic]
        try:
            decoded = self._decoder(message.topic, streams[0].type, message.data)
        except MessageError as error:
            self.report.add_error(message.topic, error)
            return
        received_ns = self._on_stamp_clock(message.log_time_ns)
        found = self._sample.by_stamp(streams, decoded, received_ns, message.topic, self.report)
        stamped = [
            self.embodiment.streams[key].stamps for items in found.values() for key, _ in items
        ]
        if self._clock_offset_ns is None and HEADER in stamped:
            self._clock_offset_ns = message.log_time_ns - min(found)
        for stamp, items in found.items():
            content = Samples(items, self._number)
            for accepted in self._timeline.push(message.topic, stamp, content):
                for key, _ in accepted.content.items:
                    self._note_arrival(key, accepted.stamp_ns)
                yield accepted

    def _note_arrival(self, key: str, stamp: int) -> None:
        count, first, last = self.arrivals.get(key, (0, stamp, stamp))
        self.arrivals[key] = (count + 1, min(first, stamp), max(last, stamp))

    def _take(self, key: str, sample: Sample) -> None:
        arrival = self._builder.add(key, sample)
        self._newest[key] = max(self._newest.get(key, sample.stamp_ns), sample.stamp_ns)
        if arrival in (Arrival.DISORDERED, Arrival.LATE, Arrival.DUPLICATE):
            topic = self._topic(self.embodiment.streams[key].topic)
            seen = f"stamp {sample.stamp_ns} {arrival.value}"
            self.report.add(topic, "rising stamps", seen, once=True)

    def _take_command(self, message: Message) -> None:
        key = self._commands[message.topic]
        kind = self.bag.topics[message.topic].type
        try:
            decoded = self._decoder(message.topic, kind, message.data)
            self.segments[-1].commands.add(
                key,
                message.topic,
                decoded,
                self._on_stamp_clock(message.log_time_ns),
                self._number,
            )
        except MessageError as error:
            self.report.add_error(message.topic, error)

    def _on_stamp_clock(self, log_time_ns: int) -> int:
        """Arrival time on the clock of the headers: a bag may be logged by another clock."""
        offset = self._clock_offset_ns or 0
        return log_time_ns - offset if abs(offset) > NANOSECONDS else log_time_ns

    def _take_outcome(self, message: Message) -> None:
        if message.topic not in self.bag.topics:
            return
        newest = self._timeline.newest_ns
        if newest is None or (self._start is not None and newest < self._start.start_ns):
            return  # the latched outcome of the episode before
        try:
            text = self._decoder(message.topic, names.STRING, message.data).data
            self.segments[-1].outcome = Outcome.from_yaml(text, message.topic)
        except UserError as error:
            self.report.add_error(message.topic, error)
            return
        if self.segments[-1].outcome.done and self._end_ns is None:
            # Topics overtake each other: samples of the last tick may come after the outcome.
            self._end_ns = newest + OVERTAKEN_NS

    # ---------------------------------------------------------------- rows
    def _open_segment(self, number: int = 0) -> None:
        """Begin a run of the clock with message ``number``."""
        if self.segments:
            log = self.segments[-1].commands.split(number)
        else:
            log = ActionLog(self.embodiment, executed="" in self._commands.values())
        self.segments.append(Segment(self._rows, log))
        self._builder = RowBuilder(self.embodiment, self.keys)
        self._start = self.info
        if self._start is not None:
            self._builder.reset(self._start.start_ns)
        self._newest: dict[str, int] = {}
        self._next_tick_ns: int | None = None
        self._end_ns: int | None = None  # an outcome ends an episode before its bag does

    def _emit(self, closing: bool = False) -> Iterator[Observation]:
        """Rows of the ticks whose samples have all arrived; of all ticks when ``closing``."""
        newest = self._timeline.newest_ns if not closing else max(self._newest.values(), default=0)
        if newest is None or not self._newest:
            return
        if self._next_tick_ns is None:
            self._next_tick_ns = self._first_tick(newest, closing)
        if self._next_tick_ns is None:
            return
        limit = newest if closing else self._settled(newest)
        if self._end_ns is not None:
            limit = min(limit, self._end_ns)
        while self._next_tick_ns <= limit:
            row = self._builder.row(self._next_tick_ns)
            self._next_tick_ns += self.embodiment.period_ns
            if not self.segments[-1].stamps_ns and self._start is None and self._lacks(row):
                continue  # without a start in the bag, the first full row is the start
            self._note_row(row)
            yield row

    def _ripe(self) -> bool:
        """Whether the next row can possibly be due; asked after every message."""
        newest = self._timeline.newest_ns
        return newest is not None and newest >= (self._next_tick_ns or 0) + SLACK_NS

    def _first_tick(self, newest: int, closing: bool) -> int | None:
        """Where the rows begin, once that is known."""
        period = self.embodiment.period_ns
        earliest = min(self._newest.values())
        if self._start is not None:
            start = self._start.start_ns
            if earliest <= start + FAR_NS:
                self.segments[-1].anchored = True
                return first_tick(start, period)
            self._start = None
        waiting = set(self._expected()) - set(self._newest)
        if waiting and not closing and newest < earliest + SILENT_NS:
            return None
        return first_tick(earliest, period)

    def _expected(self) -> list[str]:
        return [stream.key for streams in self.streams.values() for stream in streams]

    def _lacks(self, row: Observation) -> bool:
        """Whether a stream that the bag does have is missing from a row."""
        return any(not row.valid[key] for key in self._newest)

    def _settled(self, newest: int) -> int:
        """Up to which time every stream that still speaks has given all that it will give."""
        limit = newest - SILENT_NS
        speaking = [self._newest.get(key, limit) for key in self._expected()]
        return max(min(speaking, default=newest) - SLACK_NS, limit)

    def _note_row(self, row: Observation) -> None:
        self._rows += 1
        self.segments[-1].stamps_ns.append(row.stamp_ns)
        for key in row.missing:
            count, first = self._missing.get(key, (0, row.stamp_ns))
            self._missing[key] = (count + 1, first)

    def _conclude(self) -> None:
        """Lines for what can only be said at the end."""
        expected = set(self._expected())
        for key, (count, first) in self._missing.items():
            stream = self.embodiment.streams[key]
            if key in expected:
                self.report.add(
                    self._topic(stream.topic),
                    f"{key} not older than {stream.max_age_s:g} s at each tick",
                    f"none at {count} of {self._rows} ticks, first at {first / NANOSECONDS:.3f} s",
                )
        chosen = self.segment()
        if len(self.segments) > 1:
            self.report.add(
                "", "one run of the clock",
                f"{len(self.segments)}; one is used, {len(chosen.stamps_ns)} of "
                f"{self._rows} rows",
            )  # fmt: skip
        if self.info is not None and not chosen.anchored:
            self.report.add(
                self._topic(names.EPISODE_START), "streams from start_ns on",
                f"none near {self.info.start_ns}; the first full row is used as the start",
            )  # fmt: skip
            self.info = None
        elif self.info is not None and not chosen.stamps_ns:
            self.report.add(
                self._topic(names.EPISODE_START), f"streams from start_ns {self.info.start_ns} on",
                f"none after {max(self._newest.values(), default=0)}",
            )  # fmt: skip
        if not chosen.stamps_ns:
            self.report.add("", "at least one control tick", "no usable row")


def read_episode(
    bag: Bag,
    embodiment: Embodiment | None = None,
    keys: Iterable[str] | None = None,
    namespace: str | None = None,
) -> Episode:
    """The whole episode in memory; arguments and errors of :class:`EpisodeReader`."""
    reader = EpisodeReader(bag, embodiment, keys, namespace)
    rows = list(reader.rows())[reader.span()]
    streams = reader.embodiment.require(reader.keys)
    values = {
        key: np.stack([row.values[key] for row in rows])
        if rows
        else np.zeros((0, *stream.shape), stream.dtype)
        for key, stream in streams.items()
    }
    valid = {key: np.array([row.valid[key] for row in rows], dtype=bool) for key in streams}
    actions, action_valid = reader.actions()
    return Episode(
        bag=bag.place.name,
        embodiment=reader.embodiment,
        stamps_ns=np.array([row.stamp_ns for row in rows], dtype=np.int64),
        values=values,
        valid=valid,
        actions=actions,
        action_valid=action_valid,
        info=reader.info,
        outcome=reader.segment().outcome,
        instruction=reader.instruction,
        report=bag.report,
    )


def _has(bag: Bag, topic: str, kind: str) -> bool:
    info = bag.topics.get(topic)
    return info is not None and info.count > 0 and info.type == kind


def _namespace(bag: Bag, embodiment: Embodiment | None) -> str:
    relative = [names.EMBODIMENT, names.EPISODE_START]
    if embodiment is not None:
        relative += embodiment.topics()
        relative += [command.topic for command in embodiment.commands.values()]
    return names.namespace_of(bag.topics, relative, bag.place.name)
