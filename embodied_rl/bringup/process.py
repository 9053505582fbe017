"""One child process of a graph: its own session, read line by line, stopped step by step."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from embodied_rl.core.parent import die_with_starter


class Child:
    """A running process and the bytes it wrote.

    Args:
        command: argument vector.
        piped: read its output through :attr:`pipe`; otherwise it keeps our terminal.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], piped: bool
    ) -> None:
        self.name = name
        # Its own session: Ctrl-C in the terminal reaches the runner alone, which stops in order.
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else None,
            stderr=subprocess.STDOUT if piped else None,
            start_new_session=True,
            preexec_fn=die_with_starter(),
        )
        self.pipe = self._process.stdout
        self._rest = b""
        self._interrupted = False  # a second one would look like an impatient user's
        if self.pipe is not None:
            os.set_blocking(self.pipe.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def lines(self) -> list[str]:
        """Returns the complete lines written since the last call; at the end also the rest."""
        if self.pipe is None or self.pipe.closed:
            return []
        while True:
            block = os.read(self.pipe.fileno(), 65536) if self._readable() else None
            if block is None:
                break
            if not block:  # end of file: nobody holds the other end any more
                self.pipe.close()
                break
            self._rest += block
        *whole, self._rest = self._rest.split(b"\n")
        if self.pipe.closed and self._rest:
            whole, self._rest = [*whole, self._rest], b""
        return [line.decode(errors="replace").rstrip("\r") for line in whole]

    def _readable(self) -> bool:
        assert self.pipe is not None
        return bool(select.select([self.pipe], [], [], 0)[0])

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process itself, not to what it started."""
        if self.exit_code is None:
            self._process.send_signal(number)
            self._interrupted |= number == signal.SIGINT

    def kill_group(self) -> None:
        """Kills whatever is left of its session, grandchildren included."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def stop(self, interrupt_s: float, terminate_s: float, pump: Callable[[float], None]) -> str:
        """Ends the process: SIGINT, then SIGTERM, then SIGKILL, each after its time.

        Args:
            pump: called with a time to wait, s; must handle output and signals meanwhile.

        Returns:
            The name of the last signal that was needed, or "" if it had ended already.
        """
        needed = ""
        for number, patience_s in (
            (signal.SIGINT, interrupt_s),
            (signal.SIGTERM, terminate_s),
            (signal.SIGKILL, 5.0),
        ):
            if self.exit_code is not None:
                break
            needed = number.name
            if number != signal.SIGINT or not self._interrupted:
                self.send(number)
            deadline = time.monotonic() + patience_s
            while self.exit_code is None and time.monotonic() < deadline:
                pump(0.05)
        self.kill_group()
        return needed


def describe_exit(code: int) -> str:
    """Returns ``exit code 3`` or ``signal SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
