"""The rows of a bag at every control tick, as they are read, and the action of each.

The rows come from the same :class:`~embodied_rl.core.window.RowBuilder` that the live node uses,
so a window read back equals the one that the policy saw, bit for bit. Unsound data are used as
far as they are sound: what is missing is marked invalid, and each fault leaves one line.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np

from embodied_rl.bags import topics as names
from embodied_rl.bags.actions import ActionLog
from embodied_rl.bags.clock import CLOCK, CLOCK_TYPE, Offset, StampClock
from embodied_rl.bags.facts import embodiment_of, find_namespace, read_facts
from embodied_rl.bags.messages import Decoder, SampleDecoder
from embodied_rl.bags.options import AS_RECORDED, Options
from embodied_rl.bags.order import LATE_NS, look_at_beginning, messages, sortable
from embodied_rl.bags.parts import Part, parts_of
from embodied_rl.bags.read import Bag
from embodied_rl.bags.segment import Samples, Segment
from embodied_rl.bags.selection import command_topics, present_streams
from embodied_rl.bags.static_frames import latch_static
from embodied_rl.bags.storage import Message
from embodied_rl.bags.timeline import FAR_NS, Accepted, Timeline
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import MessageError, UserError
from embodied_rl.core.measured import StateWatch, measured_by
from embodied_rl.core.policy import Outcome
from embodied_rl.core.streams import HEADER
from embodied_rl.core.window import (
    CLOCK_JUMP_NS,
    Arrival,
    Observation,
    RowBuilder,
    Sample,
    first_tick,
)

SLACK_NS = NANOSECONDS // 10  # a row waits this long for samples that come out of order
# and no longer than this for a stream that has gone silent. Generous: a recorder of a simulation
# that runs ten times as fast as real time may lag seconds behind on one topic and not on another.
SILENT_NS = 10 * NANOSECONDS
# A stream of which every message was refused for so long (log time) is not waited for.
HOPELESS_NS = 2 * NANOSECONDS
OVERTAKEN_NS = NANOSECONDS // 2  # samples of the last ticks may be recorded after the outcome


class EpisodeReader:
    """Streams the rows of one part of a bag.

    Iterate :meth:`rows` to the end, storing each; then :meth:`episodes` gives the runs of the clock
    that are episodes, :meth:`span` says which of the rows each has, and :meth:`actions` gives
    theirs.

    Args:
        embodiment: default: the one in the bag.
        keys: streams of the rows; default: all of the embodiment that were recorded.
        options: how the user wants the bag to be read.
        copy: False: images in the rows are views that must be used before the next row.
        part: of the bag (:attr:`parts`); default: the last one.
        in_order: read in the order of log time; otherwise :meth:`rows` raises OutOfOrder where the
            bag needs it.

    Raises:
        UserError: no embodiment, an unknown stream, two robots in the bag, no marks in it, or
            actions are to be measured and no stream measures them.
    """

    def __init__(
        self,
        bag: Bag,
        embodiment: Embodiment | None = None,
        keys: Iterable[str] | None = None,
        options: Options = AS_RECORDED,
        *,
        copy: bool = True,
        part: Part | None = None,
        in_order: bool = False,
    ):
        self.bag, self.report, self._in_order = bag, bag.report, in_order
        given = options.namespace
        self.namespace = given if given is not None else find_namespace(bag, embodiment)
        self._names = names.Names(bag.topics, self.namespace, options.remap)
        self.facts = facts = read_facts(bag, self._names)
        self.parts = parts_of(bag, facts, self._names, options.cuts)
        self.part = part if part is not None else self.parts[-1]
        self.embodiment = embodiment_of(bag, facts, embodiment)
        asked = keys is not None
        self.keys = tuple(self.embodiment.streams if keys is None else keys)
        self.info = self.part.info
        self.instruction = facts.instruction(self.info, self.part.until_ns)
        self._state = StateWatch(self.embodiment) if options.measured else None
        wanted = self.embodiment.require(sorted(self._built_keys())).values()
        # topic -> asked-for streams that the bag has
        self.streams, absent = present_streams(bag, self._names, wanted, asked=asked)
        self.keys = tuple(key for key in self.keys if key not in absent)
        self.arrivals: dict[str, tuple[int, int, int]] = {}  # key -> count, first, last stamp
        # topic -> group of the commands that make the actions ("" for all in one), and the groups
        # whose targets come from the feedback of an action server
        self._commands: dict[str, str] = {}
        self._feedback: list[str] = []
        if not options.measured:
            self._commands, self._feedback = command_topics(bag, self._names, self.embodiment)
        self._decoder = Decoder(bag.topics.values())
        self._sample = SampleDecoder(copy)
        latch_static(bag, self.streams, self._decoder, self._sample)
        self._stamped = {  # key -> topic
            stream.key: topic
            for topic, group in self.streams.items()
            for stream in group
            if stream.stamps == HEADER
        }
        self._heard: dict[str, int] = {}  # topic -> log time of its first message
        self._rows = 0
        self._missing: dict[str, tuple[int, int]] = {}  # key -> (rows without, first such tick)
        self.segments: list[Segment] = []
        self._gap_ns = round(options.cuts.gap_s * NANOSECONDS)
        self._number = self._log_ns = 0  # of the message in hand

    # ---------------------------------------------------------------- result
    def rows(self) -> Iterator[Observation]:
        """Every row, in the order of time within each run of the clock.

        Raises:
            OutOfOrder: a stream is so late in the file that rows would miss it.
        """
        self._timeline = self._new_timeline()
        self._open_segment()
        outcome = self.topic(names.EPISODE_OUTCOME)
        wanted = {*self.streams, *self._commands, outcome} & set(self.bag.topics)
        clock = self.bag.topics.get(CLOCK)
        if clock is not None and clock.type == CLOCK_TYPE:
            wanted.add(CLOCK)
        coming = messages(self.bag, wanted, self._in_order)
        if not self._in_order:
            coming = sortable(coming, self.streams)
        for number, message in enumerate(coming):
            self._number, self._log_ns = number, message.log_time_ns
            if self._log_ns > self.part.until_ns + LATE_NS or self._over():
                break
            if not self.part.holds(self._log_ns):
                continue
            if message.topic in self.streams:
                yield from self._take_all(self._samples(message))
                if self._next_tick_ns is None or self._ripe():
                    yield from self._emit()
            elif message.topic == CLOCK:
                self._take_clock(message)
            elif message.topic in self._commands:
                self._take_command(message)
            else:
                self._take_outcome(message)
        yield from self._take_all(self._timeline.drain())
        yield from self._emit(closing=True)
        self._conclude()

    def episodes(self) -> list[Segment]:
        """The runs of the clock that are episodes: the declared one, else all that last."""
        declared = [part for part in self.segments if part.anchored]
        if declared:
            return [max(declared, key=lambda part: len(part.stamps_ns))]
        lasting = [part for part in self.segments if part.span_ns >= CLOCK_JUMP_NS]
        return lasting or [self.segment()]

    def segment(self) -> Segment:
        """The run of the clock that is the episode: where it was declared, else the longest."""
        return max(self.segments, key=lambda part: (part.anchored, len(part.stamps_ns)))

    def span(self, segment: Segment | None = None) -> slice:
        """Which of the rows given by :meth:`rows` make an episode; default: :meth:`segment`."""
        chosen = segment or self.segment()
        return slice(chosen.first, chosen.first + len(chosen.stamps_ns))

    def actions(self, segment: Segment | None = None) -> tuple[np.ndarray, np.ndarray]:
        """``actions (K, A)`` and ``action_valid (K,)`` of an episode's rows."""
        chosen = segment or self.segment()
        if self._state is not None:
            return self._measured(chosen)
        found = chosen.commands.actions(*self._ticks(chosen), chosen.clock.at)
        for key, count in chosen.commands.foreign().items():
            self.report.add(
                self._command_topic(key), "stamps on the clock of the streams",
                f"{count} commands of another clock; they count from their arrival", damage=False,
            )  # fmt: skip
        return found

    def targets(self, segment: Segment | None = None) -> dict[str, int]:
        """Command topic -> at how many of an episode's rows it has a target."""
        if self._state is not None:
            return {}
        chosen = segment or self.segment()
        known = chosen.commands.known(*self._ticks(chosen), chosen.clock.at)
        return {self._command_topic(key): count for key, count in known.items()}

    def offsets(self, segment: Segment | None = None) -> list[Offset]:
        """How log time and stamps lie, for each topic with stamps."""
        return (segment or self.segment()).clock.offsets()

    def _measured(self, chosen: Segment) -> tuple[np.ndarray, np.ndarray]:
        """The state at the next row as the action of each; the last one has none."""
        actions = np.full((len(chosen.states), self.embodiment.action_dim), np.nan)
        if len(actions) > 1:
            actions[:-1] = chosen.states[1:]
        valid = np.isfinite(actions).all(axis=1)
        actions[~valid] = np.nan
        return actions, valid

    def _ticks(self, chosen: Segment) -> tuple[np.ndarray, int]:
        """Stamps of an episode's rows, and since when commands count."""
        since_ns = self.info.start_ns if self.info is not None and chosen.anchored else 0
        return np.array(chosen.stamps_ns, dtype=np.int64), since_ns

    # ---------------------------------------------------------------- topics
    def topic(self, name: str) -> str:
        """The recorded topic of a name in the embodiment file."""
        return self._names.of(name)

    def _command_topic(self, key: str) -> str:
        recorded = {group: topic for topic, group in self._commands.items()}
        return recorded.get(key) or self.topic(self.embodiment.commands[key].topic)

    def _new_timeline(self) -> Timeline[Samples]:
        """One that knows about when the bag begins, and how old latched samples may be."""
        stamped = {topic: self.bag.topics[topic].type for topic in self._stamped.values()}
        first = (m for m in messages(self.bag, stamped, self._in_order) if self.part.holds(m[1]))
        self._beginning = look_at_beginning(first, stamped) if stamped else None
        return Timeline(
            self.report,
            self._beginning.stamp_ns if self._beginning else None,
            {topic: max(s.max_age_ns for s in group) for topic, group in self.streams.items()},
            self._gap_ns,
        )

    # ---------------------------------------------------------------- intake
    def _take_all(self, coming: Iterator[Accepted[Samples]]) -> Iterator[Observation]:
        """Samples whose stamps are sound; the rows of a run of the clock that ends with them."""
        for accepted in coming:
            if accepted.jump:
                yield from self._emit(closing=True)
                self._open_segment(accepted.content.number)
            for key, sample in accepted.content.items:
                self._note_arrival(key, accepted.stamp_ns)
                self._take(key, sample)
            topic = self._stamped.get(key)
            if topic is not None:
                clock = self.segments[-1].clock
                clock.add(topic, accepted.content.log_ns, accepted.stamp_ns)

    def _samples(self, message: Message) -> Iterator[Accepted[Samples]]:
        """The decoded streams of a message, once its stamp has proved sound."""
        streams = self.streams[message.topic]
        self._heard.setdefault(message.topic, message.log_time_ns)
        try:
            decoded = self._decoder(message.topic, streams[0].type, message.data)
        except MessageError as error:
            self.report.add_error(message.topic, error)
            return
        received_ns = message.log_time_ns
        if any(stream.stamps != HEADER for stream in streams):
            received_ns = self.segments[-1].clock.at_once(received_ns)
        found = self._sample.by_stamp(streams, decoded, received_ns, message.topic, self.report)
        for stamp, items in found.items():
            content = Samples(items, self._number, message.log_time_ns)
            yield from self._timeline.push(message.topic, stamp, content)

    def _take_clock(self, message: Message) -> None:
        """A message of ``/clock``, where the stamps are of that clock."""
        order = ">" if message.data[1] == 0 else "<"
        sec, nanosec = struct.unpack_from(order + "iI", message.data, 4)
        now_ns, newest = sec * NANOSECONDS + nanosec, self._timeline.newest_ns
        if newest is not None and abs(now_ns - newest) <= FAR_NS:
            self.segments[-1].clock.add(CLOCK, message.log_time_ns, now_ns)

    def _note_arrival(self, key: str, stamp: int) -> None:
        count, first, last = self.arrivals.get(key, (0, stamp, stamp))
        self.arrivals[key] = (count + 1, min(first, stamp), max(last, stamp))

    def _take(self, key: str, sample: Sample) -> None:
        arrival = self._builder.add(key, sample)
        first, newest = self._first.get(key), self._newest.get(key)
        alone = first is not None and first == newest  # a stale first sample is no beginning
        apart_ns = max(CLOCK_JUMP_NS, 3 * self.embodiment.streams[key].period_ns)
        if first is None or (alone and sample.stamp_ns > first + apart_ns):
            self._first[key] = sample.stamp_ns
        else:
            self._first[key] = min(first, sample.stamp_ns)
        self._newest[key] = max(self._newest.get(key, sample.stamp_ns), sample.stamp_ns)
        if self._end_ns is None or sample.stamp_ns <= self._end_ns:
            self._reach_ns = max(self._reach_ns, sample.stamp_ns)
        if self._began_ns is None:
            self._began_ns = self._timeline.newest_ns
        if arrival in (Arrival.DISORDERED, Arrival.LATE, Arrival.DUPLICATE):
            topic = self.topic(self.embodiment.streams[key].topic)
            seen = f"stamp {sample.stamp_ns} {arrival.value}"
            late = arrival is Arrival.LATE  # others cost no data
            self.report.add(topic, "rising stamps", seen, damage=late, once=True)

    def _take_command(self, message: Message) -> None:
        key = self._commands[message.topic]
        kind = self.bag.topics[message.topic].type
        try:
            decoded = self._decoder(message.topic, kind, message.data)
            log = self.segments[-1].commands
            log.add(key, message.topic, decoded, message.log_time_ns, self._number)
        except MessageError as error:
            self.report.add_error(message.topic, error)

    def _take_outcome(self, message: Message) -> None:
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
            executed = "" in self._commands.values()
            log = ActionLog(self.embodiment, self._feedback, executed=executed)
        self.segments.append(Segment(self._rows, log, self._new_clock()))
        self._builder = RowBuilder(self.embodiment, self._built_keys())
        self._start = self.info
        if self._start is not None:
            self._builder.reset(self._start.start_ns)
        self._first: dict[str, int] = {}  # key -> stamp
        self._newest: dict[str, int] = {}
        self._began_ns: int | None = None  # newest stamp when the first sample came
        self._next_tick_ns: int | None = None
        self._end_ns: int | None = None  # an outcome ends an episode before its bag does
        self._reach_ns = 0  # newest stamp not after that

    def _built_keys(self) -> set[str]:
        """The streams of the rows, and those that measure the actions where that is asked for."""
        return {*self.keys, *(self._state.keys if self._state is not None else ())}

    def _new_clock(self) -> StampClock:
        commanded = set(self.embodiment.action_names)
        measuring = {
            topic
            for key, topic in self._stamped.items()
            if not commanded.isdisjoint(measured_by(self.embodiment.streams[key]))
        }
        clock = StampClock(self.embodiment.period_ns, sorted(measuring))
        if not self.segments and self._beginning is not None:
            for topic, log_ns, stamp_ns in self._beginning.pairs:
                clock.add(topic, log_ns, stamp_ns)
        return clock

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
        limit = min(limit, self.part.before_ns - 1)
        if self._end_ns is not None:
            limit = min(limit, self._end_ns, self._reach_ns)
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
        period, began = self.embodiment.period_ns, self._began_ns or newest
        # what is latched was stamped long before
        earliest = min((s for s in self._first.values() if s >= began - FAR_NS), default=began)
        if not closing and newest < earliest + SLACK_NS:
            return None  # a first sample may turn out to be stale
        if self._start is not None:
            start = self._start.start_ns
            if earliest <= start + FAR_NS:
                self.segments[-1].anchored = True
                return first_tick(start, period)
            self._start = None
        waiting = any(key not in self._newest for key in self._expected())
        if waiting and not closing and newest < earliest + SILENT_NS:
            return None
        return first_tick(earliest, period)

    def _expected(self) -> list[str]:
        """The streams that may be waited for: not those whose messages are all refused."""
        return [
            stream.key
            for topic, streams in self.streams.items()
            for stream in streams
            if stream.key in self._newest
            or self._log_ns - self._heard.get(topic, self._log_ns) <= HOPELESS_NS
        ]

    def _lacks(self, row: Observation) -> bool:
        """Whether a stream is missing from a row that is yet to begin, not one that has ended."""
        return any(not row.valid[key] and self._newest[key] > row.stamp_ns for key in self._newest)

    def _settled(self, newest: int) -> int:
        """Up to which time every stream that still speaks has given all that it will give."""
        limit = newest - SILENT_NS
        began = self._began_ns if self._began_ns is not None else newest
        reached = [self._newest.get(key, began) for key in self._expected()]
        speaking = [stamp for stamp in reached if stamp > limit]
        return max(min(speaking, default=newest) - SLACK_NS, limit)

    def _over(self) -> bool:
        """Whether the episode ended long ago; what follows is not of this part."""
        newest = self._timeline.newest_ns
        return self._end_ns is not None and newest is not None and newest > self._end_ns + SILENT_NS

    def _note_row(self, row: Observation) -> None:
        self._rows += 1
        self.segments[-1].stamps_ns.append(row.stamp_ns)
        if self._state is not None:
            self.segments[-1].states.append(self._state.in_row(row))
        for key in row.missing:
            count, first = self._missing.get(key, (0, row.stamp_ns))
            self._missing[key] = (count + 1, first)

    def _conclude(self) -> None:
        """Lines for what can only be said at the end."""
        expected = {stream.key for streams in self.streams.values() for stream in streams}
        for key, (count, first) in self._missing.items():
            stream = self.embodiment.streams[key]
            if key in expected:
                self.report.add(
                    self.topic(stream.topic),
                    f"{key} not older than {stream.max_age_s:g} s at each tick",
                    f"none at {count} of {self._rows} ticks, first at {first / NANOSECONDS:.3f} s",
                )
        chosen, episodes = self.segment(), self.episodes()
        used = sum(len(part.stamps_ns) for part in episodes)
        if len(self.segments) > 1:
            self.report.add(
                "", "one run of the clock",
                f"{len(self.segments)}; {len(episodes)} used, {used} of {self._rows} rows",
                damage=used < self._rows,
            )  # fmt: skip
        self._conclude_start(chosen)
        self._conclude_clock(chosen)
        if not chosen.stamps_ns:
            self.report.add("", "at least one control tick", "no usable row")

    def _conclude_start(self, chosen: Segment) -> None:
        topic = self.topic(names.EPISODE_START)
        if self.info is None:
            return
        if not chosen.anchored:
            self.report.add(
                topic, "streams from start_ns on",
                f"none near {self.info.start_ns}; the first full row is used as the start",
            )  # fmt: skip
            self.info = None
        elif not chosen.stamps_ns:
            self.report.add(
                topic, f"streams from start_ns {self.info.start_ns} on",
                f"none after {max(self._newest.values(), default=0)}",
            )  # fmt: skip
        elif chosen.outcome is None or not chosen.outcome.done:
            self.report.add(
                self.topic(names.EPISODE_OUTCOME), "the outcome of the episode",
                "no outcome: its end may be missing", damage=False,
            )  # fmt: skip

    def _conclude_clock(self, chosen: Segment) -> None:
        """Say once when log time and stamps do not run at one pace."""
        offsets = chosen.clock.offsets()
        most = max(offsets, key=lambda offset: offset.drift_s, default=None)
        if most is not None and most.drift_s * NANOSECONDS > self.embodiment.period_ns:
            self.report.remark(
                f"{most.topic}: log times and stamps do not run at one pace: log time minus stamp "
                f"from {most.first_s:.3f} s to {most.last_s:.3f} s, {most.drift_s:.3f} s at most"
            )
