"""Runs a :class:`~embodied_rl.bringup.graph.Graph` where no `launch` package is installed.

One thread, one loop: output, signals and ends of children all arrive at the same selector, so there
is nothing to lock and a child is forked from a process without other threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from embodied_rl.bringup.environment import child_environment
from embodied_rl.bringup.graph import Graph, NodeSpec, Role, Value
from embodied_rl.bringup.process import Child, describe_exit
from embodied_rl.core.errors import UserError

_COLOURS = ("36", "33", "35", "32", "34", "96", "93", "95")
_TROUBLE = ("[WARN]", "[ERROR]", "[FATAL]", "Traceback", "Error:", "error:")
# A node ended by our own SIGINT or SIGTERM has ended in order, whether or not it caught the signal.
_ORDERLY = (0, 130, -signal.SIGINT, -signal.SIGTERM)


def command_of(node: NodeSpec, namespace: str) -> list[str]:
    """Returns the argument vector that starts `node` with this interpreter."""
    command = [sys.executable, "-m", f"embodied_rl.nodes.{node.module}", "--ros-args"]
    command += ["-r", f"__node:={node.name}"]
    if namespace:
        command += ["-r", f"__ns:=/{namespace}"]
    for source, target in node.remappings:
        command += ["-r", f"{source}:={target}"]
    for name, value in node.parameters.items():
        command += ["-p", f"{name}:={parameter_text(value)}"]
    return command


def parameter_text(value: Value) -> str:
    """Returns a value as YAML; texts are quoted, so that '1' or 'no' stays a text."""
    return json.dumps(value, ensure_ascii=False)


def without_interrupts(lines: list[str]) -> list[str]:
    """Drops the traceback of a node that was interrupted by us before it could handle that."""
    kept: list[str] = []
    held: list[str] = []
    for line in lines:
        if held and line.startswith("KeyboardInterrupt"):
            held = []
        elif line.startswith("Traceback ") or (held and line.startswith(" ")):
            held.append(line)
        else:
            kept += [*held, line]
            held = []
    return kept + held


class Runner:
    """Starts, watches and ends the processes of one graph.

    Args:
        command: node -> argument vector (tests start other programs).
        terminate_s: time between SIGTERM and SIGKILL.
        log: where the prefixed lines go.
    """

    def __init__(
        self,
        graph: Graph,
        command: Callable[[NodeSpec, str], list[str]] = command_of,
        terminate_s: float = 3.0,
        log: TextIO | None = None,
    ) -> None:
        self._graph = graph
        self._command = command
        self._terminate_s = terminate_s
        self._log = log or sys.stderr
        self._environment = child_environment(graph.environment)
        self._running: list[tuple[NodeSpec, Child]] = []
        self._selector = selectors.DefaultSelector()
        self._interrupts = 0
        self._stopping = False
        self._last_words: dict[str, list[str]] = {}
        self._failures: list[str] = []
        self._log_file: TextIO | None = None
        self._width = max(len(node.name) for node in graph.nodes)
        coloured = self._log.isatty() and not os.environ.get("NO_COLOR")
        self._colour = {
            node.name: _COLOURS[i % len(_COLOURS)] if coloured else ""
            for i, node in enumerate(graph.nodes)
        }

    def run(self) -> int:
        """Runs the graph to its end.

        Returns:
            0 when it ended in order; 1 when a required node died, a gate failed or a node had to
            be killed.
        """
        with self._logging(), self._signals():
            try:
                self._start_stages()
                while not self._over():
                    self._pump(0.5)
            finally:
                self._stop_all()
                self._selector.close()
        for line in self._failures:
            print(f"error: {line}", file=self._log, flush=True)
        return 1 if self._failures else 0

    # --- starting ------------------------------------------------------------------------------

    def _start_stages(self) -> None:
        for stage in sorted({node.stage for node in self._graph.nodes}):
            for node in self._graph.nodes:
                if node.stage == stage:
                    self._start(node)
            while not self._over() and any(
                node.role is Role.GATE and child.exit_code is None for node, child in self._running
            ):
                self._pump(0.5)
            if self._over():
                return

    def _start(self, node: NodeSpec) -> None:
        command = self._command(node, self._graph.namespace)
        child = Child(node.name, command, self._environment, piped=not node.foreground)
        self._running.append((node, child))
        if child.pipe is not None:
            self._selector.register(child.pipe, selectors.EVENT_READ, (node, child))

    # --- watching ------------------------------------------------------------------------------

    def _over(self) -> bool:
        """True when the graph has to end: it was interrupted, a node failed, or it is done."""
        if self._interrupts:
            if not self._graph.endless and not self._failures:
                self._failures.append(
                    f"graph '{self._graph.name}' was interrupted before its last episode"
                )
            return True
        done = False
        for node, child in self._running:
            code = child.exit_code
            if code is None:
                continue
            if code == 0 and node.role is Role.GATE:
                continue
            if code == 0 and node.role is Role.CONDUCTOR:
                done = True
                continue
            role = f"required node {node.name}" if node.role is Role.REQUIRED else node.name
            self._failures = [f"{role} ended with {describe_exit(code)}"]
            return True
        return done

    def _pump(self, timeout_s: float) -> None:
        """Waits for output, a signal or the end of a child, and prints what there is."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._drain_wakeup()
            else:
                self._print(*key.data)

    def _print(self, node: NodeSpec, child: Child) -> None:
        pipe = child.pipe
        lines = child.lines()
        if pipe is not None and pipe.closed:
            self._forget(pipe)
        if self._stopping:  # a traceback comes in pieces: the last words are judged as a whole
            held = self._last_words.setdefault(node.name, [])
            held += lines
            if child.exit_code is None:
                return
            lines = without_interrupts(held)
            held.clear()
        quiet = self._table_is_up()
        for line in lines:
            if self._log_file is not None:
                print(f"[{node.name}] {line}", file=self._log_file, flush=True)
            if quiet and not any(word in line for word in _TROUBLE):
                continue
            prefix = f"[{node.name:<{self._width}}]"
            if self._colour[node.name]:
                prefix = f"\033[{self._colour[node.name]}m{prefix}\033[0m"
            print(prefix, line, file=self._log, flush=True)

    def _table_is_up(self) -> bool:
        """True while a foreground node draws on the terminal: only trouble is printed then."""
        if self._log_file is None or not self._log.isatty():
            return False
        return any(node.foreground and child.exit_code is None for node, child in self._running)

    def _forget(self, pipe: object) -> None:
        for key in list(self._selector.get_map().values()):
            if key.fileobj is pipe:
                self._selector.unregister(pipe)  # type: ignore[arg-type]

    # --- ending --------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """Ends every process: those that stop first are told at once, newest first, and the rest
        runs on until they have ended; then the last started first.

        A policy falls silent and the gate is told to end right after it: the robot is led to a stop
        within a period or two, while its driver and the recorder still run.
        """
        self._stopping = True
        if self._failures and self._graph.settle_s and not self._interrupts:
            until = time.monotonic() + self._graph.settle_s
            while time.monotonic() < until:
                self._pump(0.05)
        newest_first = list(reversed(self._running))
        for node, child in newest_first:
            if node.stops_first:
                child.send(signal.SIGINT)
        for node, child in sorted(newest_first, key=lambda pair: not pair[0].stops_first):
            self._stop(node, child)
        for node, child in self._running:
            self._print(node, child)

    def _stop(self, node: NodeSpec, child: Child) -> None:
        # A second Ctrl-C means: now. The steps stay, their times shrink.
        hurry = self._interrupts > 1
        needed = child.stop(
            0.5 if hurry else node.stop_s, 0.5 if hurry else self._terminate_s, self._pump
        )
        self._print(node, child)
        code = child.exit_code
        if needed == "SIGKILL":
            self._failures.append(f"{node.name} did not end on SIGINT or SIGTERM and was killed")
        elif needed and code not in _ORDERLY:
            self._failures.append(
                f"{node.name} ended with {describe_exit(code or 0)} while stopping"
            )

    # --- signals and logs ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP end the graph in order; SIGCHLD wakes the loop."""
        self._wake_read, wake_write = socket.socketpair()
        for end in (self._wake_read, wake_write):
            end.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in (*handled, signal.SIGCHLD)}
        old_fd = signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        for number in handled:
            signal.signal(number, self._interrupt)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wake_read.close()
            wake_write.close()

    def _interrupt(self, *_: object) -> None:
        self._interrupts += 1

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        path: Path | None = self._graph.log_file
        if path is None:
            yield
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{path.parent}: expected a folder to write in, saw: {error.strerror}; "
                "give another one with out:=..."
            ) from None
        with file:
            self._log_file = file
            yield
