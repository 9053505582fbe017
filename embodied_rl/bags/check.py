"""What is in a bag, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from embodied_rl.bags.clock import Offset
from embodied_rl.bags.facts import read_facts
from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.options import AS_RECORDED, Options
from embodied_rl.bags.order import read_again
from embodied_rl.bags.read import Bag, BagPath
from embodied_rl.bags.report import Report
from embodied_rl.bags.rows import EpisodeReader
from embodied_rl.bags.topics import EPISODE_OUTCOME, EPISODE_START, STRING, Names, namespace_of
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome

LOWEST_RATE = 0.8  # share of the declared rate below which a stream counts as damaged


@dataclass(frozen=True)
class TopicSummary:
    """One topic: how many messages, and how many a second over the bag's length."""

    name: str
    type: str
    count: int
    rate_hz: float


@dataclass(frozen=True)
class BagSummary:
    """``bags info`` of one bag."""

    name: str
    size: int  # bytes
    start_ns: int
    duration_s: float
    topics: list[TopicSummary]
    instruction: str
    info: EpisodeInfo | None
    outcome: Outcome | None
    lines: list[str]


@dataclass(frozen=True)
class CheckResult:
    """``bags check`` of one bag."""

    name: str
    rows: int
    valid_rows: int  # rows with all streams
    actions: int  # rows with a known action
    targets: dict[str, int]  # command topic -> rows with a target on it; an action needs all
    damaged: bool
    lines: list[str]
    episodes: int = 0
    unfinished: int = 0  # episodes with a declared start and no outcome
    offsets: list[Offset] = field(default_factory=list)  # log time minus stamp, a topic each

    @property
    def trainable(self) -> bool:
        """Whether there is anything to imitate in it."""
        return self.actions > 0


def summarise(place: BagPath) -> BagSummary:
    """Read what a bag says about itself; message contents are not decoded."""
    with Bag(place, Report(place.name)) as bag:
        start_ns, end_ns = bag.span_ns
        duration_s = (end_ns - start_ns) / NANOSECONDS
        topics = [
            TopicSummary(info.name, info.type, info.count, _rate_hz(info.count, duration_s))
            for info in sorted(bag.topics.values(), key=lambda info: info.name)
        ]
        try:
            namespace = namespace_of(bag.topics, [EPISODE_START, EPISODE_OUTCOME], place.name)
        except UserError as error:
            bag.report.add_error("", error)
            namespace = ""
        spelling = Names(bag.topics, namespace)
        facts = read_facts(bag, spelling)
        outcome = _outcome(bag, spelling.of(EPISODE_OUTCOME))
        return BagSummary(
            name=place.name,
            size=place.size,
            start_ns=start_ns,
            duration_s=duration_s,
            topics=topics,
            instruction=facts.instruction(facts.info, end_ns + 1),
            info=facts.info,
            outcome=outcome,
            lines=bag.report.all_lines(),
        )


def check(
    place: BagPath,
    embodiment: Embodiment | None = None,
    keys: Iterable[str] | None = None,
    options: Options = AS_RECORDED,
) -> CheckResult:
    """Read a bag as a conversion would, every message decoded, and hold its rates.

    A bag that no embodiment describes is damaged for the purpose of this check.
    """
    report = Report(place.name)
    chosen = tuple(keys) if keys is not None else None
    with Bag(place, report) as bag:
        try:
            return read_again(
                bag, lambda ordered: _check(bag, embodiment, chosen, options, ordered)
            )
        except UserError as error:
            report.add_error("", error)
            return CheckResult(place.name, 0, 0, 0, {}, True, report.all_lines())


def _check(
    bag: Bag,
    embodiment: Embodiment | None,
    keys: tuple[str, ...] | None,
    options: Options,
    in_order: bool,
) -> CheckResult:
    rows = valid_rows = actions = episodes = unfinished = 0
    targets: Counter[str] = Counter()
    offsets: list[Offset] = []
    reader = EpisodeReader(bag, embodiment, keys, options, in_order=in_order)
    for part in reader.parts:
        if part is not reader.part or episodes:
            reader = EpisodeReader(bag, embodiment, keys, options, part=part, in_order=in_order)
        complete = [not row.missing for row in reader.rows()]
        _check_rates(reader)
        for segment in reader.episodes():
            own = complete[reader.span(segment)]
            rows, valid_rows = rows + len(own), valid_rows + sum(own)
            actions += int(reader.actions(segment)[1].sum())
            targets.update(reader.targets(segment))
            episodes += bool(own)
            ended = segment.outcome is not None and segment.outcome.done
            unfinished += bool(own) and reader.info is not None and not ended
        offsets = offsets or reader.offsets()
    return CheckResult(
        name=bag.place.name,
        rows=rows,
        valid_rows=valid_rows,
        actions=actions,
        targets=dict(targets),
        damaged=bag.report.damaged,
        lines=bag.report.all_lines(),
        episodes=episodes,
        unfinished=unfinished,
        offsets=offsets,
    )


def embodiment_in(place: BagPath) -> Embodiment:
    """The robot that a bag was recorded of.

    Raises:
        UserError: the bag does not say.
    """
    with Bag(place, Report(place.name)) as bag:
        return EpisodeReader(bag).embodiment


def _check_rates(reader: EpisodeReader) -> None:
    """A line for each topic on which a stream came in slower than it declares."""
    told: set[str] = set()
    for key, (count, first_ns, last_ns) in reader.arrivals.items():
        stream = reader.embodiment.streams[key]
        topic = reader.topic(stream.topic)
        if last_ns <= first_ns or topic in told:
            continue
        rate_hz = (count - 1) / ((last_ns - first_ns) / NANOSECONDS)
        if rate_hz < LOWEST_RATE * stream.rate_hz:
            told.add(topic)
            reader.report.add(
                topic,
                f"at least {LOWEST_RATE * stream.rate_hz:g} Hz (80 % of the declared rate)",
                f"{rate_hz:.1f} Hz",
            )


def _rate_hz(count: int, duration_s: float) -> float:
    return (count - 1) / duration_s if count > 1 and duration_s > 0 else 0.0


def _outcome(bag: Bag, topic: str) -> Outcome | None:
    info, found = bag.topics.get(topic), None
    if info is None or info.type != STRING:
        return None
    decoder = Decoder()
    for message in bag.messages([topic]):
        try:
            text = decoder(topic, STRING, message.data).data
            found = Outcome.from_yaml(text, topic)
        except UserError as error:
            bag.report.add_error(topic, error)
    return found
