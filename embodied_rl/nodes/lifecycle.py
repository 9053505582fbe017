"""Lifecycle transitions that never fail in silence, and requests that never end a node.

In this rclpy an exception inside ``on_configure`` and its kin becomes ERROR with nothing logged,
and a request that the state does not allow (activate while active) raises in the executor.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from embodied_rl.core.errors import UserError
from embodied_rl.nodes.causes import Causes


class NotYet(UserError):
    """A refusal that time alone may cure; no fault of anybody's so far."""


class GuardedLifecycleNode(LifecycleNode):
    """Answers every request for a change of state, in whatever state it is."""

    def _LifecycleNodeMixin__on_change_state(self, request, response):  # noqa: N802
        """In place of rclpy's handler of the service ``~/change_state``, which it calls."""
        label = request.transition.label or str(request.transition.id)
        try:
            super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except Exception as error:  # rclpy's own class is private, and differs between distros
            state = self._state_machine.current_state[1]
            if not hasattr(self, "_out_of_place"):
                self._out_of_place = Causes()
            reason = " ".join(str(error).split()) or type(error).__name__
            line = f"transition {label} refused: not possible in state '{state}' ({reason})"
            if self._out_of_place.note(line):
                self.get_logger().error(line)
            response.success = False
        return response


def transition(callback: Callable) -> Callable:
    """Decorate an ``on_*`` method: success unless it raises.

    A UserError is logged as one line (a repeated one once) and gives FAILURE, so that the node
    stays in its state and can be tried again; anything else is logged with its traceback and gives
    ERROR.
    """

    @functools.wraps(callback)
    def guarded(self, state):
        try:
            callback(self, state)
        except UserError as error:
            word = "has to wait" if isinstance(error, NotYet) else "refused"
            line = f"{callback.__name__[3:]} {word}: {error}"
            if getattr(self, "_last_refusal", None) != line:
                log = self.get_logger()
                if isinstance(error, NotYet):
                    log.info(line)
                else:
                    log.error(line)
            self._last_refusal = line
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().fatal(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        self._last_refusal = None
        return TransitionCallbackReturn.SUCCESS

    return guarded
