"""Every image has a camera_info of its size, where viewers look for it if possible."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embodied_rl.core.camera_topics import camera_info_topics
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError

COMMON = "type: sensor_msgs/msg/Image, rate_hz: 10, max_age_s: 0.3"


def streams(**images: tuple[str, str, str]):
    """Streams by key: topic, encoding, shape."""
    lines = [
        f"  {key}: {{topic: {topic}, {COMMON}, encoding: {encoding}, shape: {shape}}}"
        for key, (topic, encoding, shape) in images.items()
    ]
    text = "name: eyes\ncontrol_rate_hz: 10\nstreams:\n" + "\n".join(lines)
    text += (
        "\ncommands: {it: {topic: set, type: std_msgs/msg/Float64, joints: [j], lower: [0], "
        "upper: [1], max_velocity: [1], unit: rad}}"
    )
    return list(Embodiment.parse(text).streams.values())


def test_images_of_one_size_share_and_others_have_their_own():
    images = streams(
        depth=("eye/depth", "32FC1", "[4, 6]"),
        colour=("eye/image_raw", "rgb8", "[8, 12, 3]"),
        labels=("eye/labels", "mono16", "[8, 12]"),
        far=("eye/far/image_raw", "mono8", "[4, 6]"),
    )
    found = camera_info_topics(images, dict.fromkeys(("depth", "colour", "labels", "far"), "eye"))
    assert found == {
        "colour": "eye/camera_info",
        "labels": "eye/camera_info",
        "depth": "eye/depth/camera_info",  # colour, though later in the file, comes first
        "far": "eye/far/camera_info",
    }


def test_two_cameras_in_one_folder_do_not_share():
    images = streams(one=("left", "mono8", "[4, 6]"), two=("right", "mono8", "[4, 6]"))
    found = camera_info_topics(images, {"one": "a", "two": "b"})
    assert found == {"one": "camera_info", "two": "right/camera_info"}


def test_a_compressed_image_is_named_as_image_transport_has_it():
    (image,) = streams(one=("eye/image_raw/compressed", "rgb8", "[4, 6, 3]"))
    text = {"one": "eye"}
    assert camera_info_topics([image], text) == {"one": "eye/image_raw/camera_info"}
    packed = replace(image, type="sensor_msgs/msg/CompressedImage")
    assert camera_info_topics([packed], text) == {"one": "eye/camera_info"}


def test_no_room():
    images = streams(
        a=("x/one", "mono8", "[4, 6]"),
        b=("x/two/image", "mono8", "[4, 7]"),
        c=("x/two", "mono8", "[4, 8]"),
    )
    with pytest.raises(UserError, match=r"streams\.c\.topic.*x/two"):
        camera_info_topics(images, dict.fromkeys("abc", "eye"))
