"""Reading one mapping of a YAML file key by key, with errors that name file and key."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from embodied_rl.core.errors import UserError

MANY = 8  # options that still fit into one line of an error
LONGEST_MESSAGE = 20_000  # characters of a text that comes over a topic
DEEPEST = 60  # levels of a YAML text
MOST_NODES = 1_000_000  # values of a YAML text once its aliases are followed
LONGEST_LINE = 300  # characters of a text of unknown origin in a log or in the diagnostics
_ABSENT = object()
_LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxX_:.]{1000,}")
_EventLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SERVICE_NAME = re.compile(r"^(~?/)?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*$")
_TYPE_NAME = re.compile(r"^[a-z][a-z0-9_]*/(msg|srv|action)/[A-Z][A-Za-z0-9]*$")
_RELATIVE_NAME = re.compile(r"^(~/)?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*$")


class Section:
    """A cursor over one mapping: every getter checks type and range, :meth:`done` the leftovers."""

    def __init__(self, origin: str, path: str, data: Any):
        self.origin, self.path = origin, path
        self.key = path.rsplit(".", 1)[-1]  # of a child: its whole name, dots and all
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

    def has(self, key: str) -> bool:
        return key in self._data

    def text(self, key: str, default: Any = _ABSENT) -> str:
        value = self.value(key, default)
        if not isinstance(value, str):
            self.fail(key, "text", _describe(value))
        return value

    def number(self, key: str) -> float:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(key, "a number", _describe(value))
        if not abs(value) <= sys.float_info.max:
            self.fail(key, "a finite number", _describe(value))
        return float(value)

    def positive(self, key: str) -> float:
        value = self.number(key)
        if value <= 0:
            self.fail(key, "a finite number above 0", _describe(value))
        return value

    def count(self, key: str) -> int:
        value = self.value(key)
        if type(value) is not int or value < 1:
            self.fail(key, "a whole number above 0", _describe(value))
        return value

    def whole(self, key: str) -> int:
        value = self.value(key)
        if type(value) is not int or value < 0:
            self.fail(key, "a whole number of 0 or more", _describe(value))
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.value(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false", _describe(value))
        return value

    def at_least_zero(self, key: str, default: Any = _ABSENT) -> float:
        value = self.value(key, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= sys.float_info.max:
            self.fail(key, "a number of 0 or more", _describe(value))
        return float(value)

    def rate(self, key: str) -> float:
        """A rate in Hz whose period is a sound number of nanoseconds."""
        value = self.positive(key)
        if not 1e-3 <= value <= 1e6:
            self.fail(key, "a rate between 1e-3 and 1e6 Hz", value)
        return value

    def choice(self, key: str, allowed: Iterable[str], default: Any = _ABSENT) -> str:
        value, allowed = self.value(key, default), list(allowed)
        if value not in allowed:
            self.fail(key, _options(value, allowed), _describe(value))
        return str(value)

    def relative_name(self, key: str) -> str:
        """A relative ROS name, so that a namespace moves the whole robot."""
        value = self.text(key)
        if not _RELATIVE_NAME.match(value):
            self.fail(key, "a relative ROS name such as 'camera/fixed/image_raw'", f"'{value}'")
        return value

    def service_name(self, key: str) -> str:
        """A relative or absolute ROS name."""
        value = self.text(key)
        if not _SERVICE_NAME.match(value):
            self.fail(key, "a ROS name such as 'dashboard_client/stop'", f"'{value}'")
        return value

    def type_name(self, key: str) -> str:
        value = self.text(key)
        if not _TYPE_NAME.match(value):
            self.fail(key, "a ROS type such as 'std_srvs/srv/Trigger'", f"'{value}'")
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
        if len(value) != count:
            self.fail(key, f"{count} numbers", f"{len(value)}")
        if not all(abs(v) <= sys.float_info.max for v in value):  # an int may be larger than that
            self.fail(key, "finite numbers", _describe(value))
        array = np.array(value, dtype=np.float64)
        array.setflags(write=False)
        return array

    def child(self, key: str) -> Section:
        return Section(self.origin, self._full(key), self.value(key))

    def children(self, key: str) -> list[tuple[str, Section]]:
        part = self.child(key)
        if not part._data:
            self.fail(key, "at least one entry", "none")
        found = []
        for name, data in part._data.items():
            if not isinstance(name, str):
                self.fail(key, "names as keys", _describe(name))
            child = Section(self.origin, f"{self._full(key)}.{name}", data)
            child.key = name
            found.append((name, child))
        return found

    def entries(self, key: str) -> list[Section]:
        """The mappings of a list, which may be absent."""
        items = self.value(key, [])
        if not isinstance(items, list):
            self.fail(key, "a list", _describe(items))
        path = self._full(key)
        return [Section(self.origin, f"{path}[{i}]", item) for i, item in enumerate(items)]

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


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice: YAML itself takes the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"key '{key.value}' twice", key.start_mark
                    )
                seen.add(key.value)
        return node


class _MessageLoader(_Loader):
    """Of texts that anybody may send: without aliases, a few of which make gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias, which no message needs", mark)
        return super().compose_node(parent, index)


