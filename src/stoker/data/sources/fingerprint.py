"""Fingerprints of data: the same bytes or the same values give the same text, on every platform and version.

A file is hashed as it is on disk; several files by their sorted relative names and the hash of each; a table in memory
by the names, dtypes and values of its columns, independently of how its library lays them out; an array by dtype,
shape and values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["digest_file", "fingerprint_arrays", "fingerprint_file", "fingerprint_files", "fingerprint_frame"]

_ROWS_AT_ONCE = 65_536  # text is hashed in slices of so many rows: bounded memory for columns of any length


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file's bytes, read in pieces.

    Args:
        path: The file.
        algorithm: A name that :mod:`hashlib` knows, such as ``"sha256"`` or ``"md5"``.

    Returns:
        The digest, in hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def fingerprint_file(path: Path) -> str:
    """``sha256:`` and the hash of a file's bytes as they are on disk."""
    return f"sha256:{digest_file(path)}"


def fingerprint_files(digests: Mapping[str, str]) -> str:
    """The fingerprint of several files as one whole.

    Args:
        digests: From each file's relative name, with ``/`` between its parts, to the SHA-256 of its bytes
            (:func:`digest_file`). The order does not matter.

    Returns:
        ``sha256:`` and the hash over the sorted names and their digests.
    """
    total = hashlib.sha256()
    for name in sorted(digests):
        _update_text(total, name)
        total.update(bytes.fromhex(digests[name]))
    return f"sha256:{total.hexdigest()}"


def fingerprint_arrays(arrays: Mapping[str, NDArray[Any] | None]) -> str:
    """The fingerprint of named arrays: their names, dtypes, shapes and values, in the order given.

    Args:
        arrays: The arrays, of any shape; ``None`` for one that the data do not have.

    Returns:
        ``sha256:`` and the hash; the byte order of the machine does not matter.
    """
    total = hashlib.sha256()
    for name, array in arrays.items():
        _update_text(total, name)
        if array is None:
            continue
        _update_text(total, f"{array.dtype.kind}{array.dtype.itemsize}{array.shape}")
        _update_array(total, array)
    return f"sha256:{total.hexdigest()}"


def fingerprint_frame(frame: pl.DataFrame) -> str:
    """The fingerprint of a table: names, dtypes and values of its columns, in their order.

    Args:
        frame: The table. How it is cut into chunks, and what its categories' codes are, does not matter.

    Returns:
        ``sha256:`` and the hash over, for each column: its name, the name of its dtype (with time unit and zone), which
        rows are missing, and the values: numbers as little-endian bytes, times as their integers, text as lengths and
        UTF-8 bytes, everything else as Python writes it.
    """
    total = hashlib.sha256()
    for column in frame:
        _update_text(total, column.name)
        _update_column(total, column.alias(""))  # nameless: polars takes some names for patterns
    return f"sha256:{total.hexdigest()}"


def _update_column(total: hashlib._Hash, column: pl.Series) -> None:
    import polars as pl

    dtype = column.dtype
    zone = f"[{dtype.time_unit},{dtype.time_zone}]" if isinstance(dtype, pl.Datetime) else ""
    unit = f"[{dtype.time_unit}]" if isinstance(dtype, pl.Duration) else ""
    _update_text(total, f"{dtype.base_type().__name__}{zone}{unit}:{len(column)}")
    total.update(np.packbits(column.is_not_null().to_numpy()).tobytes())
    if dtype.base_type() in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        for start in range(0, len(column), _ROWS_AT_ONCE):
            part = column.slice(start, _ROWS_AT_ONCE).fill_null("")
            _update_array(total, part.str.len_bytes().to_numpy())
            total.update("".join(part.to_list()).encode())
    elif dtype == pl.Boolean:
        _update_array(total, column.fill_null(value=False).cast(pl.UInt8).to_numpy())
    elif dtype.is_temporal():
        _update_array(total, column.to_physical().fill_null(0).to_numpy())
    elif dtype.is_integer() and "128" not in str(dtype):
        _update_array(total, column.fill_null(0).to_numpy())
    elif dtype in (pl.Float32, pl.Float64):
        _update_array(total, column.fill_null(0.0).to_numpy())
    else:
        for start in range(0, len(column), _ROWS_AT_ONCE):
            _update_text(total, repr(column.slice(start, _ROWS_AT_ONCE).to_list()))


def _update_text(total: hashlib._Hash, text: str) -> None:
    """Add a text after its length, so that no two sequences of texts look the same."""
    data = text.encode()
    total.update(len(data).to_bytes(8, "little"))
    total.update(data)


def _update_array(total: hashlib._Hash, array: NDArray[np.generic]) -> None:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if little.size:  # an empty array has no buffer to view
        total.update(little.reshape(-1).view(np.uint8).data)
