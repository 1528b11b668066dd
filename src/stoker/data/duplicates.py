"""Rows or images that are in two parts of a split at once, and so are tested on what was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from stoker.errors import InputTypeError, SchemaError, SplitError, suggest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from stoker.data.splits import Split

__all__ = ["Duplicate", "DuplicateReport", "duplicates_across", "image_duplicates"]

Part: TypeAlias = Literal["train", "valid", "test"]

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
    for name in columns:
        if name not in frame.columns:
            raise SchemaError("columns", "must name columns of the table", repr(name), suggest(name, frame.columns))
        if frame.schema[name] == pl.Object:
            raise SchemaError(f"column {name!r}", "must hold values that compare", "Python objects", "Leave it out.")
    _check_rows(split, frame.height)
    compared = frame.select(columns)
    keys = compared.hash_rows().to_list() if columns else []

    def equal(rows: list[int], others: list[int]) -> list[bool]:  # two rows in 2**64 have one hash by chance
        same = pl.repeat(value=True, n=len(rows), eager=True)
        for series in compared:
            same &= series.gather(rows).eq_missing(series.gather(others))
        return same.to_list()

    return _report(keys, split, equal) if columns else DuplicateReport(0, 0, 0, ())


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
    rows = images.detach().reshape(len(images), -1)
    keys: list[Hashable] = []
    for start in range(0, len(rows), _IMAGES_AT_ONCE):
        block = rows[start : start + _IMAGES_AT_ONCE].contiguous().view(torch.uint8).numpy()
        keys.extend(hashlib.blake2b(row, digest_size=16).digest() for row in block)
    return _report(keys, split, None)


def _check_rows(split: Split, n: int) -> None:
    total = len(split.train) + len(split.valid) + len(split.test)
    if total != n:
        raise SplitError("split", f"must be of the {n:,} rows given", f"{total:,} rows", "Split these rows anew.")


def _report(
    keys: Sequence[Hashable], split: Split, equal: Callable[[list[int], list[int]], list[bool]] | None
) -> DuplicateReport:
    counts = []
    examples: list[Duplicate] = []
    for part, of_part in _PAIRS:
        rows, others = _pairs(keys, getattr(split, part), getattr(split, of_part))
        if equal is not None and rows:
            same = equal(rows, others)
            rows, others = list(compress(rows, same)), list(compress(others, same))
        counts.append(len(rows))
        examples += [Duplicate(part, row, of_part, of_row) for row, of_row in zip(rows, others, strict=True)][
            :_EXAMPLES
        ]
    return DuplicateReport(counts[0], counts[1], counts[2], tuple(examples[:_EXAMPLES]))


def _pairs(
    keys: Sequence[Hashable], rows: NDArray[np.int64], of_rows: NDArray[np.int64]
) -> tuple[list[int], list[int]]:
    """The rows whose key is that of a row in ``of_rows``, and for each of them the first such row."""
    first = {keys[row]: row for row in reversed(of_rows.tolist())}
    found = [row for row in rows.tolist() if keys[row] in first]
    return found, [first[keys[row]] for row in found]
