"""Checkpoint files: what goes in comes out to the bit, and whatever is done to the file, the error is ours."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from stoker.atomic import write_atomic
from stoker.errors import CheckpointError
from stoker.training.checkpoints import files
from stoker.training.checkpoints.files import checkpoint_paths, newest, read_checkpoint, write_checkpoint

inf, nan = float("inf"), float("nan")


def some(step: int = 1) -> dict[str, Any]:
    return {"step": step, "weights": {"a": torch.full((2, 3), float(step))}, "lr": 0.1, "betas": (0.9, 0.999)}


def alike(one: Any, other: Any) -> bool:
    """Whether two values are of the same types and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and one.stride() == other.stride()
        return bool(same and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes())
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other or (one != one and other != other))


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([torch.tensor(3.0), torch.zeros(0, 2), torch.arange(6).view(2, 3).t(), torch.tensor([nan, -0.0])])
)
values = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    max_size=4,
)
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PROPERTY
@given(values)
@example(
    {
        "counter": Counter({3: 2}),
        "1": torch.ones(1),
        "none": [None, {}, (), [], {"1": torch.ones(2), 1: torch.zeros(2)}],
    }
)
@example({"last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), "inf": (inf, -inf, nan)})
def test_what_goes_in_comes_out(tmp_path: Path, value: dict[str, Any]) -> None:
    assert alike(read_checkpoint(write_checkpoint(tmp_path, 1, value, keep=1)), value)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    read = read_checkpoint(write_checkpoint(tmp_path, 1, {"x": tensor}, keep=1))["x"]
    assert read.dtype == dtype
    assert torch.equal(read, tensor)


def test_tensors_that_share_their_memory(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    value = {"whole": whole, "half": whole[:3], "again": whole, "spread": torch.ones(1).expand(3)}
    read = read_checkpoint(write_checkpoint(tmp_path, 1, value, keep=1))
    assert all(torch.equal(read[name], value[name]) for name in value)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ({"f": print}, "builtin_function_or_method"),
        ({"a": {(1, 2): 3}}, "keys that are neither texts nor numbers"),
        ({"x": torch.ones(2).to_sparse()}, r"a tensor of layout torch\.sparse_coo"),
    ],
)
def test_what_cannot_be_kept_is_named(value: dict[str, Any], got: str, tmp_path: Path) -> None:
    name = next(iter(value))
    with pytest.raises(CheckpointError, match=rf"^checkpoint, state/{name}: can hold numbers, texts, .*, got {got}\."):
        write_checkpoint(tmp_path, 1, value, keep=1)
    assert list(tmp_path.iterdir()) == []


def test_a_value_within_itself(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["value"] = value
    with pytest.raises(CheckpointError, match="more than 60 levels"):
        write_checkpoint(tmp_path, 1, value, keep=1)


def test_the_newest_are_kept_and_those_of_another_course_are_not(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        write_checkpoint(tmp_path, step, some(step), keep=2)
    assert [path.name for path in checkpoint_paths(tmp_path)] == [
        "step-0000000010.safetensors",
        "step-0000000003.safetensors",
    ]
    (tmp_path / f".tmp-{os.getpid() + 1}-step-0000000004.safetensors").write_bytes(b"half a file")
    (tmp_path / "notes.txt").write_text("mine")
    write_checkpoint(tmp_path, 4, some(4), keep=2)  # went on from 3
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-0000000004.safetensors", "step-0000000003.safetensors", "notes.txt"}


def test_a_writer_that_is_behind_does_not_disturb_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def then_another(path: Path, write: Any) -> None:
        write_atomic(path, write)
        monkeypatch.setattr(files, "write_atomic", write_atomic)
        write_checkpoint(tmp_path, 50, some(50), keep=1)

    monkeypatch.setattr(files, "write_atomic", then_another)
    write_checkpoint(tmp_path, 100, some(100), keep=1)
    assert [path.name for path in checkpoint_paths(tmp_path)] == ["step-0000000050.safetensors"]


def test_no_checkpoints(tmp_path: Path) -> None:
    assert newest(tmp_path, pytest.fail) is None
    assert newest(tmp_path / "nowhere", pytest.fail) is None


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(data[: len(data) // 2])
    elif how == "one bit of a weight":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "edited":
        path.write_bytes(data.replace(b"0.999", b"0.998"))
    elif how == "another file":
        save_file({"a": torch.ones(2)}, path)
    elif how == "a folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["empty", "half", "one bit of a weight", "edited", "another file", "a folder"])
def test_a_damaged_checkpoint_is_passed_over_and_told(how: str, tmp_path: Path) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, some(step), keep=3)
    damage(tmp_path / "step-0000000002.safetensors", how)
    told: list[str] = []
    found = newest(tmp_path, told.append)
    assert found is not None
    assert alike(found[1], some(1))
    assert found[0].name == "step-0000000001.safetensors"
    assert "passed over" in told[0]
    assert "step-0000000002.safetensors: must " in told[0]
    assert told[1] == f"going on from the one before: {found[0]}"


def test_nothing_but_damaged_ones_is_an_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, some(), keep=3)
    damage(tmp_path / "step-0000000001.safetensors", "half")
    with pytest.raises(CheckpointError, match=r"must have a checkpoint that is whole, got 1 damaged\. Restore"):
        newest(tmp_path, lambda _: None)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_happened_to_the_bytes_the_one_before_is_used(tmp_path: Path, data: st.DataObject) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, some(step), keep=3)
    path = tmp_path / "step-0000000002.safetensors"
    whole = path.read_bytes()
    bytes_ = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "zeros"]))
        place = data.draw(st.integers(0, max(0, len(bytes_) - 1)))
        if kind == "flip" and bytes_:
            bytes_[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del bytes_[place:]
        elif kind == "insert":
            bytes_[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            bytes_[place : place + 64] = bytes(len(bytes_[place : place + 64]))
    path.write_bytes(bytes_)
    found = newest(tmp_path, lambda _: None)
    assert found is not None
    wanted = some(1 if found[0] != path else 2)
    assert alike(found[1], wanted), "what is read is what was written, of one or of the other"
    if bytes(bytes_) == whole:
        assert found[0] == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tensor", "order", "strides", "dict", "tuple", "float", "counter", "x"]), inner, max_size=3
        )
    ),
    max_leaves=15,
)


