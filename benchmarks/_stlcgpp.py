"""stlcg++ (PyPI `stlcgpp`) beside our batched robustness: CPU time and peak memory, equal values.

Each measurement runs in a process of its own, so that its peak memory is its own. stlcg++ is made
for one trace and batched by ``vmap``; of the ways to do that its fastest is timed. Memory is the
peak of a batch that is evaluated at once, per trace of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from embodied_rl.stl import batched
from embodied_rl.stl import formula as fm
from embodied_rl.stl.parse import parse
from embodied_rl.stl.robustness import TailRule

TRACES, STEPS, WINDOW = 1024, 200, 100
ROUNDS = 20  # of ours; the fastest counts
MEMORY_TRACES = 16  # that the rival evaluates at once for its peak; ours all of them
PILOT = 8  # traces on which the rival's ways are compared
# Every way of the rival is linear in the number of traces, and its until takes many minutes for
# all of them: it is timed on so many, and the seconds are scaled.
TIMED = {"eventually": TRACES, "always": TRACES, "until": 64}
# how the rival, made for one trace, does a batch
WAYS = {
    "one by one": lambda one: lambda batch: torch.stack([one(trace) for trace in batch]),
    "vmap by 4": lambda one: torch.vmap(one, chunk_size=4),
    "vmap by 16": lambda one: torch.vmap(one, chunk_size=16),
}
FORMULAS = {
    "eventually": f"F[0,{WINDOW - 1}] x > 0",
    "always": f"G[0,{WINDOW - 1}] x > 0",
    "until": f"(x > -1) U[0,{WINDOW - 1}] (y > 1)",
}


def compare(operator: str) -> dict[str, float]:
    """Seconds and KiB a trace of both, and the largest difference of their values."""
    fastest = min(WAYS, key=lambda way: _timed(way, operator, PILOT)["seconds"])
    ours, theirs = _timed("ours", operator, TRACES), _timed(fastest, operator, TIMED[operator])
    return {
        "ours_s": ours["seconds"],
        "theirs_s": theirs["seconds"] * TRACES / TIMED[operator],
        "ours_kib": _peak_kib("ours", operator, TRACES),
        "theirs_kib": _peak_kib("vmap by 16", operator, MEMORY_TRACES),
        "difference": theirs["difference"],
    }


def _timed(way: str, operator: str, traces: int) -> dict[str, float]:
    return _child("time", way, operator, traces, {})


def _peak_kib(way: str, operator: str, traces: int) -> float:
    # every array by mmap, so that freed ones leave the process and its peak is of live arrays
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    return _child("memory", way, operator, traces, malloc)["kib"] / traces


def _child(
    measure: str, way: str, operator: str, traces: int, environment: dict[str, str]
) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, measure, way, operator, str(traces)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _signals() -> torch.Tensor:
    return torch.randn(TRACES, STEPS, 2, generator=torch.Generator().manual_seed(0))


def _ours(operator: str) -> Callable[[torch.Tensor], torch.Tensor]:
    # stlcg++ reads until as inclusive and pads the tail with -1e9
    formula = fm.inclusive(parse(FORMULAS[operator]))
    return lambda s: batched.robustness(
        formula, {"x": s[..., 0], "y": s[..., 1]}, TailRule.PAD_PESSIMISTIC
    )


def _rival(operator: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """stlcg++'s formula on one trace ``(T, 2)``."""
    from stlcgpp import formula as rival

    x, y = (rival.Predicate(name, lambda s, i=i: s[..., i]) for i, name in enumerate("xy"))
    interval = [0, WINDOW - 1]
    if operator == "until":
        return rival.Until(x > -1.0, y > 1.0, interval=interval)
    kind = rival.Eventually if operator == "eventually" else rival.Always
    return kind(x > 0.0, interval=interval)


def _growth_kib(run: Callable[[], object]) -> float:
    """How much the process grows at most while `run` runs."""
    before = _memory_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    run()
    return _memory_kib("VmHWM") - before


def _memory_kib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1])


def main(measure: str, way: str, operator: str, traces: str) -> None:
    torch.set_num_threads(1)
    s, ours = _signals()[: int(traces)], _ours(operator)
    run = ours if way == "ours" else WAYS[way](_rival(operator))
    with torch.inference_mode():
        run(torch.zeros(1, 4, 2))  # libraries are loaded and warm
        if measure == "memory":
            print(json.dumps({"kib": _growth_kib(lambda: run(s))}))
            return
        times = []
        for _ in range(ROUNDS if way == "ours" else 1):
            begin = time.process_time()
            found = run(s)
            times.append(time.process_time() - begin)
        difference = float((found - ours(s)).abs().max())
    print(json.dumps({"seconds": min(times), "difference": difference}))


if __name__ == "__main__":
    main(*sys.argv[1:])
