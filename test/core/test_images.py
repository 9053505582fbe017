"""Pictures of drivers against pixels worked out by hand or by another library."""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace as Msg

import numpy as np
import pytest
import yaml
from core_cases import robot_data
from PIL import Image as Pillow

from embodied_rl.core.decode import decode
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import MessageError, UserError

HEADER = Msg(stamp=Msg(sec=3, nanosec=4), frame_id="optical")
RANDOM = np.random.default_rng(5)


def stream(kind="Image", **keys):
    data = robot_data()
    base = {"topic": "eye", "type": f"sensor_msgs/msg/{kind}", "rate_hz": 10, "max_age_s": 0.3}
    data["streams"]["eye"] = {**base, **keys}
    return Embodiment.parse(yaml.safe_dump(data), "eye.yaml").streams["eye"]


def image(encoding, pixels, step=None, big=0):
    """A message of pixels ``(H, W[, C])``; ``step`` pads the rows with noise."""
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    step = step or rows.shape[1]
    noise = RANDOM.integers(0, 255, (len(rows), step - rows.shape[1]), dtype=np.uint8)
    return Msg(
        header=HEADER,
        encoding=encoding,
        height=pixels.shape[0],
        width=pixels.shape[1],
        step=step,
        is_bigendian=big,
        data=np.hstack([rows, noise]).tobytes(),
    )


def compressed(form, data):
    return Msg(header=HEADER, format=form, data=data)


def packed(kind, pixels, **options):
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def value(source, message):
    found = decode(source, message).value
    assert found.dtype == np.dtype(source.dtype) and found.shape == source.shape
    assert found.flags.c_contiguous
    return found


