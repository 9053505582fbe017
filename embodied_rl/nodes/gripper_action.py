"""A gripper that takes goals of an action instead of messages on a topic.

:class:`GripperAction` stands where :class:`embodied_rl.nodes.command_output.CommandOutput` has a
publisher. A target that comes with every control period becomes a goal only where it has moved, and
not too often: a gripper's server starts over with every goal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from embodied_rl.core.command_groups import Command
from embodied_rl.nodes import messages

Canceled = CancelGoal.Response


class GripperAction:
    """The client of one gripper. What has become of older goals than the newest is not looked at:
    a server ends them when a newer one comes.

    Args:
        now_s: a steady clock.

    Raises:
        UserError: the package of the action is not installed.
    """

    def __init__(self, node: Node, command: Command, now_s: Callable[[], float] = time.monotonic):
        assert command.goals is not None
        self._node, self._command, self._now_s = node, command, now_s
        self._dead_band, self._pause_s = command.goals.dead_band, 1 / command.goals.rate_hz
        kind = messages.message_class(command.type)
        self._client = ActionClient(node, kind, command.topic)
        self.topic_name = node.resolve_topic_name(command.topic)
        self.reason = ""  # what became of the newest goal, unless all is well
        self._wanted: Any = None  # newest goal that has not been sent
        self._sent: float | None = None  # position of the newest goal that counts
        self._sent_s = float("-inf")
        self._number, self._answered_number = 0, 0  # of goals sent, and of the last one answered
        self._handle: Any = None  # of the newest goal, once the server has accepted it
        self._stopped, self._stands = False, True  # emergency stop; and whether it has been heard
        self._stop_goal: Any = None  # where it is measured; None: cancel
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(self._pause_s, self._look, clock=steady)

    def publish(self, goal: Any) -> None:
        """Send a goal, when it is due; nothing during an emergency stop."""
        if not self._stopped:
            self._wanted = goal
            self._look()

    def stop(self, position: float | None) -> None:
        """Emergency stop, until :meth:`release`: a goal where the gripper is, or cancel the one
        under way where nobody knows that."""
        if self._stopped:
            return
        self._stopped, self._stands, self._wanted, self._stop_goal = True, False, None, None
        if position is not None and math.isfinite(position):
            lower, upper = float(self._command.lower[0]), float(self._command.upper[0])
            here = min(max(position, lower), upper)
            self._stop_goal = messages.gripper_goal(self._command, here)
        self._say_stop()

    def release(self) -> None:
        self._stopped, self._stands, self._stop_goal = False, True, None

    def trouble(self) -> str:
        """Why goals would not be carried out, in one line, or nothing."""
        if self._client.server_is_ready():
            return ""
        return f"nobody offers the action {self.topic_name}; is its controller running?"

    def _look(self) -> None:
        """Send what is due; a goal that no server takes waits for the gate to say it again."""
        if not self._client.server_is_ready():
            self._wanted = self._sent = None
            return
        if self._now_s() - self._sent_s < self._pause_s:
            return
        if self._stopped:
            if not self._stands:
                self._say_stop()
        elif self._wanted is not None:
            goal, self._wanted = self._wanted, None
            moved = self._sent is None or abs(goal.command.position - self._sent) > self._dead_band
            if moved:
                self._send(goal)

    def _say_stop(self) -> None:
        """At once, and again until the server has accepted it."""
        if not self._client.server_is_ready():
            return
        if self._stop_goal is not None:
            self._send(self._stop_goal)
        elif self._handle is not None:
            self._sent, self._sent_s = None, self._now_s()
            self._handle.cancel_goal_async().add_done_callback(self._on_canceled)
        else:  # nothing to cancel, unless the answer to a goal is still to come
            self._stands = self._answered_number == self._number

    def _send(self, goal: Any) -> None:
        self._number += 1
        number = self._number
        self._sent, self._sent_s = float(goal.command.position), self._now_s()
        future = self._client.send_goal_async(goal)
        future.add_done_callback(lambda done: self._on_answer(number, goal, done))

    def _on_answer(self, number: int, goal: Any, future: Any) -> None:
        """The server has accepted a goal, or not."""
        if number != self._number:
            return
        handle, error = _outcome(future)
        self._answered_number = number
        if handle is None or not handle.accepted:
            self._handle = self._sent = None  # the next target is a goal again
            self._say(goal, f"was refused by the server{error}")
            return
        self._handle, self.reason = handle, ""
        if self._stopped:
            if goal is self._stop_goal:
                self._stands = True
            else:
                self._say_stop()  # it was under way when the stop came
        result = handle.get_result_async()
        result.add_done_callback(lambda done: self._on_result(number, goal, done))

    def _on_result(self, number: int, goal: Any, future: Any) -> None:
        if number != self._number:
            return
        self._handle = None
        answer, error = _outcome(future)
        status = GoalStatus.STATUS_UNKNOWN if answer is None else answer.status
        if status == GoalStatus.STATUS_SUCCEEDED or (self._stopped and self._stop_goal is None):
            self.reason = ""
        elif status == GoalStatus.STATUS_CANCELED:
            self._say(goal, "was canceled by the server or by somebody else")
        else:
            stalled = getattr(getattr(answer, "result", None), "stalled", False)
            self._say(goal, f"was aborted{' (the gripper stalled)' if stalled else ''}{error}")

    def _on_canceled(self, future: Any) -> None:
        answer, error = _outcome(future)
        # one that is over or not known any more needs no cancelling
        self._stands = answer is not None and answer.return_code != Canceled.ERROR_REJECTED
        if not self._stands:
            self.reason = f"{self.topic_name}: the goal under way was not canceled{error}"

    def _say(self, goal: Any, what: str) -> None:
        reason = f"{self.topic_name}: the goal {goal.command.position:.4g} {what}"
        if reason != self.reason:
            self._node.get_logger().warning(reason)
        self.reason = reason


def _outcome(future: Any) -> tuple[Any, str]:
    """What a finished future holds, or None and the error."""
    error = future.exception()
    return (None, f" ({error})") if error is not None else (future.result(), "")
