"""Records one rosbag2 bag an episode, from serialised messages, without decoding them.

``~/start`` opens a bag, ``~/stop`` closes it; the topics are those of the embodiment file and of
the episode. The subscriptions are there from start-up on, and ``~/start`` waits until every topic
that has a publisher is connected at both ends, so a bag misses nothing of its start. It is named
``.partial`` until it is closed; what ``kill -9`` leaves is readable up to the last second. A full
disk closes the bag as far as it is written and ends the node with an error.
"""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_rl.bags import topics as names
from embodied_rl.bags.metadata import DURABILITY, HISTORY, RELIABILITY, Qos
from embodied_rl.bags.write import PARTIAL, BagWriter
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.nodes import diagnostics, messages, qos, static_frames
from embodied_rl.nodes.connections import DISCOVERY_S, Connections
from embodied_rl.nodes.process import Stop, parameter, run
from embodied_rl.nodes.subscriber import Subscriber

QUIET_S = 0.05  # a stop waits until nothing has come in for this long
DRAIN_LIMIT_S = 5.0
SILENT_S = 2.0
RATE_WINDOW_S = 2.0  # of the rates in the diagnostics; they show up to 200 Hz
LATCHED = (names.INSTRUCTION, names.EPISODE_START, names.EPISODE_OUTCOME)


@dataclass
class Topic:
    """One recorded topic: relative ``name``, name in the bag, type, subscriber."""

    name: str
    recorded: str
    kind: str
    subscriber: Subscriber | None = None
    count: int = 0  # in the open bag
    declared: bool = False  # in the open bag
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=400))  # steady clock

    def rate_hz(self) -> float:
        """Messages a second over the last two seconds."""
        since_s = time.monotonic() - RATE_WINDOW_S
        return sum(arrival_s > since_s for arrival_s in self.arrivals_s) / RATE_WINDOW_S


class RecorderNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("recorder_node")
        self._stop = stop
        path = parameter(self, "embodiment", "", "embodiment file: which topics to record")
        self._out = Path(parameter(self, "out", "runs/bags", "folder of the bags"))
        self._text = parameter(self, "instruction", "", "the task in words, written into each bag")
        self._connect_s = parameter(
            self, "connect_timeout_s", 10.0, "how long a start waits for its topics to connect"
        )
        self.embodiment = Embodiment.load(path)
        self._writer: BagWriter | None = None
        self._failure = ""
        self._opened_s = 0.0
        self._opened_ns = 0
        self._started = False  # the open bag holds its episode/start
        self._last_instruction: bytes | None = None
        # Transforms that stay come once, and every bag needs them.
        self._static: dict[str, list[bytes]] = {t: [] for t in self.embodiment.static_topics()}
        self._topics = {name: self._topic(name, kind) for name, kind in self._kinds().items()}
        for topic in self._topics.values():
            self._subscribe(topic)
        self._connections = Connections(self)
        self._born_s = time.monotonic()
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/discard", self._on_discard)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._on_second, clock=steady)
        self._diagnostics = diagnostics.Diagnostics(self, self._status)
        self.get_logger().info(f"recorder ready: {len(self._topics)} topics, bags in {self._out}")

    # ---------------------------------------------------------------- topics
    def _kinds(self) -> dict[str, str]:
        """Relative topic -> message type."""
        kinds = {topic: streams[0].type for topic, streams in self.embodiment.topics().items()}
        kinds |= self.embodiment.command_topics() | self.embodiment.static_topics()
        kinds |= names.EPISODE_TOPICS
        kinds.pop(names.EMBODIMENT)  # written by this node itself
        return kinds

    def _topic(self, name: str, kind: str) -> Topic:
        return Topic(name, self._recorded_name(name), kind)

    def _recorded_name(self, name: str) -> str:
        # Not the remapped name: in the bag the topics are those of the embodiment file.
        return f"{self.get_namespace().rstrip('/')}/{name}"

    def _subscribe(self, topic: Topic) -> None:
        topic.subscriber = Subscriber(
            self,
            messages.message_class(topic.kind),
            topic.name,
            lambda data: self._on_message(topic, data),
            self._quality(topic),
            raw=True,
        )

    def _quality(self, topic: Topic) -> QoSProfile:
        if topic.name in self._static:
            return qos.latched(static_frames.DEPTH)
        return qos.LATCHED if topic.name in LATCHED else qos.recording(topic.kind)

    def _match_publishers(self) -> None:
        for topic in self._topics.values():
            if topic.subscriber is not None:
                topic.subscriber.match()

    def _lost(self) -> int:
        """Messages that the middleware had to drop since start-up."""
        return sum(topic.subscriber.lost for topic in self._topics.values() if topic.subscriber)

    def _offered(self, topic: Topic) -> list[Qos]:
        """The QoS that the topic's publishers offer, for whoever plays the bag."""
        assert topic.subscriber is not None
        name = topic.subscriber.subscription.topic_name
        found = []
        for info in self.get_publishers_info_by_topic(name):
            profile = info.qos_profile
            values = (
                profile.history.name.lower(),
                profile.reliability.name.lower(),
                profile.durability.name.lower(),
            )
            if values[0] in HISTORY and values[1] in RELIABILITY and values[2] in DURABILITY:
                found.append(Qos(profile.depth, values[1], values[2], values[0]))
        return found

    # ---------------------------------------------------------------- messages
    def _on_message(self, topic: Topic, data: bytes) -> None:
        topic.arrivals_s.append(time.monotonic())
        if topic.name == names.INSTRUCTION:
            self._last_instruction = data
        kept = self._static.get(topic.name)
        if kept is not None and data not in kept:
            self._static[topic.name] = [*kept, data][-static_frames.DEPTH :]
        if topic.name == names.EPISODE_OUTCOME:
            # The executor takes one message a topic in turn, so an outcome overtakes the samples
            # that wait; a reader of the bag ends the episode at the outcome and would lose them.
            self._take_waiting()
        if self._writer is None or not self._belongs(topic, data):
            return
        if not topic.declared:
            self._declare(self._writer, topic, self._offered(topic))
        topic.count += 1
        self._write(topic.recorded, data)

    def _belongs(self, topic: Topic, data: bytes) -> bool:
        """Whether a message is of the episode in the open bag, not latched from the one before."""
        if topic.name == names.EPISODE_START:
            try:
                text = deserialize_message(data, String).data
                info = EpisodeInfo.from_yaml(text, names.EPISODE_START)
            except UserError as error:
                self.get_logger().error(str(error))
                return True
            self._started = self._started or info.start_ns >= self._opened_ns
            return info.start_ns >= self._opened_ns
        if topic.name == names.EPISODE_OUTCOME and not self._started:
            # on a robot nobody announces episodes; then every outcome counts
            return self.count_publishers(names.EPISODE_START) == 0
        return True

    def _declare(self, writer: BagWriter, topic: Topic, offered: list[Qos]) -> None:
        writer.add_topic(topic.recorded, topic.kind, offered)
        topic.declared = True

    def _write(self, recorded: str, data: bytes) -> None:
        assert self._writer is not None
        try:
            self._writer.write(recorded, messages.now_ns(self), data)
        except UserError as error:
            self._fail(error)

    # ---------------------------------------------------------------- services
    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = False
        if self._writer is not None:
            response.message = f"{self._writer.folder} is being recorded; call stop first"
            return response
        try:
            self._wait_until_connected()
            self._take_waiting()  # what waits belongs to the time before
            self._open()
        except UserError as error:
            response.message = str(error)
            self.get_logger().error(response.message)
            return response
        assert self._writer is not None
        response.success, response.message = True, str(self._writer.folder)
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = False
        if self._writer is None:
            response.message = self._failure or "nothing is being recorded"
            return response
        self._drain()
        if self._writer is None:  # the disk filled up meanwhile
            response.message = self._failure
            return response
        try:
            response.message = self._finish()
            response.success = True
        except UserError as error:
            self._fail(error)
            response.message = self._failure
        return response

    def _on_discard(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Throw the open bag away, of an episode that went wrong."""
        if self._writer is None:
            response.success, response.message = False, "nothing is being recorded"
            return response
        writer, self._writer = self._writer, None
        try:
            writer.discard()
            response.success, response.message = True, str(writer.folder)
        except UserError as error:
            response.success, response.message = False, str(error)
        return response

    def _wait_until_connected(self) -> None:
        """Raises UserError naming the topics that are not, after a while."""
        begun_s = time.monotonic()
        while lines := self._unconnected():
            if self._stop or time.monotonic() > begun_s + self._connect_s:
                raise UserError(
                    f"not connected within {self._connect_s:g} s, a bag would lack what is sent "
                    f"meanwhile: {'; '.join(lines)}"
                )
            # Its own callbacks have to wait for this one.
            self._take_waiting()
            self._connections.take_reports()
            self._match_publishers()
            time.sleep(0.02)

    def _unconnected(self) -> list[str]:
        """One line a topic that is not connected; early on also those that nobody publishes yet."""
        lines = self._connections.missing(
            topic.subscriber.subscription for topic in self._topics.values() if topic.subscriber
        )
        if time.monotonic() < self._born_s + DISCOVERY_S:
            declared = [*self.embodiment.topics(), *self.embodiment.command_topics()]
            lines += [f"{topic}: no publisher" for topic in declared if not self._published(topic)]
        return lines

    def _published(self, name: str) -> bool:
        return self.count_publishers(name) > 0

    def _open(self) -> None:
        folder = self._out / f"episode_{self._next_number():06d}"
        writer = BagWriter(folder)
        latched = [Qos(1, durability="transient_local")]
        writer.add_topic(self._recorded_name(names.EMBODIMENT), names.STRING, latched)
        # A topic that nobody publishes is left out of the bag until somebody does: a camera that
        # is switched off is no stream that fell silent, and `bags check` tells the two apart.
        for topic in self._topics.values():
            topic.count, topic.declared = 0, False
            offered = self._offered(topic)
            if offered or topic.name == names.INSTRUCTION:
                self._declare(writer, topic, offered)
        self._opened_ns, self._opened_s = messages.now_ns(self), time.monotonic()
        self._started, self._failure = False, ""
        self._writer = writer
        text = serialize_message(String(data=self.embodiment.text))
        self._write(self._recorded_name(names.EMBODIMENT), text)
        instruction = self._last_instruction
        if self._text:
            instruction = serialize_message(String(data=self._text))
        if instruction is not None and self._writer is not None:
            self._write(self._recorded_name(names.INSTRUCTION), instruction)
        for name, kept in self._static.items():
            if kept and not self._topics[name].declared and self._writer is not None:
                self._declare(self._writer, self._topics[name], latched)
            for data in kept:
                if self._writer is not None:
                    self._write(self._recorded_name(name), data)
        if self._writer is None:
            raise UserError(self._failure)

    def _next_number(self) -> int:
        pattern = re.compile(rf"episode_(\d+)(?:{re.escape(PARTIAL)})?")
        found = self._out.iterdir() if self._out.is_dir() else ()
        numbers = [int(m.group(1)) for path in found if (m := pattern.fullmatch(path.name))]
        return max(numbers, default=-1) + 1

    def _finish(self) -> str:
        """Close the bag; returns where it is and what is in it, as YAML.

        Raises:
            UserError: it could not be closed, or not whole.
        """
        assert self._writer is not None
        writer, self._writer = self._writer, None
        folder = writer.close()
        if writer.full:
            raise UserError(f"{folder}: disk full; the bag is closed as far as written")
        prefix = len(self._recorded_name(""))
        answer = {
            "path": str(folder),
            "size": writer.size,
            "counts": {name[prefix:]: count for name, count in writer.counts().items() if count},
            "streams": list(self.embodiment.topics()),
            "lost": self._lost(),
        }
        return str(yaml.safe_dump(answer, sort_keys=False))

    def _take_waiting(self) -> int:
        """Handle what has arrived but was not dispatched yet; how many messages that was."""
        return sum(t.subscriber.take_waiting() for t in self._topics.values() if t.subscriber)

    def _drain(self) -> None:
        """Take in what is under way: until nothing has come for a moment."""
        limit_s = time.monotonic() + DRAIN_LIMIT_S
        quiet_s = time.monotonic() + QUIET_S
        while time.monotonic() < min(quiet_s, limit_s) and self._writer is not None:
            if self._take_waiting():
                quiet_s = time.monotonic() + QUIET_S
            else:
                time.sleep(0.002)

    # ---------------------------------------------------------------- state
    def _on_second(self) -> None:
        self._match_publishers()
        if self._writer is not None:
            try:
                self._writer.flush()
            except UserError as error:
                self._fail(error)

    def _fail(self, error: UserError) -> None:
        """Save what can be saved, say so once, and end with an error."""
        self._failure = str(error)
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except UserError as second:
                self._failure = str(second)
        self.get_logger().fatal(self._failure)
        self._diagnostics.publish()
        self._stop.set(1)

    def _status(self) -> diagnostics.Status:
        lost = self._lost()
        figures: dict[str, object] = {
            f"{topic.name}.count": topic.count for topic in self._topics.values()
        }
        figures |= {
            f"{name}.rate_hz": round(self._topics[name].rate_hz(), 1)
            for name in self.embodiment.topics()
        }
        commands = self.embodiment.command_topics()
        figures["actions"] = sum(self._topics[name].count for name in commands)
        figures["lost"] = lost
        if self._failure:
            return diagnostics.ERROR, self._failure, figures
        if self._writer is None:
            return diagnostics.OK, "not recording", figures
        figures["bytes"] = self._writer.size
        silent = self._silent()
        if lost or silent:
            text = f"{lost} messages lost; no message on {silent}"
            return diagnostics.WARN, text, figures
        return diagnostics.OK, f"recording {self._writer.folder.name}", figures

    def _silent(self) -> list[str]:
        """Streams that somebody publishes but of which nothing has come."""
        if time.monotonic() - self._opened_s < SILENT_S:
            return []
        return [
            name
            for name in self.embodiment.topics()
            if not self._topics[name].count and self._published(name)
        ]

    def close(self) -> None:
        """Called at the end of the process: a bag that is open is closed properly."""
        if self._writer is None:
            return
        self._drain()
        if self._writer is not None:
            folder = self._writer.folder
            self._finish()
            self.get_logger().info(f"closed {folder}")


def main() -> int:
    return run(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())
