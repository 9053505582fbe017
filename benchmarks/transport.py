"""Delivered share and latency of camera frames between two processes, with and without the profile.

640x480 rgb8 at 30 Hz, reliable. Latency runs from before the message is built to the subscriber's
callback. The rival arm is best effort (ROS's sensor QoS) on the default transport, without the
shared-memory profile that the bring-up sets.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _report import report

from embodied_rl.bringup.environment import (
    PROFILE,
    child_environment,
    private_domain,
    profile_variable,
    require_ros,
    share_file,
)

WIDTH, HEIGHT, RATE_HZ = 640, 480, 30
TARGETS = {"delivered": (">=", 1.0), "latency_p50_ms": ("<=", 5.0)}


@dataclass(frozen=True)
class Arguments:
    """Camera transport between two processes."""

    seconds: float = 30.0
    json: Path | None = None


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench transport")
    require_ros()
    ours = _measure(arguments.seconds, profile=True)
    rival = _measure(min(arguments.seconds, 10.0), profile=False)
    figures = {**ours, **{f"without_profile.{key}": value for key, value in rival.items()}}
    return report("transport", figures, TARGETS, arguments.json)


def _measure(seconds: float, profile: bool) -> dict[str, float]:
    """Start both ends and return the subscriber's figures."""
    environment = child_environment({})
    environment.pop("FASTRTPS_DEFAULT_PROFILES_FILE", None)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment["ROS_DOMAIN_ID"] = str(private_domain())
    if profile:
        environment[profile_variable()] = str(share_file(PROFILE))
    command = [sys.executable, __file__, str(seconds), str(int(profile))]
    publisher = subprocess.Popen([*command, "publish"], env=environment)
    try:
        subscriber = subprocess.run(
            [*command, "subscribe"],
            env=environment,
            stdout=subprocess.PIPE,
            timeout=seconds + 60,
            check=True,
        )
    finally:
        publisher.kill()
        publisher.wait()
    return json.loads(subscriber.stdout)


def _node(role: str, reliable: bool):
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data

    from embodied_rl.core.embodiment import IMAGE
    from embodied_rl.nodes import qos

    rclpy.init()
    return rclpy, Node(role), qos.stream(IMAGE) if reliable else qos_profile_sensor_data


def _publish(seconds: float, reliable: bool) -> None:
    """Frames at 30 Hz from the moment a subscriber is there; each carries number and time."""
    rclpy, node, quality = _node("transport_publisher", reliable)
    from sensor_msgs.msg import Image

    from embodied_rl.nodes.messages import bytes_of, time_message

    publisher = node.create_publisher(Image, "image", quality)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    time.sleep(1.0)  # the subscriber's side of the match
    begin_s = time.monotonic()
    for number in range(round(seconds * RATE_HZ)):
        time.sleep(max(0.0, begin_s + number / RATE_HZ - time.monotonic()))
        stamp = time_message(time.time_ns())
        message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
        message.header.stamp, message.header.frame_id = stamp, str(number)
        message.data = bytes_of(pixels)
        publisher.publish(message)
    time.sleep(30.0)  # until the subscriber has drained its queue and we are killed


def _subscribe(seconds: float, reliable: bool) -> None:
    rclpy, node, quality = _node("transport_subscriber", reliable)
    from sensor_msgs.msg import Image

    from embodied_rl.core.decode import stamp_ns

    latencies_ms: list[float] = []
    numbers: list[int] = []

    def on_image(message: Image) -> None:
        latencies_ms.append((time.time_ns() - stamp_ns(message.header)) / 1e6)
        numbers.append(int(message.header.frame_id))

    node.create_subscription(Image, "image", on_image, quality)
    expected = round(seconds * RATE_HZ)
    deadline_s = time.monotonic() + seconds + 20
    last_s = time.monotonic() + 15
    while time.monotonic() < deadline_s and not (numbers and numbers[-1] == expected - 1):
        before = len(numbers)
        rclpy.spin_once(node, timeout_sec=0.5)
        if len(numbers) > before:
            last_s = time.monotonic() + 3
        elif time.monotonic() > last_s:
            break
    p50, p95 = np.percentile(latencies_ms, [50, 95]) if latencies_ms else (np.nan, np.nan)
    figures = {
        "delivered": len(set(numbers)) / expected,
        "frames": float(len(numbers)),
        "latency_p50_ms": float(p50),
        "latency_p95_ms": float(p95),
        "latency_max_ms": float(max(latencies_ms, default=np.nan)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    end = _publish if sys.argv[3] == "publish" else _subscribe
    end(float(sys.argv[1]), sys.argv[2] == "1")
