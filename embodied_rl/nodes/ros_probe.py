"""What ``embodied_rl doctor`` asks of ROS, each question in a process of its own.

    python -m embodied_rl.nodes.ros_probe node     a node starts; its middleware and shared memory
    python -m embodied_rl.nodes.ros_probe echo     sends every image back until it is ended
    python -m embodied_rl.nodes.ros_probe ping     round trips of a camera image to `echo`

Each prints one line of JSON; the numbers are judged by the doctor.
"""

from __future__ import annotations

import array
import json
import sys
import time
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

WIDTH, HEIGHT = 640, 480
ROUNDS = 30
DISCOVERY_S, ANSWER_S = 8.0, 1.0
_QOS = QoSProfile(depth=2)  # reliable, as the image topics of the graphs are


def node_facts() -> dict:
    """Starts a node; returns the middleware and the size of its shared-memory segment, bytes."""
    node = Node("doctor")
    # The segment is a file that the participant maps into this process.
    names = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    segments = [Path(name) for name in names if name.startswith("/dev/shm/fastrtps_")]
    sizes = [path.stat().st_size for path in segments if path.exists()]
    node.destroy_node()
    return {"rmw": rclpy.get_rmw_implementation_identifier(), "segment": max(sizes, default=0)}


def echo() -> None:
    """Sends every image back as it came."""
    node = Node("doctor_echo")
    publisher = node.create_publisher(Image, "doctor/pong", _QOS)
    node.create_subscription(Image, "doctor/ping", publisher.publish, _QOS)
    rclpy.spin(node)


def ping() -> dict:
    """Returns how many of `ROUNDS` images came back, and the median round trip in ms."""
    node = Node("doctor_ping")
    heard: list[str] = []
    publisher = node.create_publisher(Image, "doctor/ping", _QOS)
    node.create_subscription(Image, "doctor/pong", lambda m: heard.append(m.header.frame_id), _QOS)
    message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    message.data = array.array("B", bytes(3 * WIDTH * HEIGHT))

    # Discovery has two ends: the first answer is waited for, and its rounds are not counted.
    met_by = time.monotonic() + DISCOVERY_S
    while not heard and time.monotonic() < met_by:
        message.header.frame_id = "hello"
        publisher.publish(message)
        _spin(node, lambda: bool(heard), 0.2)
    if not heard:
        return {"sent": 0, "returned": 0, "p50_ms": None}
    times_ms = []
    for number in range(ROUNDS):
        message.header.frame_id = str(number)
        sent_s = time.perf_counter()
        publisher.publish(message)
        _spin(node, lambda want=str(number): want in heard, ANSWER_S)
        if str(number) in heard:
            times_ms.append(1e3 * (time.perf_counter() - sent_s))
    middle = sorted(times_ms)[len(times_ms) // 2] if times_ms else None
    return {"sent": ROUNDS, "returned": len(times_ms), "p50_ms": middle}


def _spin(node: Node, done, limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while not done() and time.monotonic() < until:
        rclpy.spin_once(node, timeout_sec=0.02)


def main() -> int:
    what = sys.argv[1]
    rclpy.init(args=[])
    try:
        if what == "echo":
            echo()
        else:
            print(json.dumps({"node": node_facts, "ping": ping}[what]()))
    except KeyboardInterrupt:
        return 0
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
