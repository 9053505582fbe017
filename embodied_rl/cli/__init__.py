"""The command line, one file a verb."""

from __future__ import annotations

from embodied_rl.core.errors import UsageError

__all__ = ["UsageError"]
