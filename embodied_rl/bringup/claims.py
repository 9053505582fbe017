"""Two launches in one ROS domain would mix their topics; the second is refused before it starts.

A launch holds one lock a node name, as long as it lives and not a moment longer, on this machine.
Nodes of other machines are the command gate's to notice: it looks at who publishes what.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from embodied_rl.bringup.environment import PACKAGE
from embodied_rl.bringup.spec import Graph, Role
from embodied_rl.core.errors import UserError


def claim(graph: Graph) -> Callable[[], None]:
    """Claims the names of the nodes of `graph` until this process ends or calls what is returned.

    Raises:
        UserError: another launch has one of them; says which, whose, and what to do. Nothing is
            claimed then.
    """
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    claimed: list[int] = []

    def release() -> None:
        while claimed:
            os.close(claimed.pop())

    for node in graph.nodes:
        if node.role is Role.GATE:  # done in a moment, and meant for one graph alone
            continue
        name = f"{graph.namespace}/{node.name}".lstrip("/")
        file = re.sub(r"[^A-Za-z0-9_]", ".", f"{PACKAGE}_{domain}_{name}")
        try:
            claimed.append(_lock(Path(tempfile.gettempdir()) / f"{file}.lock"))
        except _Taken as taken:
            release()
            raise UserError(
                f"{name} runs already in ROS domain {domain}, started by {taken}: give this launch "
                "another domain (export ROS_DOMAIN_ID=1) or a namespace:=..., or end the other one"
            ) from None
    return release


class _Taken(Exception):
    """Somebody else has the lock; the text says who."""


def _lock(path: Path) -> int:
    """Returns the descriptor that holds the lock on `path`.

    Raises:
        _Taken: it is held already.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:  # another user's; to read it is enough for a lock
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise _Taken(f"process {owner}" if owner.isdigit() else "another launch") from None
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_RDWR:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
