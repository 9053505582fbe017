"""The picture strip of a bag's cameras."""

from __future__ import annotations

import bag_maker as maker
import numpy as np
from PIL import Image

from embodied_rl.bags.metadata import Qos
from embodied_rl.bags.pictures import write_strip
from embodied_rl.bags.write import BagWriter

IMAGE = "sensor_msgs/msg/Image"


def frame(height: int, width: int, level: int) -> bytes:
    """A grey rgb8 image message."""
    pixels = np.full((height, width, 3), level, np.uint8)
    message = maker.image(maker.START_NS, pixels)
    return bytes(maker.STORE.serialize_cdr(message, IMAGE))


def test_cameras_of_different_proportions_share_one_picture(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    for topic in ("/square", "/wide"):
        writer.add_topic(topic, IMAGE, [Qos(5)])
    for i in range(20):
        writer.write("/square", i, frame(8, 8, 100 + i))
        writer.write("/wide", i, frame(8, 16, 200))
    writer.close()
    path = write_strip(tmp_path / "bag", tmp_path / "strip.png", frames=4, height_px=16)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (2 * 16, 4 * 32, 3)
    columns = pixels[8, 8 : 4 * 16 : 16, 0].tolist()
    assert columns == [100, 106, 113, 119]  # spread over the whole bag
    assert (pixels[8, 4 * 16 :] == 0).all() and (pixels[24] == 200).all()


def test_a_bag_without_cameras_has_no_picture(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/depth", IMAGE, [Qos(5)])
    writer.close()
    assert write_strip(tmp_path / "bag", tmp_path / "strip.png") is None
    assert not (tmp_path / "strip.png").exists()
