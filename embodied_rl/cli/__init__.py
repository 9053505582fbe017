"""The command line, one file a verb."""

from __future__ import annotations

from embodied_rl.core.errors import UserError


class UsageError(UserError):
    """The command line itself is wrong: an unknown verb, graph, argument or choice. Exit code 2."""
