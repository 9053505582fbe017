"""What a node has to say about bad input: a line a cause, however often it comes."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any

LONGEST = 300  # characters of a line
AGAIN_S = 10.0  # a cause is logged again after so long, with how often it came meanwhile
MOST_CAUSES = 64  # remembered; foreign input can make up new ones for ever
MOST_LINES_A_SECOND = 5
_NUMBER = re.compile(r"[-+]?\d[\d.eE+-]*")


def plain(text: str) -> str:
    """The text in one short line: control characters escaped, the rest cut."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= LONGEST else line[: LONGEST - 4] + " ..."


class Complaints:
    """Logs each cause once in a while. Texts that differ in their numbers only are one cause."""

    def __init__(self, logger: Any):
        self._logger = logger
        self._causes: OrderedDict[str, list[float]] = OrderedDict()  # -> [logged at, since then]
        self._second, self._lines = 0.0, 0
        self.last = ""
        self.count = 0

    def say(self, text: str) -> bool:
        """Whether it was worth a line."""
        self.last, self.count = plain(text), self.count + 1
        cause, now_s = _NUMBER.sub("#", self.last), time.monotonic()
        logged_s, silent = self._causes.pop(cause, (float("-inf"), 0))
        while len(self._causes) >= MOST_CAUSES:
            self._causes.popitem(last=False)
        if now_s - logged_s < AGAIN_S or not self._has_room(now_s):
            self._causes[cause] = [logged_s, silent + 1]
            return False
        self._causes[cause] = [now_s, 0]
        again = f" ({int(silent)} more of this kind before)" if silent else ""
        self._logger.error(self.last + again)
        return True

    def _has_room(self, now_s: float) -> bool:
        if now_s - self._second > 1.0:
            self._second, self._lines = now_s, 0
        self._lines += 1
        return self._lines <= MOST_LINES_A_SECOND
