"""The transforms that stay (``tf_static``) of a bag, which its streams of tf are composed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embodied_rl.bags.messages import Decoder, SampleDecoder
from embodied_rl.bags.read import Bag
from embodied_rl.core.embodiment import Stream
from embodied_rl.core.errors import MessageError


def latch_static(
    bag: Bag, topics: Mapping[str, Sequence[Stream]], decoder: Decoder, samples: SampleDecoder
) -> None:
    """Hand them to the decoders before any sample is read, wherever in the bag they are: a live
    node, to which they are latched, knows them from its start. Faults go to the bag's report.

    Args:
        topics: topic as the bag has it -> its streams.
    """
    static = {f"{t}_static": group for t, group in topics.items() if group[0].static_topic}
    static = {topic: group for topic, group in static.items() if topic in bag.topics}
    for message in bag.messages(static) if static else ():
        streams = static[message.topic]
        try:
            decoded = decoder(message.topic, streams[0].type, message.data)
            for stream in streams:
                samples.latch(stream, decoded)
        except MessageError as error:
            bag.report.add_error(message.topic, error)
