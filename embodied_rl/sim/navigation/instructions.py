"""What a robot is asked in words: which type of object to find."""

from __future__ import annotations

from embodied_rl.core.errors import UserError
from embodied_rl.sim.navigation.layout import OBJECT_NAMES

PREFIX = "find the "


def instruction_for(wanted: int) -> str:
    """The words that ask for a type of object."""
    return PREFIX + OBJECT_NAMES[wanted]


def wanted_type(instruction: str) -> int:
    """The type of object that an instruction asks for.

    Raises:
        UserError: it asks for something else; lists what can be asked for.
    """
    text = instruction.strip()
    name = text.removeprefix(PREFIX)
    if not text.startswith(PREFIX) or name not in OBJECT_NAMES:
        raise UserError(
            f"instruction: expected '{PREFIX}' and one of {', '.join(OBJECT_NAMES)}, saw '{text}'"
        )
    return OBJECT_NAMES.index(name)