def check_size(text: str) -> None:
    """Refuse a YAML text that is small but means much: aliases of aliases, nesting without end,
    numbers of thousands of digits.

    Raises:
        ValueError, yaml.YAMLError: says which.
    """
    sizes: dict[str, int] = {}  # anchor -> nodes below it, those of aliases counted
    open_nodes: list[tuple[str | None, int]] = []  # anchor and size of what has begun
    total = 0
    for event in yaml.parse(text, Loader=_EventLoader):
        size = 1
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_nodes.append((event.anchor, total))
            if len(open_nodes) > DEEPEST:
                raise ValueError(f"nested too deeply: more than {DEEPEST} levels of nesting")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent) and _LONG_NUMBER.fullmatch(event.value):
            raise ValueError(f"a number of {len(event.value)} characters")
        total += size
        if total > MOST_NODES:
            raise ValueError(f"aliases that make more than {MOST_NODES} values")


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text without tags of Python; ``origin`` is the name that errors carry.

    Raises:
        UserError: not YAML, nested too deeply, too much of it, or a key twice in one mapping.
    """
    return _parsed(text, origin, _Loader)


def parse_message(text: str, origin: str) -> Any:
    """:func:`parse_yaml` for a text that came over a topic: at most :data:`LONGEST_MESSAGE`
    characters, and no aliases.

    Raises:
        UserError: too long, not YAML, nested too deeply, an alias, or a key twice.
    """
    if len(text) > LONGEST_MESSAGE:
        raise UserError(f"{origin}: expected at most {LONGEST_MESSAGE} characters, saw {len(text)}")
    return _parsed(text, origin, _MessageLoader)


def _parsed(text: str, origin: str, loader: type[_Loader]) -> Any:
    try:
        check_size(text)
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise UserError(f"{origin}: not valid YAML: {plain(str(error))}") from error
    except RecursionError as error:
        raise UserError(f"{origin}: not valid YAML: nested too deeply") from error


def plain(text: str, longest: int = LONGEST_LINE) -> str:
    """A text of unknown origin as a part of one line: control characters and what no terminal can
    show are escaped, spaces joined, and what is longer than ``longest`` is cut."""
    head = text[: 4 * longest]
    words = " ".join(head.split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    cut = len(shown) > longest or len(head) < len(text)
    return f"{shown[: longest - 3]}..." if cut else shown


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: missing, unreadable or not UTF-8; names the file.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text, saw other bytes at {error.start}") from error


def load_yaml_mapping(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping.

    Raises:
        UserError: missing, unreadable or of another form; names the file.
    """
    data = parse_yaml(read_text(path), str(path))
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping, saw {type(data).__name__}")
    return data


def _options(value: Any, allowed: list[str]) -> str:
    """What may be chosen; of many only what comes near, and docs/embodiment.md has them all."""
    if len(allowed) <= MANY:
        return f"one of {allowed}"
    near = difflib.get_close_matches(str(value), allowed, 3) or allowed[:3]
    return f"one of {len(allowed)} names such as {near} (docs/embodiment.md)"


def _describe(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) < 60 else text[:57] + '...'} ({type(value).__name__})"
