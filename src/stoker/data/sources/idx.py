"""IDX files, the format of MNIST and its kin: https://yann.lecun.org/exdb/mnist/, "the IDX file format".

A file is two zero bytes, a byte for the type of its values, a byte for the number of dimensions, each dimension as four
bytes, and then the values, all big-endian.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.data.dataset import ImageSet, Provenance
from stoker.data.sources.files import open_checked, short_name
from stoker.data.sources.fingerprint import digest_file, fingerprint_files
from stoker.data.sources.limits import GROWTH, LEAST_BYTES, too_large
from stoker.errors import DataError, SourceFormatError, SourceNotFoundError

__all__ = ["IDX_FILES", "is_idx_folder", "load_idx_files", "load_idx_folder", "parse_idx", "read_idx"]

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""The names of a data set's files, each of which ``.gz`` may follow: images and labels, those to test on last."""

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMS = 32  # NumPy 1's limit
_BYTES_AT_ONCE = 1 << 20
_FIX = "Copy or download it again."


def parse_idx(data: bytes, where: str = "IDX data") -> NDArray[Any]:
    """Parse the bytes of an IDX file.

    Args:
        data: All of them, unpacked.
        where: What to call them in errors.

    Returns:
        The values, in the machine's byte order, in the shape that the header states; an array of its own.

    Raises:
        SourceFormatError: The header is not that of an IDX file, or there are fewer or more values than it states.
    """
    return _parse(io.BytesIO(data), where)


def read_idx(path: Path) -> NDArray[Any]:
    """Read an IDX file, in gzip if its first bytes say so.

    Memory is bounded by what the file really holds, not by what its header claims; no more is unpacked than the header
    states, nor out of all proportion to the file.

    Args:
        path: The file.

    Returns:
        As of :func:`parse_idx`.

    Raises:
        SourceNotFoundError: There is no file, or it may not be read.
        SourceFormatError: As of :func:`parse_idx`; or the gzip around it is truncated or damaged.
    """
    where = str(path)
    with open_checked(path) as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        try:
            size = os.fstat(file.fileno()).st_size
            most = max(LEAST_BYTES, GROWTH * size) if packed else size
            return _parse(gzip.GzipFile(fileobj=file) if packed else file, where, most)
        except EOFError:
            raise SourceFormatError(where, "must be whole", "a truncated gzip file", _FIX) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise SourceFormatError(where, "must be an undamaged gzip file", error, _FIX) from None


