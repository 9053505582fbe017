"""What an operator asks of a running graph from a terminal: stop the robot, record an episode.

    python -m embodied_rl.nodes.operator_node --ros-args -p ask:=WORD

``stop`` and ``release`` call the emergency stop of the command gate, ``start``, ``finish`` and
``discard`` the recorder. ``keys`` records by single keys and shows what arrives meanwhile.
``status`` shows what every node reports. ``embodied_rl stop``, ``record`` and ``status`` run this
node.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from embodied_rl.bags.topics import EMBODIMENT
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import plain
from embodied_rl.nodes import qos
from embodied_rl.nodes.process import Stop, parameter, run

GATE, RECORDER = "command_gate_node", "recorder_node"
SERVICES = {  # word -> service
    "stop": f"{GATE}/emergency_stop",
    "release": f"{GATE}/emergency_stop",
    "start": f"{RECORDER}/start",
    "finish": f"{RECORDER}/stop",
    "discard": f"{RECORDER}/discard",
}
DONE = {  # word -> what has been done, followed by the answer of the service
    "stop": "stopped",
    "release": "released",
    "start": "recording",
    "finish": "complete",
    "discard": "discarded",
}
KEYS, STATUS = "keys", "status"
LEVELS = {0: "ok", 1: "WARNING", 2: "ERROR", 3: "SILENT"}
WHERE = "is the graph running, in this ROS_DOMAIN_ID and namespace?"
GATHER_S = 1.5  # every node reports once a second
REPORTED_S = 1.5  # a report of the recorder is at most a second old and a bit on its way
HELP = "space: begin or end an episode   d: discard it   q: quit"


class Operator(Node):
    def __init__(self, stop: Stop):
        super().__init__("operator_node")
        self._stop = stop
        self._word = parameter(self, "ask", "stop", "what to ask for", (*SERVICES, KEYS, STATUS))
        self._timeout_s = parameter(self, "timeout_s", 5.0, "how long to look for the node, s")
        self._reports: dict[str, dict[str, str]] = {}
        self._lines: dict[str, str] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def work(self) -> None:
        """Raises UserError for what was not done."""
        if self._word == KEYS:
            self._keys()
        elif self._word == STATUS:
            self._show_status()
        else:
            print(self.ask(self._word), flush=True)

    def ask(self, word: str) -> str:
        """Call a service; its answer.

        Raises:
            UserError: nobody offers the service, it does not answer, or it refuses.
        """
        name, wanted = SERVICES[word], word == "stop"
        kind = SetBool if word in ("stop", "release") else Trigger
        request = SetBool.Request(data=wanted) if kind is SetBool else Trigger.Request()
        button = None
        if wanted:  # said on the topic as well: also a gate that is too busy to answer hears it
            button = self.create_publisher(Bool, "emergency_stop", qos.COMMANDS)
        client = self.create_client(kind, name)

        def found() -> bool:
            if button is not None and button.get_subscription_count():
                button.publish(Bool(data=True))
            return bool(client.service_is_ready())

        self._until(found, f"{client.srv_name}: nobody offers this service within "
                    f"{self._timeout_s:g} s: {WHERE}")  # fmt: skip
        future = client.call_async(request)
        late = f"{client.srv_name}: no answer within {self._timeout_s:g} s"
        # a recorder waits until its topics are connected, and closes a bag before it answers
        self._until(future.done, late, self._timeout_s + (30.0 if kind is Trigger else 0.0))
        answer = future.result()
        if not answer.success:
            raise UserError(f"{client.srv_name}: {answer.message}")
        return f"{DONE[word]}: {_one_line(answer.message)}"

    def _until(self, done: Callable[[], bool], late: str, seconds: float | None = None) -> None:
        until_s = time.monotonic() + (self._timeout_s if seconds is None else seconds)
        while not done():
            if self._stop or time.monotonic() > until_s:
                raise UserError(late)
            self._executor.spin_once(timeout_sec=0.05)

    def _show_status(self) -> None:
        """Every node's line, then its figures."""
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, qos.DIAGNOSTICS)
        late = f"/diagnostics: no report within {self._timeout_s:g} s: {WHERE}"
        self._until(lambda: self._reports, late)
        until_s = time.monotonic() + GATHER_S
        self._until(lambda: time.monotonic() > until_s, late, 2 * GATHER_S)
        for name in sorted(self._reports):
            print(f"{name}: {self._lines[name]}")
            for key, value in self._reports[name].items():
                print(f"    {key}: {plain(value, 200)}", flush=True)

    # By keys

    def _keys(self) -> None:
        if not sys.stdin.isatty():
            raise UserError("record keys: expected a terminal to read keys from, saw none")
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, qos.DIAGNOSTICS)
        print(HELP, flush=True)
        recording, shown_s, asked_s = False, 0.0, 0.0
        with _raw_terminal():
            while not self._stop:
                key = _pressed(0.05)
                if key in ("q", "\x03", "\x04", None):
                    if recording:
                        self._say("finish")
                    return
                if key == " ":
                    recording = self._say("finish" if recording else "start") != recording
                elif key == "d" and recording:
                    recording = not self._say("discard")
                if key:
                    asked_s = time.monotonic()
                self._executor.spin_once(timeout_sec=0.0)
                if RECORDER in self._reports and time.monotonic() > asked_s + REPORTED_S:
                    # begun or ended by somebody else, or by a full disk
                    recording = "bytes" in self._reports[RECORDER]
                if time.monotonic() - shown_s > 1.0:
                    shown_s = time.monotonic()
                    line = self._state(recording)[: shutil.get_terminal_size().columns - 1]
                    print(f"\r\x1b[K{line}", end="", flush=True)

    def _say(self, word: str) -> bool:
        """Ask and show the answer; whether it was done."""
        try:
            answer, done = self.ask(word), True
        except UserError as error:
            answer, done = f"error: {error}", False
        print("\r\x1b[K" + answer, end="\r\n", flush=True)
        return done

    def _on_report(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name if self._word == STATUS else status.name.rsplit("/", 1)[-1]
            level = LEVELS.get(int.from_bytes(status.level, "little"), "?")
            self._lines[name] = f"{level}, {plain(status.message, 300)}"
            self._reports[name] = {item.key: item.value for item in status.values}

    def _state(self, recording: bool) -> str:
        """One line: whether it records, the rate of every stream, and how many actions."""
        figures = self._reports.get(RECORDER, {})
        rates = [
            f"{key.removesuffix('.rate_hz')} {value} Hz"
            for key, value in figures.items()
            if key.endswith(".rate_hz")
        ]
        state = "RECORDING" if recording else "idle"
        if not figures:
            return f"{state}: no report of {RECORDER} yet"
        words = []
        if "bytes" in figures:  # a bag is open: else the count is that of the last one
            words.append(f"{figures.get('actions', '0')} commands")
        if figures.get("lost", "0") != "0":
            words.append(f"{figures['lost']} LOST")
        return f"{state}: " + ", ".join([*words, *rates])


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Single keys without Return; the terminal is as before whatever happens."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        print(flush=True)


def _pressed(timeout_s: float) -> str | None:
    """A key, "" if there was none, None if the terminal has gone.

    Not by ``sys.stdin``, which would read ahead into a buffer that ``select`` does not see.
    """
    descriptor = sys.stdin.fileno()
    ready, _, _ = select.select([descriptor], [], [], timeout_s)
    if not ready:
        return ""
    return os.read(descriptor, 1).decode("latin-1") or None


def _one_line(answer: str) -> str:
    """What a service answered; the recorder's figures of a bag in words."""
    try:
        figures = yaml.safe_load(answer)
    except yaml.YAMLError:
        figures = None
    if not isinstance(figures, dict) or "counts" not in figures:
        return answer.strip().replace("\n", " | ")
    counts = ", ".join(
        f"{count} {name}" for name, count in figures["counts"].items() if name != EMBODIMENT
    )
    return f"{figures.get('path')} ({counts}; {figures.get('lost')} lost)"


def main() -> int:
    return run(Operator, lambda node, stop: node.work())


if __name__ == "__main__":
    sys.exit(main())
