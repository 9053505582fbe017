"""Recordings under a specification: one through the monitor, and many for a calibration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import track

from embodied_rl.bags.facts import Facts, embodiment_of, read_facts
from embodied_rl.bags.messages import Decoder, SampleDecoder
from embodied_rl.bags.read import Bag, find_bags
from embodied_rl.bags.static_frames import latch_static
from embodied_rl.bags.timeline import Timeline
from embodied_rl.bags.topics import EMBODIMENT, EPISODE_START, Names, namespace_of
from embodied_rl.core.embodiment import Embodiment, Stream
from embodied_rl.core.errors import MessageError, UserError
from embodied_rl.core.window import Sample
from embodied_rl.sim.stl_tasks.specification import find
from embodied_rl.stl import conformal
from embodied_rl.stl.replay import Replay, replay
from embodied_rl.stl.spec import Specification


@dataclass(frozen=True)
class Calibrate:
    """From recorded episodes: by how much predicted robustness may be too high."""

    bags: tyro.conf.Positional[tuple[Path, ...]]
    """bags, or folders of bags: 100 episodes at least, alike to those to come"""
    spec: Path
    """specification file with a predictor, in episode mode"""
    out: Path
    """the calibration (YAML), for the monitor's parameter of that name"""
    delta: float = 0.1
    """probability with which an episode may break a formula's bound"""
    embodiment: Path | None = None
    """embodiment file; default: the one recorded in each bag"""


def calibrate(command: Calibrate) -> int:
    """Write the quantiles of all formulas; returns the exit code."""
    given = Embodiment.load(command.embodiment) if command.embodiment else None
    places = [place for folder in command.bags for place in find_bags(folder)]
    console = Console()
    spec, scores = None, {}
    for place in track(places, "episodes", console=console, transient=True):
        with Bag(place) as bag:
            record = replay_bag(bag, str(command.spec), given, None)
        if spec is None:
            spec = record.spec
            conformal.check(spec, len(places), command.delta)
        elif record.spec.content_hash() != spec.content_hash():
            raise UserError(
                f"{place.name}: expected the robot of {places[0].name}, saw another: streams of "
                "the same names mean something else; calibrate each by itself"
            )
        for status in record.statuses[-1]:
            if not status.clause.path:
                score = conformal.score(record.estimates[status.formula], status.low)
                scores.setdefault(status.formula, []).append(score)
    assert spec is not None  # there is no folder without a bag
    made = conformal.calibrate(spec, scores, command.delta)
    conformal.save(made, command.out)
    for name, value in made.quantiles.items():
        console.print(
            f"{name}: with probability {1 - made.delta:g} robustness >= prediction - {value:.4g}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print(f"{made.episodes} episodes; wrote {command.out}", highlight=False, soft_wrap=True)
    return 0


def replay_bag(bag: Bag, spec_name: str, given: Embodiment | None, namespace: str | None) -> Replay:
    """One bag through the monitor; what was wrong with it is in the bag's report.

    Args:
        spec_name: specification file, or a task by its name or file.
        given: default: the embodiment that was recorded.
        namespace: default: found.

    Raises:
        UserError: specification, robot and bag do not fit, or no sample is sound.
    """
    namespace, facts, robot = _robot(bag, given, namespace)
    spec = find(spec_name, robot)
    topics = _topics(bag, spec, namespace)
    start_ns = facts.info.start_ns if facts.info is not None else None
    record = replay(spec, bag_samples(bag, topics), start_ns)
    if not record.slots:
        raise UserError(
            f"{bag.place.name}: expected samples of {', '.join(topics)}, saw none that are sound"
        )
    return record


def _robot(
    bag: Bag, given: Embodiment | None, namespace: str | None
) -> tuple[str, Facts, Embodiment]:
    if namespace is None:
        relative = [EMBODIMENT, EPISODE_START, *(given.topics() if given is not None else ())]
        namespace = namespace_of(bag.topics, relative, bag.place.name)
    facts = read_facts(bag, Names(bag.topics, namespace))
    return namespace, facts, embodiment_of(bag, facts, given)


def _topics(bag: Bag, spec: Specification, namespace: str) -> dict[str, list[Stream]]:
    """Topic -> the streams of it that the specification needs.

    Raises:
        UserError: a topic is not in the bag, or with another type.
    """
    found: dict[str, list[Stream]] = {}
    spelling = Names(bag.topics, namespace)
    for stream in spec.signals.streams.values():
        topic = spelling.of(stream.topic)
        info = bag.topics.get(topic)
        seen = "no such topic" if info is None else info.type if info.count else "no message"
        if seen != stream.type:
            raise UserError(f"{bag.place.name}: {topic}: expected {stream.type}, saw {seen}")
        found.setdefault(topic, []).append(stream)
    return found


def bag_samples(bag: Bag, topics: dict[str, list[Stream]]) -> Iterator[tuple[str, Sample]]:
    """Stream key and sample of every sound message, by stamp; the others go to the report.

    A recorder may lag on one topic and not on another, by more than a live monitor would wait, so
    the order of the recording means nothing between topics. Stamps are sorted within each run of
    the clock.
    """
    timeline: Timeline[list[tuple[str, Sample]]] = Timeline(bag.report)
    held: list[tuple[int, list[tuple[str, Sample]]]] = []
    pushed = (timeline.push(*message) for message in _decoded(bag, topics))
    for accepted in chain(chain.from_iterable(pushed), timeline.drain()):
        if accepted.jump:
            yield from _by_stamp(held)
            held = []
        held.append((accepted.stamp_ns, accepted.content))
    yield from _by_stamp(held)


def _by_stamp(held: list[tuple[int, list[tuple[str, Sample]]]]) -> Iterator[tuple[str, Sample]]:
    for _, found in sorted(held, key=lambda entry: entry[0]):
        yield from found


def _decoded(
    bag: Bag, topics: dict[str, list[Stream]]
) -> Iterator[tuple[str, int, list[tuple[str, Sample]]]]:
    """Topic, stamp and samples of every message that can be used."""
    decoder, sample = Decoder(bag.topics.values()), SampleDecoder(copy=True)
    latch_static(bag, topics, decoder, sample)
    for message in bag.messages(topics):
        streams = topics[message.topic]
        try:
            decoded = decoder(message.topic, streams[0].type, message.data)
        except MessageError as error:
            bag.report.add_error(message.topic, error)
            continue
        found = sample.by_stamp(streams, decoded, message.log_time_ns, message.topic, bag.report)
        for stamp_ns, items in found.items():
            yield message.topic, stamp_ns, items