def load_idx_files(
    files: dict[str, Path], *, name: str, origin: str, classes: tuple[str, ...] | None = None
) -> ImageSet:
    """Read the IDX files of a data set.

    Args:
        files: From names as in :data:`IDX_FILES` to where the files are; those to test on may be missing.
        name: The name of the data set, for its provenance.
        origin: What the user gave, likewise.
        classes: The names of the classes; by default the digits of the labels.

    Returns:
        The images ``[n, 1, height, width]``, with those to test on as ``test``.

    Raises:
        SourceNotFoundError: A file may not be read.
        SourceFormatError: A file is damaged.
        DataError: Images and labels do not belong together.
    """
    train_images, train_labels = _read_pair(files[IDX_FILES[0]], files[IDX_FILES[1]])
    test_pair = _read_pair(files[IDX_FILES[2]], files[IDX_FILES[3]]) if IDX_FILES[2] in files else None
    fingerprint = fingerprint_files({key: digest_file(path) for key, path in files.items()})  # of files that are sound
    highest = max(int(labels.max()) for labels in (train_labels, *(test_pair or ())[1:]))
    names = classes or tuple(str(label) for label in range(highest + 1))
    if highest >= len(names):
        raise DataError(origin, f"labels must be below the number of classes, {len(names)}", highest, _FIX)
    provenance = Provenance(name, origin, fingerprint, len(train_images))
    test = None
    if test_pair is not None:
        if test_pair[0].shape[1:] != train_images.shape[1:]:
            got = f"{test_pair[0].shape[2:]} and {train_images.shape[2:]}"
            raise DataError(origin, "images to train on and to test on must have one size", got, _FIX)
        test_provenance = Provenance(name, origin, fingerprint, len(test_pair[0]))
        test = ImageSet(torch.from_numpy(test_pair[0]), torch.from_numpy(test_pair[1]), names, test_provenance)
    images, labels = torch.from_numpy(train_images), torch.from_numpy(train_labels)
    return ImageSet(images, labels, names, provenance, test=test)


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds IDX files under their usual names."""
    return any(_find(folder, name) is not None for name in IDX_FILES)


def load_idx_folder(folder: Path) -> ImageSet:
    """Read a folder of IDX files under the names of :data:`IDX_FILES`, each of them plain or with ``.gz``.

    Args:
        folder: The folder. The pair to test on may be missing.

    Returns:
        The images, with those to test on as ``test``; the classes are ``"0"``, ``"1"``, ….

    Raises:
        SourceNotFoundError: A file of a pair is missing, or may not be read.
        SourceFormatError: A file is damaged.
        DataError: Images and labels do not belong together.
    """
    found = {name: path for name in IDX_FILES if (path := _find(folder, name)) is not None}
    needed = IDX_FILES if any(name in found for name in IDX_FILES[2:]) else IDX_FILES[:2]
    missing = [name for name in needed if name not in found]
    if missing:
        fix = f"Put it there as {missing[0]} or {missing[0]}.gz."
        raise SourceNotFoundError(str(folder / missing[0]), "must be beside the other IDX files", "no such file", fix)
    return load_idx_files(found, name=short_name(folder, ""), origin=str(folder))


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_pair(images_path: Path, labels_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.ndim != 3 or images.size == 0:
        got = f"{images.dtype} of the shape {images.shape}"
        raise DataError(str(images_path), "must hold images: uint8, [n, height, width]", got, _FIX)
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or (labels.size and labels.min() < 0):
        got = f"{labels.dtype} of the shape {labels.shape}, from {labels.min() if labels.size else 'none'}"
        raise DataError(str(labels_path), "must hold labels: integers from 0, [n]", got, _FIX)
    if len(images) != len(labels):
        got = f"{len(labels)} labels for {len(images)} images"
        raise DataError(str(labels_path), "must have a label for each image", got, "Do they belong together?")
    return images[:, None], labels.astype(np.int64)


def _parse(stream: gzip.GzipFile | io.BufferedIOBase, where: str, most: int | None = None) -> NDArray[Any]:
    magic = _read_up_to(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\x00\x00" or magic[2] not in _DTYPES or not 1 <= magic[3] <= _MAX_DIMS:
        got = f"0x{magic.hex()}" if magic else "nothing"
        raise SourceFormatError(where, "an IDX file begins with 0x0000, a type and a number of dimensions", got, _FIX)
    header = _read_up_to(stream, 4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise SourceFormatError(where, f"must state {magic[3]} dimensions", f"{len(header) // 4}", _FIX)
    shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4"))
    dtype = np.dtype(_DTYPES[magic[2]])
    expected = math.prod(shape) * dtype.itemsize
    values = _read_up_to(stream, expected + 1 if most is None else min(expected, most) + 1)
    if most is not None and len(values) > most:
        raise too_large(most, where)
    if len(values) != expected:
        got = f"{len(values)}" if len(values) < expected else "more"
        raise SourceFormatError(where, f"must hold {expected} bytes of values, as its header {shape} says", got, _FIX)
    array = np.frombuffer(values, dtype=dtype).astype(dtype.newbyteorder("="), copy=False)
    try:
        return array.reshape(shape)
    except ValueError:  # no values, but sides so long that their product overflows
        raise SourceFormatError(where, "must have a shape that fits into memory", shape, _FIX) from None


def _read_up_to(stream: gzip.GzipFile | io.BufferedIOBase, count: int) -> bytearray:
    """As many bytes as asked for, or all that there are: what is claimed is never reserved beforehand."""
    data = bytearray()
    while len(data) < count and (part := stream.read(min(_BYTES_AT_ONCE, count - len(data)))):
        data += part
    return data
