"""What a policy tells the command gate with each heartbeat, beside the tick in its stamp.

A heartbeat is a ``std_msgs/Header``. Its ``frame_id`` holds, with a space between them: the session
of the policy (empty for a sender without one), the stamp in nanoseconds of its newest chunk, and,
while the policy must not be obeyed, why. Chunks carry the same session in their ``frame_id``, so a
gate can tell the chunks of the policy it follows from those of another.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from embodied_rl.core.errors import MessageError

LONGEST = 400  # characters; a longer text is no heartbeat
_FORM = re.compile(r"(?:(?P<session>[0-9a-f]{1,16}) )?(?P<chunk>[0-9]{1,19})(?: (?P<reason>.*))?")


@dataclass(frozen=True)
class Heartbeat:
    """Who speaks, which chunk is its newest (0: none yet), and why the robot must hold, if so."""

    session: str
    chunk_ns: int
    refusal: str = ""

    def text(self) -> str:
        """The ``frame_id`` that :meth:`parse` reads; a long refusal is cut."""
        parts = [self.session, str(self.chunk_ns), " ".join(self.refusal.split())]
        return " ".join(part for part in parts if part)[:LONGEST]

    @classmethod
    def parse(cls, text: str) -> Heartbeat:
        """Raises MessageError when the text is not a heartbeat's."""
        found = _FORM.fullmatch(text) if len(text) <= LONGEST else None
        if found is None:
            raise MessageError(
                "policy/heartbeat: frame_id: expected '[session] <stamp of the last chunk in ns> "
                f"[reason to hold]', saw {text[:40]!r}"
            )
        return cls(found["session"] or "", int(found["chunk"]), found["reason"] or "")


def new_session() -> str:
    """Sixteen hex digits that no other policy of this robot has."""
    return secrets.token_hex(8)
