"""Text on terminals and pipes of any encoding."""

from __future__ import annotations

import sys


def accept_any_encoding() -> None:
    """Have what a terminal or pipe cannot show written as an escape, rather than end the program.

    Tables, units and other people's texts are not ASCII; a service or a container often is.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's own stream has none
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
