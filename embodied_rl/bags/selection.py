"""Which topics of a bag are the streams and the commands of an embodiment; what lacks is said."""

from __future__ import annotations

from collections.abc import Iterable

from embodied_rl.bags import topics as names
from embodied_rl.bags.facts import has
from embodied_rl.bags.read import Bag
from embodied_rl.core.embodiment import Embodiment, Stream
from embodied_rl.core.message_types import TRAJECTORY_FEEDBACK


def present_streams(
    bag: Bag, spelling: names.Names, streams: Iterable[Stream], *, asked: bool
) -> tuple[dict[str, list[Stream]], list[str]]:
    """Topic -> the streams in it, where the bag has the topic with its type; and the keys of those
    that nobody recorded.

    Args:
        asked: the user named the streams, so one that was not recorded is a fault.
    """
    found: dict[str, list[Stream]] = {}
    absent = []
    for stream in streams:
        topic = spelling.of(stream.topic)
        info = bag.topics.get(topic)
        if info is None and not asked:
            absent.append(stream.key)
        elif info is None or info.count == 0:
            seen = "no such topic" if info is None else "no message"
            bag.report.add(topic, f"{stream.type} at {stream.rate_hz:g} Hz", seen, once=True)
        elif info.type != stream.type:
            bag.report.add(topic, stream.type, info.type, once=True)
        else:
            found.setdefault(topic, []).append(stream)
    if absent:
        # Nobody published them, as with cameras that were switched off: no fault of the bag.
        bag.report.add("", "every stream", f"not recorded: {', '.join(absent)}", damage=False)
    return found, absent


def command_topics(
    bag: Bag, spelling: names.Names, embodiment: Embodiment
) -> tuple[dict[str, str], list[str]]:
    """Topic -> group of the commands that make the actions ("" for all in one); and the groups of
    which there are no commands, but the feedback of an action server."""
    executed = spelling.of(names.EXECUTED)
    if has(bag, executed, names.TRAJECTORY):
        return {executed: ""}, []
    found, from_feedback = {}, []
    for key, command in embodiment.commands.items():
        topic = spelling.of(command.topic)
        feedback = spelling.of(names.feedback_of(command.topic))
        expected = f"commands of type {command.type}"
        if has(bag, topic, command.type):
            found[topic] = key
        elif has(bag, feedback, TRAJECTORY_FEEDBACK):
            found[feedback] = key
            from_feedback.append(key)
            seen = f"none; the desired positions on {feedback} are taken"
            bag.report.add(topic, expected, seen, damage=False)
        else:
            info = bag.topics.get(topic)
            seen = info.type if info is not None and info.count else "no message"
            bag.report.add(topic, expected, seen)
    return found, from_feedback
