"""Where the episodes of one bag are: at declared starts, at marks, or where the user cuts.

Silences of all streams, and clocks that are set anew, end an episode too; those are found while
the bag is read (:mod:`embodied_rl.bags.timeline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embodied_rl.bags import topics as names
from embodied_rl.bags.facts import Facts, Start
from embodied_rl.bags.read import Bag
from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo

BEGINNING_NS, END_NS = -(2**63), 2**63 - 1
OVERLAP_NS = NANOSECONDS // 2  # topics overtake each other around a start
LATCHED_NS = NANOSECONDS  # a start that is followed by another, or its outcome, within was latched


@dataclass(frozen=True)
class Part:
    """One stretch of a bag, by log time, and what was declared of it."""

    since_ns: int = BEGINNING_NS
    until_ns: int = END_NS
    info: EpisodeInfo | None = None
    before_ns: int = END_NS  # stamp at which the next episode begins

    def holds(self, log_ns: int) -> bool:
        return self.since_ns <= log_ns < self.until_ns


@dataclass(frozen=True)
class Cuts:
    """Where the user wants a bag to be cut; without any it is cut at declared starts."""

    at_s: tuple[float, ...] = ()  # after the first message of the bag
    marks: str = ""  # topic: each of its messages begins an episode
    gap_s: float = 10.0  # a silence of all streams that ends an episode


WHOLE = Cuts()


def parts_of(
    bag: Bag,
    facts: Facts,
    spelling: names.Names,
    cuts: Cuts = WHOLE,
    overlap_ns: int = OVERLAP_NS,
) -> list[Part]:
    """The parts of a bag in the order of time; one of all where nothing divides it.

    Args:
        overlap_ns: by so much of log time parts at declared starts reach into each other.

    Raises:
        UserError: no mark in the bag, or a cut outside of it.
    """
    if cuts.at_s:
        return _between([bag.span_ns[0], *_times(bag, cuts.at_s)])
    if cuts.marks:
        topic = spelling.of(cuts.marks.lstrip("/"))
        topic = topic if topic in bag.topics else cuts.marks
        marks = sorted(message.log_time_ns for message in bag.messages([topic]))
        if not marks:
            raise UserError(f"{bag.place.name}: {topic}: expected marks between episodes, saw none")
        return _between(marks)
    ends = _outcomes(bag, spelling) if len(facts.starts) != 1 else []
    if not facts.starts and len(ends) > 1:
        begins = [BEGINNING_NS, *(end + overlap_ns for end in ends[:-1])]
        return [
            Part(since_ns, until_ns)
            for since_ns, until_ns in zip(begins, [*begins[1:], END_NS], strict=True)
        ]
    starts = _sound_starts(facts, ends)
    if len(starts) < 2:
        return [Part(info=facts.info)]
    parts = []
    for place, start in enumerate(starts):
        after = starts[place + 1] if place + 1 < len(starts) else None
        parts.append(
            Part(
                start.log_ns - overlap_ns if place else BEGINNING_NS,
                after.log_ns + overlap_ns if after else END_NS,
                start.info,
                after.info.start_ns if after else END_NS,
            )
        )
    return parts


def _times(bag: Bag, at_s: Sequence[float]) -> list[int]:
    begin, end = bag.span_ns
    times = [begin + round(second * NANOSECONDS) for second in sorted(at_s)]
    outside = [second for second, ns in zip(sorted(at_s), times) if not begin < ns < end]
    if outside:
        raise UserError(
            f"{bag.place.name}: --cut: expected seconds between 0 and "
            f"{(end - begin) / NANOSECONDS:.3f}, saw {outside[0]:g}"
        )
    return times


def _between(begins: list[int]) -> list[Part]:
    """Parts that begin at these log times, the last one ending with the bag."""
    ends = [*begins[1:], END_NS]
    return [Part(since_ns, until_ns) for since_ns, until_ns in zip(begins, ends, strict=True)]


def _outcomes(bag: Bag, spelling: names.Names) -> list[int]:
    """When an episode was said to have ended, log times; what is said again at once counts once."""
    topic = spelling.of(names.EPISODE_OUTCOME)
    ends: list[int] = []
    for message in bag.messages([topic]):
        if not ends or message.log_time_ns > ends[-1] + LATCHED_NS:
            ends.append(message.log_time_ns)
    return ends


def _sound_starts(facts: Facts, ends: list[int]) -> list[Start]:
    """The starts that an episode followed: latched ones of the episode before are left out."""
    sound: list[Start] = []
    for start, after in zip(facts.starts, [*facts.starts[1:], None]):
        if sound and sound[-1].info.start_ns == start.info.start_ns:
            continue  # said again to a late subscriber
        # what was latched comes first, start and outcome in any order
        over = not sound and any(abs(end - start.log_ns) < LATCHED_NS for end in ends)
        replaced = after is not None and after.log_ns - start.log_ns < LATCHED_NS
        if after is None or not (over or replaced):
            sound.append(start)
    return sound
