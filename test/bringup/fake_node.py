"""A program that stands in for a node: says when it starts and ends, and ends as it is told.

Usage: fake_node.py NAME JOURNAL BEHAVIOUR [MOMENT]

MOMENT is a number of seconds, or the name of a node: as soon as that one has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

name, journal, behaviour = sys.argv[1:4]
moment = sys.argv[4] if len(sys.argv) > 4 else "60"


def note(event: str) -> None:
    with open(journal, "a", encoding="utf-8") as file:
        file.write(f"{event} {name} {os.getpid()}\n")


def wait() -> None:
    if moment[0].isdigit():
        time.sleep(float(moment))
        return
    while f"start {moment} " not in open(journal, encoding="utf-8").read():  # noqa: SIM115
        time.sleep(0.02)


def end(code: int) -> None:
    note("end")
    sys.exit(code)


if behaviour == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif behaviour == "ramp":  # as a command gate that leads a robot to a stop
    signal.signal(signal.SIGINT, lambda *_: (note("told"), time.sleep(0.5), end(0)))
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
    wait()
    end(int(behaviour.removeprefix("exit")))
if behaviour == "crash":
    wait()
    os.kill(os.getpid(), signal.SIGKILL)
deadline = time.monotonic() + float(moment)
while time.monotonic() < deadline:
    time.sleep(0.02)
end(0)
