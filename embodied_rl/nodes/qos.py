"""Quality of service, chosen once.

Everything is reliable: on the default transport best effort loses most of the camera frames, and
a policy cannot act on what it never got. Depths bound the memory and are larger where a recorder
may briefly lag.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from embodied_rl.core.message_types import IMAGE_TYPES, POINT_CLOUD

LARGE = (*IMAGE_TYPES, POINT_CLOUD)


def reliable(depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE
    )


def best_effort(depth: int) -> QoSProfile:
    """Hears every publisher, but what is lost on the way is not sent again."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT
    )


def stream(message_type: str) -> QoSProfile:
    """Sensor streams: 5 images or clouds, or 100 of the small messages."""
    return reliable(5 if message_type in LARGE else 100)


def patient_stream(message_type: str) -> QoSProfile:
    """Of a process whose interpreter a plan may keep busy: no message may be lost meanwhile."""
    return reliable(60 if message_type in LARGE else 400)


def simulation(message_type: str) -> QoSProfile:
    """A simulator's side of a stream: in lockstep it runs as fast as policy and gate answer, and a
    recorder that nobody waits for may be seconds of its time behind."""
    return reliable(40 if message_type in LARGE else 2000)


def recording(message_type: str) -> QoSProfile:
    """The recorder's side of a stream: deep enough for a disk that stalls for seconds."""
    return reliable(100 if message_type in LARGE else 2000)


def latched(depth: int) -> QoSProfile:
    """Reliable, and the last ``depth`` messages also for whoever subscribes later."""
    profile = reliable(depth)
    profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


COMMANDS = reliable(10)
EXECUTED = reliable(1000)  # of the gate; as for simulation(), since recordings live by it
DIAGNOSTICS = reliable(10)
CLOCK = reliable(1)
LATCHED = latched(1)
