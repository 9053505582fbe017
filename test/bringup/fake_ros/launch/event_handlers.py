from __future__ import annotations


class EventHandler:
    pass


class OnProcessExit(EventHandler):
    def __init__(self, *, target_action, on_exit):
        self.target_action, self.on_exit = target_action, on_exit


class OnShutdown(EventHandler):
    def __init__(self, *, on_shutdown):
        self.on_shutdown = on_shutdown
