"""What must be right on this machine before the first node of a graph starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from embodied_rl.bringup.spec import Graph
from embodied_rl.cli.gl_probe import missing_gl
from embodied_rl.core.errors import UserError

_DOMAIN_IDS = range(233)  # more would ask for ports that do not exist


def check_machine(graph: Graph) -> None:
    """Raises:
    UserError: off-screen rendering, the ROS domain or the output folder will not do; one line.
    """
    check_domain()
    renders = any(node.parameters.get("cameras", "none") != "none" for node in graph.nodes)
    reason = missing_gl() if renders else None
    if reason:
        raise UserError(f"{reason}, or run without images: cameras:=none")
    if graph.log_file is not None:
        check_folder(graph.log_file.parent, "out:=...")


def check_domain() -> None:
    """Raises:
    UserError: ``ROS_DOMAIN_ID`` is not the number of a domain.
    """
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if text and not (text.isascii() and text.isdigit() and int(text[:9]) in _DOMAIN_IDS):
        raise UserError(
            f"ROS_DOMAIN_ID={text[:40]!r}: expected a whole number from 0 to {_DOMAIN_IDS[-1]}"
        )


def check_folder(folder: Path, argument: str, needed_bytes: int = 1 << 20) -> None:
    """Tries to write where results will go, because they come long after the start.

    Args:
        folder: made if it is not there.
        argument: how the user gives another one; part of the message.
        needed_bytes: written and removed again: on a full disk an empty file can still be made.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write_test_") as file:
            file.write(bytes(needed_bytes))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder to write in, saw: {error.strerror}; "
            f"give another one with {argument}"
        ) from None
