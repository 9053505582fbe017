"""A program that stands in for a node: says when it starts and ends, and ends as it is told.

Usage: fake_node.py NAME JOURNAL BEHAVIOUR [seconds]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

name, journal, behaviour = sys.argv[1:4]
seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 60.0


def note(event: str) -> None:
    with open(journal, "a", encoding="utf-8") as file:
        file.write(f"{event} {name} {os.getpid()}\n")


def end(code: int) -> None:
    note("end")
    sys.exit(code)


if behaviour == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif behaviour == "deaf_to_int":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: end(0))
else:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end(7 if behaviour == "fails_to_close" else 0))
if behaviour == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(journal, "a", encoding="utf-8") as file:
        file.write(f"grandchild {name} {child.pid}\n")

note("start")
print(f"{name} says hello", flush=True)
if behaviour.startswith("exit"):
    time.sleep(seconds)
    end(int(behaviour.removeprefix("exit")))
if behaviour == "crash":
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)
deadline = time.monotonic() + seconds
while time.monotonic() < deadline:
    time.sleep(0.02)
end(0)
