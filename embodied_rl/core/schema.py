"""Reading one mapping of a YAML file key by key, with errors that name file and key."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from embodied_rl.core.errors import UserError

_ABSENT = object()
_RELATIVE_NAME = re.compile(r"^(~/)?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*$")


class Section:
    """A cursor over one mapping: every getter checks type and range, :meth:`done` the leftovers."""

    def __init__(self, origin: str, path: str, data: Any):
        self.origin, self.path = origin, path
        self.key = path.rsplit(".", 1)[-1]
        if not isinstance(data, dict):
            name = path or "the file"
            raise UserError(f"{origin}: {name}: expected a mapping, saw {_describe(data)}")
        self._data = data
        self._seen: set[str] = set()

    def _full(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, expected: object, seen: object) -> NoReturn:
        raise UserError(f"{self.origin}: {self._full(key)}: expected {expected}, saw {seen}")

    def value(self, key: str, default: Any = _ABSENT) -> Any:
        self._seen.add(key)
        if key in self._data:
            return self._data[key]
        if default is _ABSENT:
            raise UserError(f"{self.origin}: {self._full(key)}: missing")
        return default

    def text(self, key: str, default: Any = _ABSENT) -> str:
        value = self.value(key, default)
        if not isinstance(value, str):
            self.fail(key, "text", _describe(value))
        return value

    def positive(self, key: str) -> float:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(key, "a number", _describe(value))
        if not (math.isfinite(value) and value > 0):
            self.fail(key, "a finite number above 0", value)
        return float(value)

    def choice(self, key: str, allowed: Iterable[str]) -> str:
        value, allowed = self.value(key), list(allowed)
        if value not in allowed:
            self.fail(key, f"one of {allowed}", _describe(value))
        return str(value)

    def relative_name(self, key: str) -> str:
        """A relative ROS name, so that a namespace moves the whole robot."""
        value = self.text(key)
        if not _RELATIVE_NAME.match(value):
            self.fail(key, "a relative ROS name such as 'camera/fixed/image_raw'", f"'{value}'")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        value = self.value(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            self.fail(key, "a list of names", _describe(value))
        if len(set(value)) != len(value):
            self.fail(key, "different names", value)
        return tuple(value)

    def shape(self, key: str) -> tuple[int, ...]:
        value = self.value(key)
        sound = isinstance(value, list) and all(type(v) is int and v > 0 for v in value)
        if not sound or not value:
            self.fail(key, "a list of whole numbers above 0", _describe(value))
        return tuple(value)

    def vector(self, key: str, count: int) -> np.ndarray:
        value = self.value(key)
        sound = isinstance(value, list) and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
        )
        if not sound:
            self.fail(key, f"{count} numbers", _describe(value))
        array = np.array(value, dtype=np.float64)
        if array.shape != (count,):
            self.fail(key, f"{count} numbers", f"{len(value)}")
        if not np.all(np.isfinite(array)):
            self.fail(key, "finite numbers", value)
        array.setflags(write=False)
        return array

    def children(self, key: str) -> list[tuple[str, Section]]:
        part = Section(self.origin, self._full(key), self.value(key))
        if not part._data:
            self.fail(key, "at least one entry", "none")
        return [
            (name, Section(self.origin, f"{self._full(key)}.{name}", data))
            for name, data in part._data.items()
        ]

    def optional_child(self, key: str) -> Section | None:
        data = self.value(key, None)
        return None if data is None else Section(self.origin, self._full(key), data)

    def done(self) -> None:
        """Refuse keys that nobody asked for: a typing error must not become a default."""
        for key in self._data:
            if key not in self._seen:
                near = difflib.get_close_matches(str(key), sorted(self._seen), 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {sorted(self._seen)}"
                raise UserError(f"{self.origin}: {self._full(str(key))}: unknown key; {hint}")


def load_yaml_mapping(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping.

    Raises:
        UserError: missing, unreadable or of another form; names the file.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping, saw {type(data).__name__}")
    return data


def _describe(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) < 60 else text[:57] + '...'} ({type(value).__name__})"