PIXELS = RANDOM.integers(0, 255, (4, 6, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 255, (4, 6, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("bgr8", PIXELS[..., ::-1]),
        ("rgba8", np.dstack([PIXELS, ALPHA])),
        ("bgra8", np.dstack([PIXELS[..., ::-1], ALPHA])),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_orders(encoding, sent, padding):
    source = stream(encoding="rgb8", shape=[4, 6, 3], source_encoding=encoding)
    sent = np.ascontiguousarray(sent)
    message = image(encoding, sent, step=sent[0].size + padding)
    np.testing.assert_array_equal(value(source, message), PIXELS)


def test_padded_rows_of_the_declared_encoding_whose_last_may_lack_its_padding():
    source = stream(encoding="rgb8", shape=[4, 6, 3])
    message = image("rgb8", PIXELS, step=32)
    np.testing.assert_array_equal(value(source, message), PIXELS)
    message.data = message.data[: 3 * 32 + 18]
    np.testing.assert_array_equal(value(source, message), PIXELS)
    message.data = message.data[:-1]
    with pytest.raises(MessageError, match="rows of 18 bytes and 72 in all, saw 32 and 113"):
        decode(source, message)


def from_yuv(y, u, v):
    """BT.601 with the range of a camera, 16 to 235."""
    r = 1.164 * (y - 16) + 1.596 * (v - 128)
    g = 1.164 * (y - 16) - 0.813 * (v - 128) - 0.391 * (u - 128)
    b = 1.164 * (y - 16) + 2.018 * (u - 128)
    return np.clip([r, g, b], 0, 255)


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv")]
)
def test_halved_colours(encoding, order):
    left, right, u, v = 90, 200, 100, 150
    places = iter([left, right])
    pair = [{"y": 0, "u": u, "v": v}[c] or next(places) for c in order]
    sent = np.array(pair * 2, dtype=np.uint8).reshape(1, 4, 2)
    source = stream(encoding="rgb8", shape=[1, 4, 3], source_encoding=encoding)
    found = value(source, image(encoding, sent))
    for column, luma in enumerate([left, right] * 2):
        np.testing.assert_allclose(found[0, column], from_yuv(luma, u, v), atol=1.5)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_mosaics_of_one_colour(pattern):
    colour = {"r": 200, "g": 120, "b": 30}
    tile = np.array([colour[c] for c in pattern], dtype=np.uint8).reshape(2, 2)
    sent = np.tile(tile, (4, 5))
    source = stream(encoding="rgb8", shape=[8, 10, 3], source_encoding=f"bayer_{pattern}8")
    found = value(source, image(f"bayer_{pattern}8", sent))
    np.testing.assert_array_equal(found, np.broadcast_to([200, 120, 30], (8, 10, 3)))


def test_grey_and_colour():
    grey = stream(encoding="mono8", shape=[4, 6], source_encoding="rgb8")
    expected = PIXELS @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(value(grey, image("rgb8", PIXELS)), expected, atol=1)
    colour = stream(encoding="rgb8", shape=[4, 6, 3], source_encoding="mono8")
    flat = np.ascontiguousarray(PIXELS[..., 0])
    np.testing.assert_array_equal(value(colour, image("mono8", flat)), np.dstack([flat] * 3))
    narrow = stream(encoding="mono8", shape=[1, 4], source_encoding="mono16")
    wide = np.array([[0, 65535, 32768, 257]], dtype=np.uint16)
    assert value(narrow, image("mono16", wide)).tolist() == [[0, 255, 128, 1]]


def test_depth_in_millimetres_and_metres():
    metres = stream(encoding="32FC1", shape=[1, 4], source_encoding="16UC1", unit="m")
    raw = np.array([[0, 1, 1500, 65535]], dtype=np.uint16)
    expected = np.array([[np.nan, 0.001, 1.5, 65.535]], dtype=np.float32)
    np.testing.assert_array_equal(value(metres, image("16UC1", raw)), expected)
    swapped = image("16UC1", raw.byteswap(), big=1)
    np.testing.assert_array_equal(value(metres, swapped), expected)
    whole = stream(encoding="16UC1", shape=[1, 6], source_encoding="32FC1", unit="mm")
    sent = np.array([[np.nan, np.inf, -np.inf, 0.0, 1.4996, 80.0]], dtype=np.float32)
    assert value(whole, image("32FC1", sent)).tolist() == [[0, 0, 0, 0, 1500, 0]]


def test_a_stream_takes_what_it_declares_without_conversion():
    """As the simulator sends it, whatever a driver sends."""
    source = stream(encoding="rgb8", shape=[4, 6, 3], source_encoding="bgr8",
                    source_shape=[8, 12], resize="area")  # fmt: skip
    np.testing.assert_array_equal(value(source, image("rgb8", PIXELS)), PIXELS)


def test_crop_and_resize():
    big = RANDOM.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    keys = {"encoding": "rgb8", "source_encoding": "bgr8", "source_shape": [20, 30]}
    crop = {"left": 4, "top": 2, "width": 12, "height": 8}
    sent = image("bgr8", np.ascontiguousarray(big[..., ::-1]))
    cut = big[2:10, 4:16]
    source = stream(**keys, shape=[8, 12, 3], crop=crop)
    np.testing.assert_array_equal(value(source, sent), cut)
    source = stream(**keys, shape=[4, 6, 3], crop=crop, resize="area")
    mean = cut.astype(float).reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(value(source, sent), mean, atol=0.51)
    depth = np.arange(24, dtype=np.uint16).reshape(4, 6) + 1
    source = stream(encoding="32FC1", shape=[2, 3], source_encoding="16UC1",
                    source_shape=[4, 6], resize="nearest")  # fmt: skip
    np.testing.assert_array_equal(
        value(source, image("16UC1", depth)), depth[::2, ::2].astype(np.float32) / 1000
    )


def test_jpeg_and_png_against_another_library():
    smooth = np.stack(np.meshgrid(np.arange(64), np.arange(48)), -1).astype(np.uint8) * 3
    smooth = np.dstack([smooth, 255 - smooth[..., :1]])
    source = stream("CompressedImage", encoding="rgb8", shape=[48, 64, 3])
    png = packed("PNG", smooth)
    np.testing.assert_array_equal(value(source, compressed("png", png)), smooth)
    jpeg = packed("JPEG", smooth, quality=90)
    reference = np.asarray(Pillow.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    for form in ("jpeg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed "):
        found = value(source, compressed(form, jpeg))
        assert np.abs(found.astype(int) - reference).max() <= 3
    padded = compressed("jpeg", jpeg + bytes(200))
    np.testing.assert_array_equal(value(source, padded), found)
    small = stream("CompressedImage", encoding="mono8", shape=[24, 32], source_encoding="rgb8",
                   source_shape=[48, 64], resize="area")  # fmt: skip
    grey = smooth @ np.array([0.299, 0.587, 0.114])
    grey = grey.reshape(24, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(value(small, compressed("png", png)), grey, atol=1.1)


@pytest.mark.parametrize(("side", "colours"), [(16, 3), (12, 3), (5, 3), (16, 1), (7, 1)])
def test_a_jpeg_that_is_made_smaller_while_it_is_unpacked(side, colours):
    """Against the means of areas of the whole picture, which another library unpacks."""
    x, y = np.meshgrid(np.arange(96), np.arange(64))
    whole = np.dstack([x * 2, y * 3, 128 + 60 * np.sin(x / 20)]).astype(np.uint8)
    whole = whole if colours == 3 else np.ascontiguousarray(whole[..., 2])
    jpeg = packed("JPEG", whole, quality=95)
    shape = [side, side, 3] if colours == 3 else [side, side]
    source = stream(
        "CompressedImage", encoding="rgb8" if colours == 3 else "mono8", shape=shape,
        source_shape=[64, 96], resize="area",
        crop={"left": 16, "top": 0, "width": 64, "height": 64},
    )  # fmt: skip
    reference = Pillow.open(io.BytesIO(jpeg)).crop((16, 0, 80, 64))
    expected = np.asarray(reference.resize((side, side), Pillow.Resampling.BOX), dtype=int)
    found = value(source, compressed("jpeg", jpeg)).astype(int)
    assert np.abs(found - expected).max() <= 4


def test_depth_as_png():
    raw = RANDOM.integers(0, 65535, (5, 7), dtype=np.uint16)
    raw[0, 0] = 0
    png = packed("PNG", raw)
    source = stream("CompressedImage", encoding="16UC1", shape=[5, 7], unit="mm")
    np.testing.assert_array_equal(value(source, compressed("16UC1; png compressed ", png)), raw)
    head = struct.pack("<iff", 0, 0.0, 0.0)
    deep = compressed("16UC1; compressedDepth png", head + png)
    np.testing.assert_array_equal(value(source, deep), raw)
    metres = stream("CompressedImage", encoding="32FC1", shape=[5, 7], source_encoding="16UC1")
    found = value(metres, deep)
    assert np.isnan(found[0, 0]) and found[1, 1] == np.float32(raw[1, 1]) / np.float32(1000)


def test_quantised_inverse_depth():
    depth = np.array([[0.5, 1.0, 2.0, np.nan]])
    a, b = 100.0 * 101, 1 - 100.0 * 101 / 10.0  # as compressed_depth_image_transport: zmax 10 m
    stored = np.where(np.isnan(depth), 0, np.rint(a / np.nan_to_num(depth, nan=1.0) + b))
    png = packed("PNG", stored.astype(np.uint16))
    source = stream("CompressedImage", encoding="32FC1", shape=[1, 4])
    form = "32FC1; compressedDepth png"
    found = value(source, compressed(form, struct.pack("<iff", 0, a, b) + png))
    np.testing.assert_allclose(found, depth, rtol=1e-3)
    assert np.isnan(found[0, 3])
    with pytest.raises(MessageError, match="saw '16UC1'; .*source_encoding: 16UC1"):
        decode(source, compressed("16UC1; compressedDepth", bytes(12) + png))


def huge(width, height):
    """The head of a PNG that claims to be large."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(40)


WHOLE = packed("JPEG", np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (compressed("jpeg", WHOLE[:-30]), "eye: expected a whole JPEG or PNG, saw other bytes"),
        (compressed("jpeg", b""), "expected a whole JPEG or PNG"),
        (compressed("\x1b[31m" + "x" * 999, b"GIF89a"), r"format '\\x1b\[31mx+\.\.\.'\)$"),
        (compressed("png", huge(60000, 60000)), "expected 6x4 px, saw 60000x60000; "),
        (compressed("png", huge(6, 4)), "expected a sound picture, saw one that is damaged"),
        (compressed("jpeg", packed("JPEG", np.zeros((4, 6), np.uint8))), "source_encoding: mono8"),
        (compressed("jpeg; compressedDepth", WHOLE), "expected a whole PNG, saw other bytes"),
    ],
)
def test_unsound_compressed_pictures_are_refused_before_they_cost_memory(message, said):
    source = stream("CompressedImage", encoding="rgb8", shape=[4, 6, 3])
    with pytest.raises(MessageError, match=said) as caught:
        decode(source, message)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


def test_an_encoding_with_escapes_is_quoted_and_cut():
    source = stream(encoding="rgb8", shape=[4, 6, 3])
    with pytest.raises(MessageError) as caught:
        decode(source, image("\x1b[2J\n" * 1000, PIXELS))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"source_encoding": "32FC1"}, "source_encoding: expected one of .*'bgr8'"),
        ({"source_shape": [8, 12]}, "resize: expected one of .*area"),
        ({"source_shape": [8, 12, 3], "resize": "area"}, r"source_shape: expected \[height, width"),
        ({"crop": {"left": 0, "top": 0, "width": 6, "height": 4}}, "source_shape: expected the"),
        (
            {"source_shape": [8, 8], "crop": {"left": 3, "top": 0, "width": 6, "height": 4}},
            "crop: expected a part of 8x8 px",
        ),
        ({"resize": "bicubic"}, "resize: expected one of"),
        ({"source_encoding": "yuv422", "source_shape": [8, 13], "resize": "area"}, ".*even width"),
    ],
)
def test_unsound_keys_are_refused_when_the_file_is_read(keys, said):
    with pytest.raises(UserError, match=f"eye.yaml: streams.eye.{said}"):
        stream(encoding="rgb8", shape=[4, 6, 3], **keys)


def test_depth_is_never_averaged():
    with pytest.raises(UserError, match="resize: expected nearest"):
        stream(encoding="32FC1", shape=[4, 6], source_shape=[8, 12], resize="area")
    with pytest.raises(UserError, match="source_encoding: expected an encoding that a JPEG"):
        stream("CompressedImage", encoding="rgb8", shape=[4, 6, 3], source_encoding="yuv422")
