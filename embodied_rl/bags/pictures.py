"""What the cameras of a bag saw, as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.read import Bag
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import IMAGE
from embodied_rl.core.images import as_rgb


def write_strip(bag_path: Path, path: Path, frames: int = 8, height_px: int = 160) -> Path | None:
    """A PNG with one row a colour camera and ``frames`` columns spread evenly over the bag.

    Returns:
        ``path``, or None if the bag holds no rgb8 images.

    Raises:
        UserError: there is no bag at ``bag_path``.
    """
    with Bag.open(bag_path) as bag:
        topics = [name for name, topic in sorted(bag.topics.items()) if topic.type == IMAGE]
        rows = [_frames(bag, topic, frames, height_px) for topic in topics]
    rows = [row for row in rows if row]
    if not rows:
        return None
    columns = min(len(row) for row in rows)
    bands = [np.concatenate(row[:columns], axis=1) for row in rows]
    width = max(band.shape[1] for band in bands)  # cameras may have different proportions
    bands = [np.pad(band, ((0, 0), (0, width - band.shape[1]), (0, 0))) for band in bands]
    picture = np.concatenate(bands)
    with atomic_write(path) as temporary:
        PillowImage.fromarray(picture).save(temporary, format="PNG")
    return path


def _frames(bag: Bag, topic: str, frames: int, height_px: int) -> list[np.ndarray]:
    """Up to ``frames`` pictures ``(height_px, W, 3)`` of one topic; none for other encodings."""
    count = bag.topics[topic].count
    wanted = set(np.linspace(0, count - 1, frames).round().astype(int).tolist())
    decoder, found = Decoder(bag.topics.values()), []
    for number, message in enumerate(bag.messages([topic])):
        if number not in wanted:
            continue
        image = decoder(topic, IMAGE, message.data)
        pixels = as_rgb(topic, image)
        if pixels is None:
            return []
        width_px = round(image.width * height_px / image.height)
        scaled = PillowImage.fromarray(pixels).resize((width_px, height_px))
        found.append(np.asarray(scaled))
    return found
