"""On which topic the intrinsics of each image stream go: one of its own size beside every image.

Viewers look for ``camera_info`` beside the topic of the image, so images of one camera and size
that lie side by side share it. One of another size has it below its own name instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from embodied_rl.core.errors import UserError
from embodied_rl.core.message_types import COMPRESSED_IMAGE
from embodied_rl.core.streams import Stream


def camera_info_topics(streams: Iterable[Stream], cameras: Mapping[str, str]) -> dict[str, str]:
    """Key of an image stream -> topic of its ``sensor_msgs/CameraInfo``.

    Colour comes first, then the order of the streams. ``cameras`` says which camera is behind a
    stream, by key.

    Raises:
        UserError: topics so alike that no name is left.
    """
    taken: dict[str, tuple[object, ...]] = {}
    found: dict[str, str] = {}
    images = [stream for stream in streams if stream.encoding]
    for stream in sorted(images, key=lambda stream: len(stream.shape) < 3):
        topic = stream.topic
        if stream.type == COMPRESSED_IMAGE and topic.rpartition("/")[2].startswith("compressed"):
            topic = topic.rpartition("/")[0]  # image_transport names the image itself
        folder = topic.rpartition("/")[0]
        names = [f"{folder}/camera_info" if folder else "camera_info", f"{topic}/camera_info"]
        kind = (cameras[stream.key], stream.shape[:2])
        fitting = [name for name in names if taken.get(name, kind) == kind]
        if not fitting:
            raise UserError(
                f"streams.{stream.key}.topic: expected a topic with room for its camera_info, saw "
                f"'{stream.topic}', beside which {names} belong to images of another size"
            )
        found[stream.key] = fitting[0]
        taken[fitting[0]] = kind
    return found
