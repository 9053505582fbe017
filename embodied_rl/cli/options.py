"""Command lines made of a method's own dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import make_dataclass
from typing import Any

import tyro


def parse(parts: Mapping[str, type], argv: list[str], prog: str, description: str) -> list[Any]:
    """One command line for several dataclasses, whose fields become options without a prefix.

    Args:
        parts: heading in the help -> dataclass.

    Returns:
        an instance of each.
    """
    fields = [(name, tyro.conf.OmitArgPrefixes[part]) for name, part in parts.items()]
    found = tyro.cli(
        make_dataclass("Arguments", fields), args=argv, prog=prog, description=description
    )
    return [getattr(found, name) for name in parts]
