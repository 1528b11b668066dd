"""Rows or images that are in two parts of a split at once, and so are tested on what was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import polars as pl

from stoker.errors import InputTypeError, SchemaError, SplitError, suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from stoker.data.splits import Split

__all__ = ["Duplicate", "DuplicateReport", "duplicates_across", "image_duplicates"]

Part: TypeAlias = Literal["train", "valid", "test"]
Rows: TypeAlias = "NDArray[np.int64]"

_PAIRS: tuple[tuple[Part, Part], ...] = (("valid", "train"), ("test", "train"), ("test", "valid"))
_EXAMPLES = 5
_IMAGES_AT_ONCE = 4096


@dataclass(frozen=True)
class Duplicate:
    """A row and an earlier part's first row that equals it; rows are counted from 0 in the whole table."""

    part: Part
    row: int
    of_part: Part
    of_row: int


@dataclass(frozen=True)
class DuplicateReport:
    """How many rows of one part of a split equal a row of another.

    Attributes:
        valid_in_train: Rows of the validation part that equal a row of the training part.
        test_in_train: Rows of the test part that equal a row of the training part.
        test_in_valid: Rows of the test part that equal a row of the validation part.
        examples: Up to five pairs.
    """

    valid_in_train: int
    test_in_train: int
    test_in_valid: int
    examples: tuple[Duplicate, ...]

    @property
    def any(self) -> bool:
        """Whether there are duplicates at all."""
        return self.valid_in_train + self.test_in_train + self.test_in_valid > 0


def duplicates_across(frame: pl.DataFrame, split: Split, columns: Sequence[str]) -> DuplicateReport:
    """Find rows that equal a row of another part in all of the columns; missing values equal each other.

    Args:
        frame: The table that was split.
        split: The split, of all its rows.
        columns: The columns to compare: usually the features and the target.

    Raises:
        SchemaError: A column is not there, or holds Python objects, which cannot be compared.
        SplitError: The split is of another number of rows.
    """
    dtypes = frame.schema  # which polars makes anew each time it is asked
    for name in columns:
        if name not in dtypes:
            raise SchemaError("columns", "must name columns of the table", repr(name), suggest(name, frame.columns))
        if dtypes[name] == pl.Object:
            raise SchemaError(f"column {name!r}", "must hold values that compare", "Python objects", "Leave it out.")
    _check_rows(split, frame.height)
    if not columns:
        return DuplicateReport(0, 0, 0, ())
    # not frame.select, which takes a name like ^.*$ for a pattern
    compared = pl.DataFrame([frame.get_column(name) for name in columns])

    def equal(rows: Rows, others: Rows) -> NDArray[np.bool_]:
        same = np.ones(len(rows), bool)
        for series in compared:
            same &= series.gather(rows).eq_missing(series.gather(others)).to_numpy()
        return same

    return _report(compared.hash_rows().to_numpy(), split, equal)


def image_duplicates(images: Tensor, split: Split) -> DuplicateReport:
    """Find images that equal an image of another part in every pixel.

    Args:
        images: Shape ``[n, ...]``, any dtype, on the CPU: usually uint8 ``[n, channels, height, width]``.
        split: The split, of all images.

    Raises:
        InputTypeError: The images are no tensor on the CPU.
        SplitError: The split is of another number of images.
    """
    import torch

    given: object = images
    if not isinstance(given, torch.Tensor) or given.device.type != "cpu":
        raise InputTypeError("images", "must be a tensor on the CPU", type(given).__name__, "Move it there first.")
    _check_rows(split, len(images))
    if images.numel() == 0:
        return DuplicateReport(0, 0, 0, ())
    flat = images.detach().reshape(len(images), -1)
    digests: list[bytes] = []
    for start in range(0, len(flat), _IMAGES_AT_ONCE):
        block = flat[start : start + _IMAGES_AT_ONCE].contiguous().view(torch.uint8).numpy()
        digests.extend(hashlib.blake2b(row, digest_size=8).digest() for row in block)

    def equal(rows: Rows, others: Rows) -> NDArray[np.bool_]:
        pieces = range(0, len(rows), _IMAGES_AT_ONCE)
        pairs = ((rows[i : i + _IMAGES_AT_ONCE], others[i : i + _IMAGES_AT_ONCE]) for i in pieces)
        return np.concatenate([(flat[one] == flat[other]).all(dim=1).numpy() for one, other in pairs])

    return _report(np.frombuffer(b"".join(digests), np.uint64), split, equal)


def _check_rows(split: Split, n: int) -> None:
    total = len(split.train) + len(split.valid) + len(split.test)
    if total != n:
        raise SplitError("split", f"must be of the {n:,} rows given", f"{total:,} rows", "Split these rows anew.")


def _report(
    keys: NDArray[np.uint64], split: Split, equal: Callable[[Rows, Rows], NDArray[np.bool_]]
) -> DuplicateReport:
    """Compare what has the same key, since two rows in 2**64 have the same one by chance."""
    counts: list[int] = []
    examples: list[Duplicate] = []
    for part, of_part in _PAIRS:
        rows, others = _pairs(keys, getattr(split, part), getattr(split, of_part))
        if len(rows):
            same = equal(rows, others)
            rows, others = rows[same], others[same]
        counts.append(len(rows))
        for row, of_row in zip(rows[:_EXAMPLES].tolist(), others[:_EXAMPLES].tolist(), strict=True):
            examples.append(Duplicate(part, row, of_part, of_row))
    return DuplicateReport(counts[0], counts[1], counts[2], tuple(examples[:_EXAMPLES]))


def _pairs(keys: NDArray[np.uint64], rows: Rows, of_rows: Rows) -> tuple[Rows, Rows]:
    """Find the rows whose key is that of a row in ``of_rows``, and for each of them the first such row."""
    if not len(of_rows):
        return rows[:0], of_rows
    distinct, first = np.unique(keys[of_rows], return_index=True)
    place = np.searchsorted(distinct, keys[rows]).clip(max=len(distinct) - 1)
    found = distinct[place] == keys[rows]
    return rows[found], of_rows[first[place[found]]]