def forged(path: Path, text: str) -> None:
    """A checkpoint whose JSON is another, and whose digest fits it."""
    tensors = {"t": torch.ones(2, 3)}
    digest = files._digest(text, tensors)
    save_file(tensors, path, metadata={"stoker-checkpoint": files.FORMAT, "state": text, "digest": digest})


@PROPERTY
@given(json_values)
@example({"tensor": "t", "order": [0, 0], "strides": [1, 1]})
@example({"tensor": "t", "order": [True, False], "strides": [1, 1]})
@example({"tensor": "t", "order": [0, 1], "strides": [1]})
@example({"tensor": "t", "order": [0, 1], "strides": [10**9, 1]})
@example({"tensor": "t", "order": [0, 1], "strides": [0, 0]})
@example({"tensor": "t", "order": [0, 1], "strides": "11"})
@example({"dict": [["a"]]})
@example({"dict": [[{"tensor": "t"}, 1]]})
def test_edited_json_that_fits_its_digest_is_read_or_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "step-1.safetensors"
    write_checkpoint(tmp_path, 0, some(0), keep=2)
    forged(path, json.dumps(value))
    told: list[str] = []
    found = newest(tmp_path, told.append)  # and if it is refused, the one before is used
    assert found is not None
    assert found[0] == path or "must hold" in told[0]
    assert isinstance(found[1], dict)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "[1", '{"dict": [["a", NaN]]}', "[[[[0]]]]"])
def test_json_bombs(text: str, tmp_path: Path) -> None:
    path = tmp_path / "step-1.safetensors"
    forged(path, text)
    with pytest.raises(CheckpointError, match="must hold"):
        read_checkpoint(path)


def test_a_header_that_claims_to_be_huge(tmp_path: Path) -> None:
    path = tmp_path / "step-1.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
        read_checkpoint(path)


def test_it_is_a_safetensors_file_like_any_other(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 7, some(7), keep=1)
    assert {name: tensor.tolist() for name, tensor in load_file(path).items()} == {"state/weights/a": [[7.0] * 3] * 2}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file: must be a folder to write to, got .*Choose another folder"):
        write_checkpoint(tmp_path / "file", 1, some(), keep=1)
