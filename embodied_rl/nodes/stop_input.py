"""Emergency stops: heard from every kind of publisher, and handed on to the robot's own stop."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from embodied_rl.core.embodiment import Embodiment, StopService
from embodied_rl.core.errors import UserError
from embodied_rl.nodes import qos

CALLED = "called"  # and not answered yet


class StopInput:
    """The topic ``emergency_stop`` and the service ``~/emergency_stop``.

    A best-effort subscription hears every publisher. :meth:`match` adds a reliable and a latched
    one where publishers offer so much: what is lost on the way is then sent again, and what was
    said before this node was there is heard. A message may come several times; a stop that is in
    force is not changed by another one.

    Args:
        stop: called with whether the robot is to be stopped or released.
        refuse: called with why a release was not heard.
        state: what the service answers with.
    """

    TOPIC = "emergency_stop"

    def __init__(
        self,
        node: Node,
        stop: Callable[[bool], None],
        refuse: Callable[[str], None],
        state: Callable[[], str],
    ):
        self._node, self._stop, self._refuse, self._state = node, stop, refuse, state
        self.stopped = False
        self._by_service = False  # only the service releases the stop that is in force
        self.subscription = self._subscribe(qos.best_effort(10))
        # Waiting to be asked for: a subscription that asks for more than a publisher offers is
        # warned of at both ends.
        self._better = {"reliable": qos.COMMANDS, "latched": qos.LATCHED}
        node.create_service(SetBool, "~/emergency_stop", self._on_service)

    def _subscribe(self, profile: QoSProfile) -> Subscription:
        return self._node.create_subscription(Bool, self.TOPIC, self._on_topic, profile)

    def match(self) -> None:
        """Subscribe the better ways too, once a publisher offers them."""
        if not self._better or not self._node.count_publishers(self.TOPIC):
            return
        topic = self.subscription.topic_name
        for offer in self._node.get_publishers_info_by_topic(topic):
            if offer.qos_profile.reliability != ReliabilityPolicy.RELIABLE:
                continue
            latched = offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for kind in ("reliable", *(["latched"] if latched else [])):
                if kind in self._better:
                    self._subscribe(self._better.pop(kind))

    def _on_topic(self, message: Bool) -> None:
        shared = self._node.count_publishers(self.TOPIC) > 1
        if message.data and not self.stopped:
            self._by_service = False
        # With several buttons on one topic, one that is not pressed must not release another's
        # stop, nor one that was asked for by the service.
        self._by_service |= shared and (self.stopped or message.data)
        if self.stopped and not message.data and self._by_service:
            self._refuse(
                f"{self.TOPIC}: not released: the stop came by the service, or several nodes "
                "publish on this topic; use the service command_gate_node/emergency_stop "
                "(embodied_rl stop --release)"
            )
            return
        self._set(message.data)

    def _on_service(self, request, response):
        self._by_service |= request.data
        self._set(request.data)
        response.success, response.message = True, self._state()
        return response

    def _set(self, wanted: bool) -> None:
        if wanted == self.stopped:
            return
        self.stopped = wanted
        if not wanted:
            self._by_service = False
        self._stop(wanted)


class OwnStop:
    """The robot's own stop: services of the embodiment file, called with an emergency stop.

    Raises:
        UserError: a service's type is not installed, or its request has other fields.
    """

    AGAIN_S = 1.0  # a service that was not there, or refused, is called again after so long

    def __init__(self, node: Node, embodiment: Embodiment):
        self._node = node
        self._clients = [
            (entry, node.create_client(kind, entry.service), _request(embodiment, entry, kind))
            for entry in embodiment.stop_services
            for kind in [_service_type(embodiment, entry)]
        ]
        self._done = [True] * len(self._clients)
        self._asked_s = [float("-inf")] * len(self._clients)
        self.results = {entry.service: "" for entry in embodiment.stop_services}

    def begin(self) -> None:
        """An emergency stop comes into force."""
        self._done = [False] * len(self._clients)
        self._asked_s = [float("-inf")] * len(self._clients)

    def end(self) -> None:
        self._done = [True] * len(self._clients)

    def call(self, now_s: float) -> None:
        """Call what has not answered with success yet; to be called again and again."""
        for place, (entry, client, request) in enumerate(self._clients):
            if self._done[place] or now_s - self._asked_s[place] < self.AGAIN_S:
                continue
            self._asked_s[place] = now_s
            if self.results[entry.service] == CALLED:
                self.results[entry.service] = "no answer"
                continue
            if not client.service_is_ready():
                self.results[entry.service] = "no such service"
                continue
            self.results[entry.service] = CALLED
            future = client.call_async(request)
            future.add_done_callback(
                lambda done, place=place, name=entry.service: self._answered(place, name, done)
            )

    def _answered(self, place: int, name: str, future: Any) -> None:
        answer = future.result()
        good = bool(getattr(answer, "success", getattr(answer, "ok", True)))
        self.results[name] = "done" if good else f"refused: {getattr(answer, 'message', '')}"
        self._done[place] = self._done[place] or good

    @property
    def trouble(self) -> str:
        """The first service that has not stopped the robot although it was called."""
        for (entry, _, _), done in zip(self._clients, self._done):
            if not done and self.results[entry.service] not in ("", CALLED):
                return f"{entry.service}: {self.results[entry.service]}"
        return ""


def _service_type(embodiment: Embodiment, entry: StopService) -> type:
    package, _, name = entry.type.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.srv"), name)
    except (ImportError, AttributeError):
        raise UserError(
            f"{embodiment.origin}: stop_services: {entry.service}: expected an installed service "
            f"type, saw {entry.type}: install the package {package}"
        ) from None


def _request(embodiment: Embodiment, entry: StopService, kind: Any) -> Any:
    request = kind.Request()
    known = request.get_fields_and_field_types()
    for name, value in entry.request.items():
        try:
            if name not in known:
                raise ValueError(f"its fields are {sorted(known)}")
            if "sequence" in known[name] and not isinstance(value, list):
                raise ValueError("a list is needed")
            setattr(request, name, type(getattr(request, name))(value))
        except (AssertionError, TypeError, ValueError) as error:
            raise UserError(
                f"{embodiment.origin}: stop_services: {entry.service}: request: {name}: expected "
                f"{known.get(name, 'a field of ' + entry.type)}, saw {value!r}; {error}"
            ) from None
    return request
