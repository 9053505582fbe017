from __future__ import annotations

import yaml
from launch import text
from launch.actions import Action

from .parameter_descriptions import ParameterValue


def evaluated(value):
    """A text is read as YAML unless it is wrapped, as the real one does."""
    if isinstance(value, ParameterValue):
        return value.value
    if isinstance(value, str):
        return yaml.safe_load(value or "''")
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"expected a value of a parameter, saw {type(value).__name__}")
    return value


class Node(Action):
    def __init__(
        self, *, executable, package=None, name=None, namespace=None, exec_name=None,
        parameters=None, remappings=None, arguments=None, env=None, output="log",
        sigterm_timeout="5", sigkill_timeout="5", respawn=False,
    ):  # fmt: skip
        self.command = [text(executable, "executable"), *(text(a, "argument") for a in arguments)]
        self.name, self.namespace = text(name, "name"), text(namespace, "namespace")
        self.parameters = {
            text(key, "parameter"): evaluated(value)
            for group in parameters
            for key, value in group.items()
        }
        self.remappings = [(text(a, "from"), text(b, "to")) for a, b in remappings]
        self.env = {text(k, "variable"): text(v, k) for k, v in (env or {}).items()}
        float(text(sigterm_timeout, "sigterm_timeout"))
        if output not in ("log", "screen", "both", "own_log", "full"):
            raise ValueError(f"output: {output}")
        self.process_details = None
        self.return_code = None
