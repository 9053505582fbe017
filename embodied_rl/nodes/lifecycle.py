"""Lifecycle transitions that never fail in silence.

In this rclpy an exception inside ``on_configure`` and its kin becomes ERROR with nothing logged.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable

from rclpy.lifecycle import TransitionCallbackReturn

from embodied_rl.core.errors import UserError


class NotYet(UserError):
    """A refusal that time alone may cure; no fault of anybody's so far."""


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
