"""YAML mappings into frozen dataclasses: unknown keys, missing keys and wrong types are named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section

T = TypeVar("T")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping, saw {type(data).__name__}")
    return data


def read_parts(
    path: Path, policy: str, parts: Mapping[str, type], overrides: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """The name in a run's config file, and each part of it as its dataclass.

    A part that the file lacks has the defaults. ``overrides`` replace keys of ``training``.

    Raises:
        UserError: not such a file, or one of another policy; names the key.
    """
    data = read_yaml(path)
    if overrides and isinstance(data.get("training"), dict):
        data["training"] = {**data["training"], **overrides}
    section = Section(str(path), "", data)
    section.choice("policy", (policy,))
    name = section.text("name")
    found = {
        key: read_dataclass(kind, section.optional_child(key) or Section(str(path), key, {}))
        for key, kind in parts.items()
    }
    section.done()
    return name, found


def read_dataclass(cls: type[T], section: Section) -> T:
    """Builds `cls` from the keys of `section`; fields without a default must be there.

    Fields may be bool, int, float, str, tuple[str, ...], another dataclass, or Mapping[str, another
    dataclass]. What the values mean is checked by the dataclass's own `__post_init__`, which raises
    ValueError("key: ...").
    """
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.default is not dataclasses.MISSING:
            value = section.value(field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            value = section.value(field.name, field.default_factory())
        else:
            value = section.value(field.name)
        values[field.name] = _convert(section, field.name, hints[field.name], value)
    section.done()
    try:
        return cls(**values)
    except ValueError as error:
        where = f"{section.path}." if section.path else ""
        raise UserError(f"{section.origin}: {where}{error}") from error


def _convert(section: Section, key: str, kind: Any, value: Any) -> Any:
    """`value` as `kind`, without guessing: only int -> float and list -> tuple are converted."""
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else read_dataclass(kind, section.child(key))
    if get_origin(kind) is Mapping:
        if value == {}:
            return {}
        inner = get_args(kind)[1]
        return {name: read_dataclass(inner, child) for name, child in section.children(key)}
    if kind == tuple[str, ...]:
        if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            return tuple(value)
        section.fail(key, "a list of names", repr(value))
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    return section.fail(key, f"a value of type {getattr(kind, '__name__', kind)}", repr(value))


def as_mapping(settings: Any) -> dict[str, Any]:
    """A dataclass as plain YAML data; `read_dataclass` reads it back."""
    data = dataclasses.asdict(settings)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


def run_fingerprint(run: Any) -> str:
    """Names the settings of a run, a dataclass of a `name` and of parts that are dataclasses: it
    may be resumed only with the same ones."""
    parts = [as_mapping(part) for key, part in vars(run).items() if key != "name"]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
