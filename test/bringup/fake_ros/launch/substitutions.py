from __future__ import annotations

from . import text


class LaunchConfiguration:
    def __init__(self, name, *, default=None):
        self.name = text(name, "name")

    def perform(self, context):
        if self.name not in context.launch_configurations:
            raise RuntimeError(f"launch configuration '{self.name}' does not exist")
        return context.launch_configurations[self.name]
