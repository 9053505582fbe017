from __future__ import annotations

from collections.abc import Iterable

from . import LaunchContext, LaunchDescriptionEntity, text
from .event_handlers import EventHandler
from .events import Event


class Action(LaunchDescriptionEntity):
    def execute(self, context: LaunchContext):
        return None


class DeclareLaunchArgument(Action):
    def __init__(self, name, *, default_value=None, description=None, choices=None):
        self.name = text(name, "name")
        self.default_value = default_value
        self.description = text(description, name)
        self.choices = choices
        if default_value is not None:
            text(default_value, f"default of {name}")
        if choices is not None:
            if not choices:
                raise RuntimeError("Provided choices arg is empty.")
            if default_value is not None and default_value not in choices:
                raise RuntimeError(f'default_value "{default_value}" is not in provided choices')

    def execute(self, context):
        given = context.launch_configurations
        if self.name not in given:
            if self.default_value is None:
                raise RuntimeError(f'Required launch argument "{self.name}" was not provided.')
            given[self.name] = self.default_value
        if self.choices is not None and given[self.name] not in self.choices:
            raise RuntimeError(f'Argument "{self.name}" is not valid')


class OpaqueFunction(Action):
    def __init__(self, *, function, args=None, kwargs=None):
        if not callable(function):
            raise TypeError("function: expected a callable")
        self.function = function

    def execute(self, context):
        found = self.function(context)
        if found is not None and not isinstance(found, Iterable):
            raise TypeError("function: expected entities or None")
        return found


class EmitEvent(Action):
    def __init__(self, *, event):
        if not isinstance(event, Event):
            raise TypeError("event: expected an Event")
        self.event = event


class LogInfo(Action):
    def __init__(self, *, msg):
        self.msg = text(msg, "msg")


class RegisterEventHandler(Action):
    def __init__(self, event_handler):
        if not isinstance(event_handler, EventHandler):
            raise TypeError("event_handler: expected an EventHandler")
        self.event_handler = event_handler
