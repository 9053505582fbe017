"""Stands in for ROS 2's `launch` where there is none: what our launch files use of it, with the
rules that the real one holds them to."""

from __future__ import annotations


class LaunchDescriptionEntity:
    pass


def text(value, what: str) -> str:
    """`launch` takes texts and substitutions; ours are all texts."""
    if not isinstance(value, str):
        raise TypeError(f"{what}: expected a text, saw {type(value).__name__}")
    return value


class LaunchDescription(LaunchDescriptionEntity):
    def __init__(self, initial_entities=None):
        self.entities = list(initial_entities or [])
        for entity in self.entities:
            if not isinstance(entity, LaunchDescriptionEntity):
                raise TypeError(f"expected entities, saw {type(entity).__name__}")


class LaunchContext:
    def __init__(self, *, argv=None, noninteractive=False):
        self.argv = list(argv or [])
        self.launch_configurations: dict[str, str] = {}
        self.is_shutdown = False
