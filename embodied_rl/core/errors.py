"""The exceptions that are meant for the person at the terminal."""

from __future__ import annotations

from collections.abc import Sequence

QUOTED = 60  # characters of somebody else's text that one line of ours carries
ITEMS = 12  # entries of somebody else's list


class UserError(Exception):
    """Bad input, said in one line: which file, topic or key, what was expected, what was seen.

    Command-line verbs print it as ``error: ...`` without a traceback; nodes log it and publish it
    on ``/diagnostics``. Everything else that is raised is a defect of ours and keeps its traceback.
    """


class UsageError(UserError):
    """The command line itself is wrong: an unknown verb, graph, argument or choice. Exit code 2."""


class MessageError(UserError):
    """A ROS message that must not reach a policy: wrong encoding, size, joint set or a NaN.

    The text must not change from message to message of one fault, or it floods the log.
    """


class NotForThisStream(MessageError):
    """A sound message with nothing (or only a part yet) for this stream: no fault, to be skipped.

    An arm and a gripper may share one topic and speak in messages of their own.
    """


def quoted(text: str | Sequence[str]) -> str:
    """Somebody else's text, or list of texts, as a line of ours may carry it: escaped and cut."""
    if isinstance(text, str):
        found = ascii(text[: QUOTED + 1])
        return found if len(found) <= QUOTED + 2 else f"{found[:QUOTED]}...'"
    parts = [quoted(str(item)) for item in text[:ITEMS]]
    more = [f"... ({len(text)} in all)"] if len(text) > ITEMS else []
    return f"[{', '.join([*parts, *more])}]"
