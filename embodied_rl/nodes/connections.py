"""Whether those who publish what a node subscribes to know of it, before anything depends on that.

Both ends of a topic find each other in their own time, on a busy machine hundreds of milliseconds
apart. The middleware's matched count tells a subscription about its own end; the publisher, as long
as it has not found the subscription, sends it nothing, and what is published then is lost. So the
other end has to be heard. Every long-lived node of this project reports on ``/diagnostics`` once a
second. The subscription to it is announced after all others of this process, and announcements of
one process are taken in order: a node that is heard there has found the others before.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from embodied_rl.nodes import qos
from embodied_rl.nodes.compat import matched_publishers

# Publishers are not found at once; after this a topic without one has been left out on purpose.
# Fast DDS announces a process every 3 s once its first announcements have gone by, perhaps unheard.
DISCOVERY_S = 4.0
# A foreign node may report under any name; it is not waited for longer than this.
REPORT_PATIENCE_S = 5.0
_UNKNOWN_NAME = "_NODE_NAME_UNKNOWN_"  # what the middleware says meanwhile
_PROCESS_BYTES = 12  # of a DDS identifier: the participant; the rest is the endpoint


SHARED_MEMORY = Path("/dev/shm")


def silence_hint(publishers: int, folder: Path = SHARED_MEMORY) -> str:
    """Why a topic that has publishers may be silent, as the end of a line; "" without a reason.

    Processes of one machine hand each other messages through shared memory, and cannot open that
    of another user: both find each other, and nothing arrives.
    """
    if not publishers:
        return ""
    owners = set()
    for path in folder.glob("fast*_el"):
        with contextlib.suppress(OSError):  # gone meanwhile
            owners.add(path.stat().st_uid)
    others = sorted(owners - {os.getuid()})
    if not others:
        return ""
    return (
        f"; {publishers} publishers were found, and processes of another user (uid "
        f"{', '.join(map(str, others))}) use this machine's shared memory, which hands nothing "
        "from user to user: run both as the same user"
    )


class Connections:
    """Made after every subscription that it is asked about."""

    def __init__(self, node: Node):
        self._node = node
        self._reports = node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_report, qos.DIAGNOSTICS
        )
        self._heard: set[str] = set()
        self._first_seen_s: dict[str, float] = {}

    def destroy(self) -> None:
        self._node.destroy_subscription(self._reports)

    def _on_report(self, message: DiagnosticArray) -> None:
        # our own convention, and that of diagnostic_updater: "node: what is looked after"
        self._heard |= {status.name.lstrip("/").split(":")[0] for status in message.status}

    def take_reports(self) -> None:
        """Handle the reports that wait, for a caller that keeps the executor from doing so."""
        while True:
            with self._reports.handle:
                found = self._reports.handle.take_message(self._reports.msg_type, False)
            if found is None:
                return
            self._on_report(found[0])

    def missing(
        self, subscriptions: Iterable[Subscription], needed: Iterable[Subscription] = ()
    ) -> list[str]:
        """One line a topic that has a publisher which is not connected at both ends.

        Args:
            needed: those of the subscriptions that are of no use without a publisher. On a busy
                machine neither end may have found the other yet, which looks like none.
        """
        needed = set(needed)
        reporters = {_name(info) for info in self._publishers("/diagnostics")}
        lines = []
        for subscription in subscriptions:
            publishers = self._publishers(subscription.topic_name)
            matched = matched_publishers(subscription, len(publishers))
            if subscription in needed and not publishers:
                lines.append(f"{subscription.topic_name}: no publisher yet")
                continue
            if matched < len(publishers):
                lines.append(_unmatched(subscription, publishers, matched))
                continue
            unheard = sorted(self._unheard({_name(info) for info in publishers} & reporters))
            if unheard:
                lines.append(f"{subscription.topic_name}: no report of {', '.join(unheard)} yet")
        return lines

    def _publishers(self, topic: str) -> list[TopicEndpointInfo]:
        return self._node.get_publishers_info_by_topic(topic)

    def _unheard(self, names: set[str]) -> set[str]:
        now_s = time.monotonic()
        waiting = set()
        for name in names - self._heard:
            if now_s - self._first_seen_s.setdefault(name, now_s) < REPORT_PATIENCE_S:
                waiting.add(name)
                continue
            self._heard.add(name)
            self._node.get_logger().warning(
                f"/diagnostics: expected a report under the name {name}, saw none within "
                f"{REPORT_PATIENCE_S:g} s: its first messages may be missed"
            )
        return waiting


def _name(info: TopicEndpointInfo) -> str:
    """Of the endpoint's node. An endpoint can be known before the name of its node, which then is
    called by its process's part of the global identifier."""
    if info.node_name == _UNKNOWN_NAME:
        return f"a node without a name yet ({bytes(info.endpoint_gid)[:_PROCESS_BYTES].hex()})"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}".lstrip("/")


def _unmatched(
    subscription: Subscription, publishers: list[TopicEndpointInfo], matched: int
) -> str:
    """Says why, where type or quality of service do."""
    line = f"{subscription.topic_name}: {matched} of {len(publishers)} publishers connected"
    kind = subscription.msg_type
    wanted = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
    for info in publishers:
        if info.topic_type != wanted:
            return f"{line}; expected {wanted}, saw {info.topic_type} of {_name(info)}"
        fit, reason = qos_check_compatible(info.qos_profile, subscription.qos_profile)
        if fit == QoSCompatibility.ERROR:
            return f"{line}; {_name(info)}: {reason.strip()}"
    return line
