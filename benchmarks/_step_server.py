"""A process that takes one step each time it is asked, and says what the step cost.

Two programs that are to be compared may need different Python environments; each runs in a process
of its own that serves its steps, and the benchmark asks them in turn. Standard library only: both
environments import this.

Protocol, one JSON value a line: settings in, a description out; then a name in, its cost out.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Steps = Mapping[str, Callable[[], object]]


def serve(make: Callable[[dict[str, Any]], tuple[dict[str, Any], Steps]]) -> None:
    """Answers until standard input ends.

    Args:
        make: settings -> what is to be told about the program, and its steps by name.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    description, steps = make(json.loads(sys.stdin.readline()))
    _tell(answers, description)
    for line in sys.stdin:
        step = steps[json.loads(line)]
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        step()
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _tell(answers, {"cpu_s": cpu_s, "wall_s": wall_s, "peak_mb": peak_mb})


def resident_mb() -> float:
    """Memory that this process holds now, counted page by page (statm's count lags behind)."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        fields = [line.split() for line in file if line.startswith("Rss:")]
    return int(fields[0][1]) / 1024


def _tell(answers: Any, value: Mapping[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()
