"""Typed launch arguments, written ``name:=value`` as `ros2 launch` has them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from embodied_rl.core.errors import UserError

Value = str | int | float | bool

_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
LARGEST = 2**63 - 1  # of the whole numbers that a ROS parameter holds
_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Argument:
    """One argument of a graph.

    Attributes:
        default: the text used when the argument is not given; None makes it required.
        kind: str, int, float, bool, path (made absolute), namespace (outer slashes dropped) or
            topic.
        choices: the values it may take; empty means any.
        several: a comma-separated list of `choices`, or ``none``.
        minimum: the lowest number allowed (int and float).
        optional: an empty text (the default, as a rule) stands for no value at all.
    """

    name: str
    default: str | None
    description: str
    kind: str = "str"
    choices: tuple[str, ...] = ()
    several: bool = False
    minimum: float | None = None
    optional: bool = False

    def parse(self, text: str) -> Value:
        """Returns the typed value.

        Raises:
            UserError: not of this kind or not one of the choices; names the argument and both.
        """
        if self.optional and not text:
            return ""
        if self.choices:
            return self._choice(text)
        if self.kind == "bool":
            if text.lower() not in _BOOLS:
                raise self._wrong("true or false", text)
            return _BOOLS[text.lower()]
        if self.kind in ("int", "float"):
            return self._number(text)
        if self.kind == "path":
            return str(Path(text).expanduser().absolute()) if text else ""
        if self.kind == "namespace":
            name = text.strip("/")
            if name and not _NAMESPACE.fullmatch(name):
                raise self._wrong("a ROS namespace such as left or cell_1/left", text)
            return name
        if self.kind == "topic" and not _NAMESPACE.fullmatch(text.removeprefix("/")):
            raise self._wrong("a ROS topic such as clock or /clock", text)
        return text

    def _number(self, text: str) -> Value:
        try:
            number: int | float = int(text) if self.kind == "int" else float(text)
        except ValueError:
            number = float("nan")
        bound = "" if self.minimum is None else f" of at least {self.minimum:g}"
        if abs(number) > LARGEST:  # the middleware would take it for a number of another type
            raise self._wrong(f"a number up to {LARGEST}", text)
        if number != number or (self.minimum is not None and number < self.minimum):
            raise self._wrong(
                f"{'a whole number' if self.kind == 'int' else 'a number'}{bound}", text
            )
        return number

    def _choice(self, text: str) -> str:
        parts = [p.strip() for p in text.split(",")] if self.several else [text]
        if self.several and parts == ["none"]:
            return "none"
        for part in parts:
            if part not in self.choices:
                listed = ", ".join(self.choices)
                expected = f"some of {listed}, or none" if self.several else f"one of {listed}"
                raise self._wrong(expected + suggestion(part, self.choices), text)
        return ",".join(parts)

    def _wrong(self, expected: str, seen: str) -> UserError:
        return UserError(f"{self.name}:={seen}: expected {expected}")


def suggestion(word: str, names: Iterable[str], closeness: float = 0.6) -> str:
    """Returns `` (did you mean X?)`` or nothing; 1 is the `closeness` of equal words."""
    near = difflib.get_close_matches(word, list(names), n=1, cutoff=closeness)
    return f" (did you mean {near[0]}?)" if near else ""


def split(words: Iterable[str]) -> dict[str, str]:
    """Returns ``name -> text`` of words of the form ``name:=value``.

    Raises:
        UserError: a word of another form, or a name given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, sign, text = word.partition(":=")
        if not sign or not name:
            raise UserError(f"'{word}': arguments are written name:=value, such as seed:=1")
        if name in found:
            raise UserError(f"'{name}' is given twice: {name}:={found[name]} and {word}")
        found[name] = text
    return found


def parse(
    graph: str, arguments: tuple[Argument, ...], given: Mapping[str, str]
) -> dict[str, Value]:
    """Returns the value of every argument, given or default.

    Raises:
        UserError: an unknown name, a missing required argument, or a bad value.
    """
    known = {argument.name: argument for argument in arguments}
    for name in given:
        if name not in known:
            raise UserError(
                f"graph '{graph}' has no argument '{name}'{suggestion(name, known)}; "
                f"it has {', '.join(known)}"
            )
    values: dict[str, Value] = {}
    for name, argument in known.items():
        text = given.get(name, argument.default)
        if text is None:
            raise UserError(f"graph '{graph}' needs {name}:=... ({argument.description})")
        values[name] = argument.parse(text)
    return values
