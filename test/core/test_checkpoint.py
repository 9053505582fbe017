"""Checkpoints and memory blobs: round trips, interruptions, damage."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from embodied_rl.core import checkpoint
from embodied_rl.core.checkpoint import (
    atomic_folder,
    atomic_write,
    load_checkpoint,
    pack_memory,
    save_checkpoint,
    unpack_memory,
)
from embodied_rl.core.errors import UserError

CONFIG = {"policy": "probe", "width": 3, "rate": 1e-4, "streams": ["b", "a"], "text": "größe: ja"}
TENSORS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "scalar": np.array(7.5, dtype=np.float32),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "counts": np.array([1, -2], dtype=np.int64),
    "flags": np.array([True, False]),
    "pixels": np.arange(12, dtype=np.uint8)[::2],
}


class Interrupted(Exception):
    pass


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def same(found, wanted) -> None:
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape, key
        np.testing.assert_array_equal(found[key], value)


def test_round_trip(tmp_path):
    folder = tmp_path / "deep" / "model"
    save_checkpoint(folder, CONFIG, TENSORS, "# Card\n")
    assert names(folder) == ["CARD.md", "config.yaml", "weights.safetensors"]
    config, tensors = load_checkpoint(folder)
    assert config == CONFIG and list(config) == list(CONFIG)
    same(tensors, TENSORS)
    same(load_file(folder / "weights.safetensors"), TENSORS)  # any reader of the format can
    assert (folder / "CARD.md").read_text() == "# Card\n"
    assert names(folder.parent) == ["model"]


def test_saving_again_replaces_everything(tmp_path):
    save_checkpoint(tmp_path / "m", {"a": 1}, {"x": np.zeros(2)}, "one")
    (tmp_path / "m" / "stray").write_text("old")
    save_checkpoint(tmp_path / "m", {"b": 2}, {"y": np.ones(3)}, "two")
    config, tensors = load_checkpoint(tmp_path / "m")
    assert config == {"b": 2} and list(tensors) == ["y"]
    assert names(tmp_path / "m") == ["CARD.md", "config.yaml", "weights.safetensors"]
    assert names(tmp_path) == ["m"]


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "m", {"a": 1}, {"x": np.zeros(2)}, "one")
    monkeypatch.setattr(checkpoint, "save", lambda tensors: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        save_checkpoint(tmp_path / "m", {"a": 2}, {"x": np.ones(2)}, "two")
    config, tensors = load_checkpoint(tmp_path / "m")
    assert config == {"a": 1} and tensors["x"].tolist() == [0, 0]
    assert names(tmp_path) == ["m"]


def test_atomic_write(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("one")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "one"
    with pytest.raises(Interrupted), atomic_write(path) as temporary:
        temporary.write_text("half of two")
        raise Interrupted
    assert path.read_text() == "one" and names(path.parent) == ["file.txt"]
    with atomic_write(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two" and names(path.parent) == ["file.txt"]


def test_atomic_write_of_nothing_is_an_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_atomic_folder(tmp_path):
    path = tmp_path / "set"
    with atomic_folder(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "one").write_text("1")
        assert not path.exists()
    assert (path / "sub" / "one").read_text() == "1"
    with pytest.raises(Interrupted), atomic_folder(path) as temporary:
        (temporary / "two").write_text("2")
        raise Interrupted
    assert names(path) == ["sub"] and names(tmp_path) == ["set"]
    with atomic_folder(path) as temporary:
        (temporary / "two").write_text("2")
    assert names(path) == ["two"] and names(tmp_path) == ["set"]


@pytest.fixture
def saved(tmp_path):
    save_checkpoint(tmp_path / "m", CONFIG, TENSORS, "")
    return tmp_path / "m"


@pytest.mark.parametrize("name", ["config.yaml", "weights.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=name):
        load_checkpoint(saved)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="absent/config.yaml: cannot be read: No such file"):
        load_checkpoint(tmp_path / "absent")


def test_damaged_weights_are_refused(saved):
    path = saved / "weights.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:-1], whole[: len(whole) // 2], b"\xff" * 64, b"{}" * 20):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="weights.safetensors: not a readable safetensors file"):
            load_checkpoint(saved)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- 1", "expected a mapping, saw list"),
        (b"", "expected a mapping, saw NoneType"),
        (b"a: [", "not valid YAML"),
        (b"a: \xff\xfe", "expected UTF-8"),
        (b"a: !!python/object:os.system {}", "not valid YAML"),
        (b"a: 1\na: 2", "key 'a' twice"),
    ],
)
def test_a_damaged_config_is_refused(saved, content, said):
    (saved / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match="config.yaml") as caught:
        load_checkpoint(saved)
    assert said in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(saved, dtype, bad):
    weights = {"sound": np.ones(2, dtype), "broken": np.array([1, bad], dtype)}
    (saved / "weights.safetensors").write_bytes(save(weights))
    with pytest.raises(UserError, match="tensor 'broken' holds values that are not finite"):
        load_checkpoint(saved)


# Memory blobs

FIELDS = {"tick": 12, "episode": "größe", "scale": 0.1, "list": [1, 2], "none": None}


def test_memory_round_trip():
    blob = pack_memory("ptp/1234", FIELDS, TENSORS)
    fields, arrays = unpack_memory("ptp/1234", blob)
    assert fields == FIELDS
    same(arrays, TENSORS)
    assert unpack_memory("a", pack_memory("a", {}, {})) == ({}, {})


def test_memory_of_another_owner_is_refused():
    with pytest.raises(UserError, match="memory: expected that of ptp/2, saw that of ptp/1"):
        unpack_memory("ptp/2", pack_memory("ptp/1", FIELDS, TENSORS))


def header_only(header) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"short",
        b"\xff" * 40,
        struct.pack("<Q", 10**12) + b"{}",
        header_only([]),
        header_only({}),
        header_only({"__metadata__": None}),
        header_only({"__metadata__": {"owner": "me"}}),
        header_only({"__metadata__": {"owner": "me", "fields": "{"}}),
        save({"x": np.ones(2)}),
    ],
)
def test_what_is_no_memory_is_refused(blob):
    with pytest.raises(UserError, match="memory: not a memory of me"):
        unpack_memory("me", blob)


WHOLE = pack_memory("me", FIELDS, TENSORS)


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_a_blob_cut_anywhere_is_refused(cut):
    with pytest.raises(UserError, match="memory"):
        unpack_memory("me", WHOLE[:cut])


@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_flipped_byte_gives_an_answer_or_a_user_error(place, byte):
    """The format has no checksum, so a changed number may pass; nothing else may be raised."""
    damaged = bytearray(WHOLE)
    damaged[place] = byte
    try:
        fields, arrays = unpack_memory("me", bytes(damaged))
    except UserError as error:
        assert "memory" in str(error)
    else:
        assert isinstance(fields, dict) and isinstance(arrays, dict)
