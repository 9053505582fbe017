"""A process that ends when the one that started it is gone, however that one ended."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable

# Process id of whoever started us and must not be outlived; set for nodes by a launch.
PARENT_VARIABLE = "EMBODIED_RL_PARENT"
_PR_SET_PDEATHSIG = 1


def _asker() -> Callable[[int], None] | None:
    """Returns what asks the kernel for a signal to this process on the death of its parent."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before a fork: a child only calls
    return lambda number: prctl(_PR_SET_PDEATHSIG, number)


def die_with_starter(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """Returns what a child runs between fork and exec (``preexec_fn``), so that `number` ends it
    when this process is gone; None where the system has no such service."""
    ask, starter = _asker(), os.getpid()
    if ask is None:
        return None

    def arrange() -> None:
        ask(number)
        if os.getppid() != starter:  # it died before the line above
            os._exit(1)

    return arrange


def die_with(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Have this process sent `number` when its parent is gone; at once if `parent` already is.

    A program between the two (a debugger, a shell) is no fault: the kernel watches the direct
    parent, and only the life of `parent` is asked for here.
    """
    ask = _asker()
    if ask is None:
        return
    ask(number)
    if not alive(parent):
        os.kill(os.getpid(), number)


def die_with_launcher(number: signal.Signals = signal.SIGTERM) -> None:
    """:func:`die_with` whoever set ``PARENT_VARIABLE``, if anybody did."""
    text = os.environ.get(PARENT_VARIABLE, "")
    if text.isdigit():
        with contextlib.suppress(OverflowError):  # no process has such a number
            die_with(int(text), number)


def start_worker() -> None:
    """What a process of a pool does first (``initializer``): it has nothing to save, and a pool
    whose owner was killed never tells its workers to end."""
    owner = multiprocessing.parent_process()
    if owner is not None and owner.pid is not None:
        die_with(owner.pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether there is a process of this number, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
