"""Gate of a bring-up: waits for the simulator's clock, activates one lifecycle node, exits.

Parameters:
    target: name of the lifecycle node to configure and activate, relative to the namespace; empty:
        only the clock is waited for.
    timeout_s: time for all of it, wall clock; 0: as long as it takes. A simulation is not in a
        hurry: what is waited for is told now and then; when a node dies the bring-up ends all.
    use_sim_time: wait for ``/clock`` first.

Exit code 0 when all of it happened; otherwise one line says what did not, and the exit code is 1.
"""

from __future__ import annotations

import sys
import time

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from embodied_rl.core.errors import UserError
from embodied_rl.nodes.patience import Patience
from embodied_rl.nodes.process import Stop, parameter, run

INTERRUPTED = 130

ACTIVATION_PATIENCE_S = 15.0  # streams come late and in bursts while a busy machine starts nodes
# Without a limit patience is measured in simulated time: as long as the simulator does not get to
# publish, nothing can be said about its streams.
SIMULATED_PATIENCE_S = 60.0
_STEPS = (
    (Transition.TRANSITION_CONFIGURE, "configure", State.PRIMARY_STATE_UNCONFIGURED),
    (Transition.TRANSITION_ACTIVATE, "activate", State.PRIMARY_STATE_INACTIVE),
)

_IN_TRANSITION = (State.TRANSITION_STATE_CONFIGURING, State.TRANSITION_STATE_ACTIVATING)


class Interrupted(Exception):
    """SIGINT or SIGTERM came before the work was done."""


class LifecycleGate(Node):
    """Waits and asks; :meth:`run` is the whole life of the node."""

    def __init__(self, stop: Stop) -> None:
        super().__init__("lifecycle_node")
        self._stop = stop
        self._target = parameter(
            self, "target", "", "lifecycle node to activate; empty: clock only"
        )
        timeout_s = parameter(self, "timeout_s", 120.0, "for all of it, wall clock; 0: no limit")
        self._patience = Patience(self, timeout_s or None)
        self._clock_s = 0.0  # of the simulation, so far
        self._simulated = self.get_parameter("use_sim_time").value
        if self._simulated:
            # Its own clock stays the wall clock: deadlines must pass when no /clock comes.
            self.set_parameters([Parameter("use_sim_time", value=False)])
        self._endless = self._simulated and not timeout_s
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def run(self) -> str:
        """Returns one line that says what was done.

        Raises:
            UserError: what did not happen in time or was refused.
        """
        if self._simulated:
            self._wait_for_clock()
        if not self._target:
            return "clock is running"
        change = self._service(ChangeState, "change_state")
        state = self._service(GetState, "get_state")
        for transition, name, start in _STEPS:
            self._step(change, state, transition, name, start)
        return f"{self._target} is active"

    def _wait_for_clock(self) -> None:
        heard: list[None] = []

        def on_clock(message: Clock) -> None:
            heard[:] = [None]
            self._clock_s = message.clock.sec + message.clock.nanosec / 1e9

        # best effort matches whatever the publisher offers
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscription = self.create_subscription(Clock, "/clock", on_clock, qos)
        topic = subscription.topic_name
        while not heard:
            self._spin(f"is the simulator running? no message on {topic}")
        if not self._endless:
            self.destroy_subscription(subscription)

    def _service(self, kind: type, name: str) -> Client:
        client = self.create_client(kind, f"{self._target}/{name}")
        while not client.service_is_ready():
            self._spin(
                f"is {self._target} a lifecycle node, and running? it offers no service "
                f"{client.srv_name}"
            )
        return client

    def _step(self, change: Client, state: Client, transition: int, name: str, start: int) -> None:
        """Asks for one transition, unless a former run has brought the node past it."""
        current = self._state(state)
        if current.id == State.PRIMARY_STATE_ACTIVE or (
            name == "configure" and current.id == State.PRIMARY_STATE_INACTIVE
        ):
            return
        if current.id != start:
            raise UserError(f"{self._target} cannot {name}: it is in state '{current.label}'")
        # A policy refuses until it has measured the rates of its streams, so activation is tried
        # for a while before the refusal counts.
        limit_s = SIMULATED_PATIENCE_S if self._endless else ACTIVATION_PATIENCE_S
        patience_s = self._now_s() + (limit_s if name == "activate" else 0.0)
        request = ChangeState.Request()
        request.transition.id = transition
        while True:
            if self._change(change, state, request, name, start):
                return
            if self._now_s() >= patience_s:
                raise UserError(f"{self._target} refused to {name}; its own log says why")
            again_s = time.monotonic() + 0.25
            while time.monotonic() < again_s:
                self._spin(f"{self._target} did not {name}")

    def _change(self, change: Client, state: Client, request, name: str, start: int) -> bool:
        """One attempt; whether the node has left the state ``start``.

        An answer can be lost on a busy machine, so a silent node is asked for its state.
        """
        future, asked_s = change.call_async(request), time.monotonic()
        while not future.done():
            self._spin(f"{self._target} did not {name}")
            if time.monotonic() > asked_s + 5.0:
                asked_s = time.monotonic()
                if self._state(state).id not in (start, *_IN_TRANSITION):
                    change.remove_pending_request(future)
                    return True
        return bool(future.result().success)

    def _state(self, client: Client) -> State:
        """The node's state. Asked again every 2 s: a service may be seen before its answers can be
        received, and the answer of that moment is lost."""
        while True:
            future, asked_s = client.call_async(GetState.Request()), time.monotonic()
            while not future.done() and time.monotonic() < asked_s + 2.0:
                self._spin(f"{self._target} did not tell its state")
            if future.done():
                return future.result().current_state
            client.remove_pending_request(future)

    def _now_s(self) -> float:
        return self._clock_s if self._endless else time.monotonic()

    def _spin(self, problem: str) -> None:
        """Handles what arrived in the next moment; UserError with `problem` past the deadline."""
        if self._stop:
            raise Interrupted
        self._patience.check(problem)
        self._executor.spin_once(timeout_sec=0.05)


def _work(node: LifecycleGate, stop: Stop) -> None:
    try:
        node.get_logger().info(node.run())
    except Interrupted:
        stop.set(INTERRUPTED)


def main() -> int:
    """Entry point; returns the exit code."""
    return run(LifecycleGate, _work)


if __name__ == "__main__":
    sys.exit(main())
