from __future__ import annotations


class Event:
    pass


class Shutdown(Event):
    def __init__(self, *, reason="", due_to_sigint=False):
        self.reason, self.due_to_sigint = reason, due_to_sigint


def matches_action(action):
    return lambda other: other is action
