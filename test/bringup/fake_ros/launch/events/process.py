from __future__ import annotations

from . import Event


class ProcessExited(Event):
    def __init__(self, *, returncode):
        self.returncode = returncode


class SignalProcess(Event):
    def __init__(self, *, signal_number, process_matcher):
        self.signal_number, self.process_matcher = signal_number, process_matcher
