"""Checkpoints: a folder of ``config.yaml``, ``weights.safetensors`` and ``CARD.md``, no pickle."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import load_yaml_mapping

# what a user can mend; other errors of the system are defects of ours
NOT_WRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
)  # fmt: skip
CONFIG, WEIGHTS, CARD = "config.yaml", "weights.safetensors", "CARD.md"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, fsynced and renamed over it when the block succeeds.

    Raises:
        UserError: the disk is full, or nothing may be written there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Like :func:`atomic_write` for a folder; one that stands at ``path`` is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = uuid.uuid4().hex[:8]
    temporary = path.with_name(f".{path.name}.{tag}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            # Two renames: a reader sees the old folder, for an instant none, then the new one.
            old = path.with_name(f".{path.name}.{tag}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        _sync(path.parent)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], card: str
) -> None:
    """Write a checkpoint folder in one step; an interruption leaves the old one or none."""
    with atomic_folder(folder) as temporary:
        text = yaml.safe_dump(dict(config), sort_keys=False)
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        contiguous = {key: np.asarray(value, order="C") for key, value in tensors.items()}
        (temporary / WEIGHTS).write_bytes(save(contiguous))
        (temporary / CARD).write_text(card, encoding="utf-8")


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and tensors of a checkpoint.

    Raises:
        UserError: a file is missing or damaged, or a weight is not finite; names file and tensor.
    """
    folder = Path(folder)
    config = load_yaml_mapping(folder / CONFIG)
    path = folder / WEIGHTS
    tensors = {}
    try:
        with safe_open(path, framework="numpy") as weights:
            for key in weights.keys():  # noqa: SIM118 - not a mapping
                tensors[key] = weights.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from error
    for key, value in tensors.items():
        if np.issubdtype(value.dtype, np.floating) and not np.all(np.isfinite(value)):
            raise UserError(f"{path}: tensor '{key}' holds values that are not finite")
    return config, tensors


def pack_memory(owner: str, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A policy's memory as one blob: arrays, plain fields, and whose memory it is."""
    header = {"owner": owner, "fields": json.dumps(dict(fields))}
    contiguous = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    return save(contiguous, metadata=header)


def unpack_memory(owner: str, blob: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fields and arrays of a blob made by :func:`pack_memory`.

    Raises:
        UserError: the blob is damaged, or is the memory of another owner; both are named.
    """
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length]).get("__metadata__", {})
        arrays = load(blob)
        fields = json.loads(header["fields"])
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"memory: not a memory of {owner}: damaged blob ({error})") from error
    if header.get("owner") != owner:
        raise UserError(f"memory: expected that of {owner}, saw that of {header.get('owner')}")
    return fields, arrays
