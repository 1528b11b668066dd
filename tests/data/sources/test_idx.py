from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stoker.data.sources.idx import IDX_FILES, is_idx_folder, load_idx_files, load_idx_folder, parse_idx, read_idx
from stoker.errors import DataError, SourceFormatError, SourceNotFoundError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array: NDArray[Any]) -> bytes:
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1], np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "letters"
    root.mkdir()
    for name, array in zip(IDX_FILES, (IMAGES, LABELS, IMAGES[:2], LABELS[:2]), strict=True):
        packed = name.startswith("t10k")
        (root / (name + ".gz" * packed)).write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return root


@given(
    st.sampled_from(sorted(CODES)).flatmap(
        lambda code: hnp.arrays(code, hnp.array_shapes(max_dims=3, max_side=4, min_side=0))
    )
)
def test_every_type_and_shape_comes_back(array: NDArray[Any]) -> None:
    parsed = parse_idx(idx(array))
    np.testing.assert_array_equal(parsed, array)
    assert parsed.dtype == array.dtype
    assert parsed.shape == array.shape
    assert parsed.flags.writeable


@given(st.binary(max_size=40))
def test_any_bytes_are_an_array_or_a_clear_error(data: bytes) -> None:
    for prefix in (b"", b"\x00\x00\x08\x01", b"\x00\x00\x08\x02\x00\x00\x00\x03"):
        try:
            array = parse_idx(prefix + data)
        except SourceFormatError:
            continue
        assert idx(array) == prefix + data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", r"x: an IDX file begins with 0x0000, a type and a number of dimensions, got nothing\. Copy or download"),
        (b"\x89PNG", r"got 0x89504e47"),
        (b"\x00\x00\x08", r"got 0x000008"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x00", r"got 0x00000701"),  # no such type
        (b"\x00\x00\x08\x00\x05", r"got 0x00000800"),  # no dimensions
        (b"\x00\x00\x08\x03\x00\x00\x00\x01\x00", r"x: must state 3 dimensions, got 1\."),
        (idx(IMAGES)[:-1], r"x: must hold 60 bytes of values, as its header \(3, 4, 5\) says, got 59\."),
        (idx(IMAGES) + b"\x00", r"x: must hold 60 bytes of values, as its header \(3, 4, 5\) says, got more\."),
        (b"\x00\x00\x08\x30" + bytes(4 * 0x30), r"x: an IDX file begins with .*, got 0x00000830"),
        (
            b"\x00\x00\x08\x09" + bytes(4) + b"\xff" * 32,
            r"x: must have a shape that fits into memory, got \(0, 42949672",
        ),
        (b"\x00\x00\x0e\x02" + b"\xff" * 8 + b"values", r"must hold 147573952520956936200 bytes .*, got 6\."),
    ],
)
def test_what_is_no_idx_file(data: bytes, text: str) -> None:
    with pytest.raises(SourceFormatError, match=text):
        parse_idx(data, "x")


def test_the_header_reserves_no_memory() -> None:
    claim = struct.pack(">BBBBIII", 0, 0, 8, 3, 60_000, 1000, 1000) + bytes(100)
    tracemalloc.start()
    with pytest.raises(SourceFormatError, match=r"must hold 60000000000 bytes of values"):
        parse_idx(claim)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000  # pieces of 1 MiB at the most


def test_gzip_is_unpacked_no_further_than_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(IMAGES) + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(SourceFormatError, match=r"bomb\.gz: must hold 60 bytes of values.*, got more"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_files_plain_and_in_gzip(tmp_path: Path) -> None:
    for name, data in (("plain", idx(IMAGES)), ("packed", gzip.compress(idx(IMAGES)))):
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_idx(tmp_path / name), IMAGES)


