"""Whether the messages of a topic come from one publisher, by the numbers that it gives them."""

from __future__ import annotations

from collections import deque

WINDOW_S = 2.0


class Series:
    """Numbers of one publisher rise. Where they fall more than once within two seconds, a second
    publisher's are between them; once is a publisher that was started again."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._falls_s: deque[float] = deque(maxlen=2)

    def saw(self, number: int | None, now_s: float) -> None:
        """Take a message's number (None where the middleware gives none), steady clock."""
        if number is None:
            return
        if self._last is not None and number <= self._last:
            self._falls_s.append(now_s)
        self._last = number

    def mixed(self, now_s: float) -> bool:
        return len(self._falls_s) == 2 and now_s - self._falls_s[0] <= WINDOW_S
