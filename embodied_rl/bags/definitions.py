"""Message definitions that a bag brings along, checked before code is made of them.

``rosbags`` writes a decoder for each type, with a line for every element of a nested array. What
is read here was written by anybody: a line of text may ask for a decoder of any size.
"""

from __future__ import annotations

from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import TypesysError, get_types_from_idl, get_types_from_msg

from embodied_rl.bags.storage import TopicInfo
from embodied_rl.core.errors import quoted

LONGEST = 200_000  # characters
LARGEST = 5_000  # fields of a message, those of nested types and of arrays of them counted
_DEEPEST = 50

Types = dict[str, Any]  # name -> (constants, [(field, description)]), see rosbags


class Refused(Exception):
    """A definition that is not used; the text says why."""


def types_of(topic: TopicInfo) -> Types:
    """The types that the definition of a topic holds.

    Raises:
        Refused: it cannot be read, contains itself, or is too large.
    """
    if len(topic.definition) > LONGEST:
        raise Refused(f"{len(topic.definition)} characters, more than {LONGEST}")
    try:
        if topic.encoding == "ros2idl":
            types: Types = dict(get_types_from_idl(topic.definition))
        else:
            types = dict(get_types_from_msg(topic.definition, topic.type))
        for name in types:
            _size(types, name, {}, 0)
    except TypesysError as error:
        raise Refused(quoted(str(error))) from error
    except (RecursionError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Refused(f"text that cannot be read ({quoted(str(error))})") from error
    return types


def _size(types: Types, name: str, known: dict[str, int], depth: int) -> int:
    """Fields that a decoder of a type reads one by one."""
    if depth > _DEEPEST:
        raise Refused(f"{name} contains itself, or types nested more than {_DEEPEST} deep")
    if name not in types:
        return 1
    if name not in known:
        fields = types[name][1]
        known[name] = max(1, sum(_field(types, field, known, depth) for _, field in fields))
        if known[name] > LARGEST:
            raise Refused(f"{name} has {known[name]} fields, more than {LARGEST}")
    return known[name]


def _field(types: Types, field: tuple[Nodetype, Any], known: dict[str, int], depth: int) -> int:
    kind, detail = field
    if kind == Nodetype.NAME:
        return _size(types, detail, known, depth + 1)
    if kind == Nodetype.SEQUENCE:
        return _field(types, detail[0], known, depth)
    if kind == Nodetype.ARRAY:
        inner, count = detail
        plain = inner[0] == Nodetype.BASE and inner[1][0] not in ("string", "wstring")
        return 1 if plain else int(count) * _field(types, inner, known, depth)
    return 1
