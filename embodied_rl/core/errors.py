"""The one exception that is meant for the person at the terminal."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, said in one line: which file, topic or key, what was expected, what was seen.

    Command-line verbs print it as ``error: ...`` without a traceback; nodes log it and publish it
    on ``/diagnostics``. Everything else that is raised is a defect of ours and keeps its traceback.
    """


class MessageError(UserError):
    """A ROS message that must not reach a policy: wrong encoding, size, joint set or a NaN."""
