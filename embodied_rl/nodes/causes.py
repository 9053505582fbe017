"""One line a cause: what goes wrong a hundred times a second is said once and counted."""

from __future__ import annotations

import re
import time
from typing import Any

from embodied_rl.core.schema import plain

QUIET_S = 60.0  # after which a cause is worth another line
MOST = 20  # causes that get a line each; what a hostile sender varies must not fill a log
_SESSION = re.compile(r"\b[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"[-+]?[0-9][0-9.]*(?:e[-+]?[0-9]+)?")


class Causes:
    """Reasons that differ in their numbers only have one cause, named by its first reason."""

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self.count = 0
        self.last = ""  # first reason of the newest cause
        self._known: dict[str, tuple[str, float]] = {}  # cause -> reason, last seen in s

    def note(self, reason: str) -> str:
        """Count one; the line that is worth logging, empty for a cause that is known."""
        self.count += 1
        reason, now_s = plain(reason), time.monotonic()
        cause = _NUMBER.sub("#", _SESSION.sub("#", reason))[:120]
        first, before_s = self._known.pop(cause, (reason, float("-inf")))
        if len(self._known) >= MOST:
            oldest = next(iter(self._known))  # the one that was seen longest ago
            if now_s - self._known[oldest][1] < self._quiet_s:
                self.last = reason
                return ""
            del self._known[oldest]
        self._known[cause] = (first, now_s)
        self.last = first
        return first if now_s - before_s >= self._quiet_s else ""


class Complaints:
    """What a node has to say about bad input, through its logger."""

    def __init__(self, logger: Any):
        self._logger, self._causes = logger, Causes()

    @property
    def last(self) -> str:
        return self._causes.last

    @property
    def count(self) -> int:
        return self._causes.count

    def say(self, text: str) -> bool:
        """Whether it was worth a line."""
        line = self._causes.note(text)
        if line:
            self._logger.error(line)
        return bool(line)
