"""The loop around iterations of reinforcement learning: resumable, logged, stopped by Ctrl-C."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from embodied_rl.training.progress import progress_bar
from embodied_rl.training.state import (
    TrainState,
    forget_state,
    has_state,
    load_state,
    save_state,
)
from embodied_rl.training.supervised import FitResult, stop_on_interrupt

LOG = "log.jsonl"


def run_iterations(
    name: str,
    state: TrainState,
    total: int,
    iterate: Callable[[TrainState], tuple[dict[str, Any], str]],
    *,
    work: Path,
    fingerprint: str,
    save_every: int,
    resume: bool,
    quiet: bool,
) -> FitResult:
    """Calls ``iterate`` until ``state.step``, which it raises by one, is ``total``.

    A run that was interrupted and resumed ends in the same weights if what iteration k draws
    follows from the run's seed and k alone.

    Args:
        name: shown beside the progress bar.
        iterate: learns once; returns a record for the log and a line for the progress bar.
        work: folder of the resumable state and the log.
        fingerprint: names the settings; a state of others is not resumed.
        save_every: iterations between two savings.
        resume: go on from the state that an interrupted run left in ``work``.

    Returns:
        What was reached; its time is that of all parts of a run that was interrupted.

    Raises:
        UserError: a state of other settings.
    """
    began = time.monotonic()
    if not resume:
        forget_state(work)
    elif has_state(work):
        load_state(work, state, fingerprint)
        records = read_log(work)
        began -= records[-1]["wall_s"] if records else 0.0
    work.mkdir(parents=True, exist_ok=True)
    first = state.step
    with (
        stop_on_interrupt() as stop,
        (work / LOG).open("a" if resume else "w", encoding="utf-8") as log,
        progress_bar(quiet=quiet) as bar,
    ):
        if _torn(work / LOG):
            log.write("\n")
        shown = bar.add_task(name, total=total, completed=state.step, note="")
        while state.step < total and not stop.is_set():
            record, text = iterate(state)
            record["wall_s"] = time.monotonic() - began
            log.write(json.dumps(record) + "\n")
            log.flush()
            if state.step % save_every == 0:
                save_state(work, state, fingerprint)
            bar.update(shown, completed=state.step, note=text)
        if state.step > first or not resume:
            save_state(work, state, fingerprint)
    wall_s = time.monotonic() - began
    return FitResult(state.step, total, state.step >= total, float("nan"), None, wall_s)


def read_log(work: Path) -> list[dict[str, Any]]:
    """Records of the iterations so far, without lines that were torn, as by a power cut. What was
    done again after an interruption stands in the log twice."""
    log, records = work / LOG, []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def _torn(log: Path) -> bool:
    """Whether the last line has no end."""
    content = log.read_bytes()
    return bool(content) and not content.endswith(b"\n")