def test_damaged_files(tmp_path: Path) -> None:
    packed = gzip.compress(idx(np.random.default_rng(0).integers(0, 255, (9, 9, 9), np.uint8)))
    path = tmp_path / "x.gz"
    path.write_bytes(packed[:-20])
    with pytest.raises(
        SourceFormatError, match=r"x\.gz: must be whole, got a truncated gzip file\. Copy or download it"
    ):
        read_idx(path)
    path.write_bytes(packed[:200] + bytes([packed[200] ^ 255]) + packed[201:])
    with pytest.raises(SourceFormatError, match=r"x\.gz: (must be an undamaged gzip file, got |must hold)"):
        read_idx(path)
    path.write_bytes(packed[:-8] + bytes(4) + packed[-4:])  # the checksum of what it unpacks to
    with pytest.raises(SourceFormatError, match=r"x\.gz: must be an undamaged gzip file, got CRC check failed"):
        read_idx(path)
    with pytest.raises(SourceNotFoundError, match=r"y\.gz: must be a file, got no such file"):
        read_idx(tmp_path / "y.gz")


def test_a_folder(folder: Path) -> None:
    assert is_idx_folder(folder)
    data = load_idx_folder(folder)
    assert data.images.shape == (3, 1, 4, 5)
    assert data.images.dtype == torch.uint8
    np.testing.assert_array_equal(data.images[:, 0].numpy(), IMAGES)
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [2, 0, 1]
    assert data.classes == ("0", "1", "2")
    assert data.test is not None
    assert data.test.images.shape == (2, 1, 4, 5)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [2, 0]
    provenance = data.provenance
    assert (provenance.name, provenance.origin, provenance.rows) == ("letters", str(folder), 3)
    assert provenance.fingerprint.startswith("sha256:")
    assert data.test.provenance.rows == 2


def test_a_folder_without_files_to_test_on(folder: Path) -> None:
    for name in IDX_FILES[2:]:
        (folder / f"{name}.gz").unlink()
    assert load_idx_folder(folder).test is None


@pytest.mark.parametrize("name", IDX_FILES)
def test_a_folder_that_lacks_a_file(folder: Path, name: str) -> None:
    next(folder.glob(f"{name}*")).unlink()
    text = rf"{name}: must be beside the other IDX files, got no such file\. Put it there as {name} or {name}\.gz\."
    with pytest.raises(SourceNotFoundError, match=text):
        load_idx_folder(folder)


def test_folders_of_other_things(tmp_path: Path) -> None:
    assert not is_idx_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        (IDX_FILES[0], LABELS, r"must hold images: uint8, \[n, height, width\], got uint8 of the shape \(3,\)"),
        (IDX_FILES[0], IMAGES.astype(np.int32), r"must hold images: uint8.*, got int32"),
        (IDX_FILES[0], IMAGES[:0], r"must hold images: uint8.*, got uint8 of the shape \(0, 4, 5\)"),
        (IDX_FILES[1], IMAGES, r"must hold labels: integers from 0, \[n\], got uint8 of the shape \(3, 4, 5\)"),
        (IDX_FILES[1], -LABELS.astype(np.int8), r"must hold labels: integers from 0, \[n\], got int8 of.*, from -2"),
        (IDX_FILES[1], LABELS[:0], r"must have a label for each image, got 0 labels for 3 images"),
        (IDX_FILES[1], LABELS[:2], r"must have a label for each image, got 2 labels for 3 images\. Do they belong"),
    ],
)
def test_images_and_labels_that_do_not_belong_together(folder: Path, name: str, array: NDArray[Any], text: str) -> None:
    (folder / name).write_bytes(idx(array))
    with pytest.raises(DataError, match=text):
        load_idx_folder(folder)


def test_sizes_that_differ(folder: Path) -> None:
    (folder / f"{IDX_FILES[2]}.gz").write_bytes(gzip.compress(idx(IMAGES[:2, :2])))
    with pytest.raises(DataError, match=r"must have one size, got \(2, 5\) and \(4, 5\)"):
        load_idx_folder(folder)


def test_classes_with_names(folder: Path) -> None:
    files = {name: next(folder.glob(f"{name}*")) for name in IDX_FILES}
    data = load_idx_files(files, name="x", origin="x", classes=("a", "b", "c", "d"))
    assert data.classes == ("a", "b", "c", "d")
    with pytest.raises(DataError, match=r"x: labels must be below the number of classes, 2, got 2"):
        load_idx_files(files, name="x", origin="x", classes=("a", "b"))
