"""What a camera's pictures cost on their way into a stream: decoding, colours, crop and size.

Pictures of 640 x 480 px with structure and noise, as a camera's are; the time is that of
``core.decode.decode`` alone, by the median, without the transport that every message pays. Time
is the thread's own processor time, so that load from outside disturbs it little.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tyro
import yaml
from _report import report
from PIL import Image as Pillow

from embodied_rl.core.decode import decode
from embodied_rl.core.embodiment import Embodiment, Stream

HEIGHT, WIDTH = 480, 640
SQUARE = {"left": 80, "top": 0, "width": 480, "height": 480}
SMALL = {"source_shape": [HEIGHT, WIDTH], "crop": SQUARE, "resize": "area"}
TARGETS = {"jpeg_p50_ms": ("<=", 3.0), "jpeg_to_128_px_p50_ms": ("<=", 3.0)}


@dataclass(frozen=True)
class Arguments:
    """Milliseconds from a camera's message to the pixels that a policy sees."""

    rounds: int = 200
    """Pictures of each kind."""
    json: Path | None = None
    """Write the figures to this file."""


def stream(kind: str, encoding: str, **keys: Any) -> Stream:
    """A camera's stream with these keys."""
    camera = {"topic": "eye", "type": f"sensor_msgs/msg/{kind}", "encoding": encoding,
              "rate_hz": 30, "max_age_s": 0.3, **keys}  # fmt: skip
    grip = {"topic": "grip", "type": "std_msgs/msg/Float64", "joints": ["g"], "lower": [0],
            "upper": [1], "max_velocity": [1]}  # fmt: skip
    data = {"name": "eye", "control_rate_hz": 30, "streams": {"eye": camera},
            "commands": {"grip": grip}}  # fmt: skip
    return Embodiment.parse(yaml.safe_dump(data), "eye.yaml").streams["eye"]


def message(**fields: Any) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=1, nanosec=0)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id=""), **fields)


def image(encoding: str, pixels: np.ndarray) -> SimpleNamespace:
    return message(
        encoding=encoding, height=HEIGHT, width=WIDTH, step=pixels[0].nbytes, is_bigendian=0,
        data=pixels.tobytes(),
    )  # fmt: skip


def cases() -> dict[str, tuple[Stream, SimpleNamespace]]:
    """Name -> stream and the message that it reads."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    plain = np.stack([x / 3, y / 2 + 20 * np.sin(x / 15), (x + y) / 5], axis=-1)
    pixels = np.clip(plain + rng.normal(0, 5, plain.shape), 0, 255).astype(np.uint8)
    depth = rng.integers(300, 5000, (HEIGHT, WIDTH), dtype=np.uint16)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=90)
    jpeg = message(format="jpeg", data=file.getvalue())
    whole, square = [HEIGHT, WIDTH, 3], [128, 128, 3]
    colours = {"rgb8": pixels, "bgr8": pixels, "yuv422_yuy2": np.ascontiguousarray(pixels[..., 1:])}
    colours["bayer_rggb8"] = np.ascontiguousarray(pixels[..., 0])
    found = {
        name: (stream("Image", "rgb8", shape=whole, source_encoding=name), image(name, sent))
        for name, sent in colours.items()
    }
    found["jpeg"] = (stream("CompressedImage", "rgb8", shape=whole), jpeg)
    found["jpeg_to_128_px"] = (stream("CompressedImage", "rgb8", shape=square, **SMALL), jpeg)
    metres = stream("Image", "32FC1", shape=whole[:2], source_encoding="16UC1")
    found["millimetres_to_metres"] = (metres, image("16UC1", depth))
    return found


def main(argv: list[str]) -> int:
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl bench pictures", description=Arguments.__doc__
    )
    figures = {}
    for name, (camera, sent) in cases().items():
        times = []
        for _ in range(arguments.rounds):
            begin = time.thread_time()
            decode(camera, sent)
            times.append(time.thread_time() - begin)
        figures[f"{name}_p50_ms"] = float(np.median(times) * 1e3)
    return report("pictures", figures, TARGETS, arguments.json)
